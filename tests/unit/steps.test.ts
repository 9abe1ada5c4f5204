// Long work in steps that leave room for requests.
import { describe, expect, it } from 'vitest'
import { createTurns } from '../../src/steps.ts'

describe('turns', () => {
  it('are one after another, in the order they were asked for, whatever becomes of them', async () => {
    const inTurn = createTurns(0)
    const log: string[] = []
    const work = (name: string, ms: number) => async () => {
      log.push(`${name} begins`)
      await new Promise((resolve) => setTimeout(resolve, ms))
      log.push(`${name} ends`)
      if (name === 'b') throw new Error('b failed')
      return name
    }
    const asked = [inTurn(work('a', 20)), inTurn(work('b', 1)), inTurn(work('c', 5))]
    expect((await Promise.allSettled(asked)).map((one) => (one.status === 'fulfilled' ? one.value : 'failed'))).toEqual(
      ['a', 'failed', 'c'],
    )
    expect(log).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends'])
  })

  it('rest as many times as long as the one before took', async () => {
    const inTurn = createTurns(4)
    const times: number[] = []
    await Promise.all([
      inTurn(async () => {
        await new Promise((resolve) => setTimeout(resolve, 30))
        times.push(performance.now())
      }),
      inTurn(async () => void times.push(performance.now())),
    ])
    // A timer may be a millisecond early.
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(4 * 29)
  })
})
