// A bounded store with expiry, under random ids: what the server remembers of a browser. A real app uses its database.
import { randomBytes } from 'node:crypto'

export interface Store<Value> {
  /** Keeps the value and returns its new id. The oldest goes when the store is full. */
  add(value: Value): string
  get(id: string | undefined): Value | undefined
  remove(id: string | undefined): void
}

/** An empty store whose values last `lifeMs` and of which there are never more than `limit`. */
export function createStore<Value>({ limit, lifeMs }: { limit: number; lifeMs: number }): Store<Value> {
  const kept = new Map<string, { value: Value; until: number }>()

  // A Map keeps the order of insertion and all live equally long, so the first is always the next to expire.
  const dropOld = (): void => {
    for (const [id, { until }] of kept) {
      if (until > Date.now() && kept.size < limit) return
      kept.delete(id)
    }
  }

  return {
    add(value) {
      dropOld()
      const id = randomBytes(32).toString('base64url')
      kept.set(id, { value, until: Date.now() + lifeMs })
      return id
    },
    get(id) {
      const found = kept.get(id ?? '')
      return found && found.until > Date.now() ? found.value : undefined
    },
    remove(id) {
      kept.delete(id ?? '')
    },
  }
}
