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
