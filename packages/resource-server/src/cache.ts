// Shares one answer among those who ask at the same time, and keeps good answers for a moment. What it may cost: a token
// that died may still open doors for as long as its answer is kept, never longer, and never past its own end.
import { createHash } from 'node:crypto'

export interface Kept {
  /** In seconds since 1970. */
  readonly exp: number
}

interface Entry<Answer> {
  readonly answer: Answer
  readonly untilMs: number
}

/**
 * @param find what to ask; undefined is an answer too, and is not kept
 * @param clock milliseconds that only go up, whatever happens to the time of day
 */
export function createCache<Answer extends Kept>(
  find: (token: string) => Promise<Answer | undefined>,
  limits: { readonly keepMs: number; readonly maxEntries: number },
  clock: () => number = () => performance.now(),
): (token: string) => Promise<Answer | undefined> {
  // By hash: what is in memory for a while opens nothing.
  const kept = new Map<string, Entry<Answer>>()
  const asking = new Map<string, Promise<Answer | undefined>>()

  function keep(key: string, answer: Answer, askedMs: number): void {
    const leftMs = answer.exp * 1000 - Date.now()
    // From when it was asked: the issuer may have looked at once, and answered late.
    const untilMs = Math.min(askedMs + limits.keepMs, clock() + leftMs)
    if (untilMs <= clock()) return
    kept.delete(key)
    for (const oldest of kept.keys()) {
      if (kept.size < limits.maxEntries) break
      kept.delete(oldest)
    }
    kept.set(key, { answer, untilMs })
  }

  async function ask(key: string, token: string): Promise<Answer | undefined> {
    const askedMs = clock()
    const answer = await find(token)
    if (answer) keep(key, answer, askedMs)
    return answer
  }

  return async (token) => {
    const key = createHash('sha256').update(token).digest('base64url')
    const known = kept.get(key)
    if (known && known.untilMs > clock()) return known.answer
    kept.delete(key)
    const underway = asking.get(key)
    if (underway) return underway
    const started = ask(key, token)
    asking.set(key, started)
    const forget = () => asking.delete(key)
    started.then(forget, forget)
    return started
  }
}
