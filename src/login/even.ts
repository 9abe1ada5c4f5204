// Answers that must not tell by their time whether an address has an account (F30, F32): they come no sooner than a fixed
// time after the request, which is longer than any of them takes, and a little by chance, because timers count in whole
// milliseconds and would let the fraction through. Nothing is held meanwhile but the connection.
import { randomInt } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'

/** A quarter of a second: several times what a hash or a few statements take, and short for whoever waits for a mail. */
export const evenAnswerMs = 250
/** The part that is left to chance, of that time. */
const chance = 0.2

/**
 * Runs `work` and hands its result over no sooner than `ms` after the start.
 * @param isEven which results this is for; others are handed over at once
 */
export async function noSoonerThan<T>(
  ms: number,
  work: () => Promise<T>,
  isEven: (result: T) => boolean = () => true,
): Promise<T> {
  const begun = performance.now()
  const result = await work()
  if (!isEven(result)) return result
  const end = begun + ms + randomInt(Math.ceil(ms * chance))
  await setTimeout(Math.max(0, Math.ceil(end - performance.now())))
  return result
}
