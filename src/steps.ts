// Long work in steps that leave room for requests.
import { setTimeout as pause } from 'node:timers/promises'

interface Pace {
  /** How long it rests after each step, as a multiple of the time that the step took: longer when the machine is busy. */
  readonly restFactor: number
  /** Asked before each step. */
  goesOn(): boolean
}

/**
 * Does one step after another.
 * @param step says whether there may be more
 * @returns false when it was stopped before the last one
 */
export async function inSteps({ restFactor, goesOn }: Pace, step: () => Promise<boolean>): Promise<boolean> {
  while (goesOn()) {
    const startedAt = performance.now()
    if (!(await step())) return true
    await pause((performance.now() - startedAt) * restFactor)
  }
  return false
}

/** Makes a function that does what it is given one after another, whoever gives it, and rests after each. */
export function createTurns(restFactor: number): <T>(work: () => Promise<T>) => Promise<T> {
  let before: Promise<unknown> = Promise.resolve()
  return (work) => {
    let took = 0
    const result = before.then(async () => {
      const startedAt = performance.now()
      return work().finally(() => {
        took = performance.now() - startedAt
      })
    })
    const rest = () => pause(took * restFactor)
    before = result.then(rest, rest)
    return result
  }
}
