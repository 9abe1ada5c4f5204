// Work that is done one after another, key by key, in this process: a form that is sent twice at once, by a double click
// without JavaScript, is looked at a second time when the first is done.

export type InTurn = <T>(key: string, work: () => Promise<T>) => Promise<T>

/** Nothing is kept of a key that nobody works under. */
export function createTurns(): InTurn {
  const last = new Map<string, Promise<unknown>>()
  return async (key, work) => {
    const mine = (last.get(key) ?? Promise.resolve()).then(work)
    const settled = mine.catch(() => undefined)
    last.set(key, settled)
    try {
      return await mine
    } finally {
      if (last.get(key) === settled) last.delete(key)
    }
  }
}
