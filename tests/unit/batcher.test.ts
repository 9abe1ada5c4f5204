// What shares a statement shares nothing else: a value that the database refuses, or a lock that one waits for.
import { describe, expect, it } from 'vitest'
import { createBatcher } from '../../src/db/batcher.ts'

const refused = (code: string) => Object.assign(new Error(code), { code })
const limits = { maxBatch: 10, maxInFlight: 1, maxWaiting: 100 }

describe('a batch', () => {
  it.each(['22P05', '22003', '23505'])('in which a value is refused (%s) is answered one by one', async (code) => {
    const sent: number[] = []
    const ask = createBatcher<string, string>({
      ...limits,
      async run(items) {
        sent.push(items.length)
        if (items.includes('poison')) throw refused(code)
        return items.map((item) => item.toUpperCase())
      },
    })
    const answers = await Promise.allSettled(['a', 'poison', 'b'].map(ask))
    expect(answers.map((answer) => (answer.status === 'fulfilled' ? answer.value : answer.reason.code))).toEqual([
      'A',
      code,
      'B',
    ])
    expect(sent).toEqual([3, 1, 1, 1])
  })

  it('that fails for any other reason fails as one, without another try', async () => {
    let tries = 0
    const ask = createBatcher<string, string>({
      ...limits,
      async run() {
        tries += 1
        throw refused('57P01')
      },
    })
    const answers = await Promise.allSettled(['a', 'b'].map(ask))
    expect(answers.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(tries).toBe(1)
  })

  it('that waits for a lock does not hold up those after it, of which four at most wait beside it', async () => {
    const { promise: held, resolve: letGo } = Promise.withResolvers<void>()
    let underWay = 0
    const ask = createBatcher<string, string>({
      ...limits,
      async run(items) {
        underWay += 1
        if (items.includes('locked')) await held
        return [...items]
      },
    })
    const stuck: Promise<string>[] = []
    const stick = async () => {
      stuck.push(ask('locked'))
      await new Promise((resolve) => setTimeout(resolve, 150))
    }
    for (let count = 0; count < 4; count += 1) {
      await stick()
      expect(await ask('free')).toBe('free')
    }
    expect(underWay).toBe(8)
    await stick()
    const last = ask('free')
    expect(await Promise.race([last, new Promise((resolve) => setTimeout(resolve, 300, 'waits'))])).toBe('waits')
    letGo()
    expect(await last).toBe('free')
    expect(await Promise.all(stuck)).toHaveLength(5)
  })
})
