// Coalescing: what concurrent requests ask of the database in one turn of the event loop becomes one statement.
import { isRefusedValue } from './pg-errors.ts'

interface Waiting<Item, Result> {
  readonly item: Item
  resolve(result: Result): void
  reject(reason: unknown): void
}

export interface BatcherOptions<Item, Result> {
  /**
   * Answers the items, one result per item and in their order, by one statement or transaction. A rejection reaches everyone in
   * the batch; but when the database refuses a value, each item is answered by itself, and only that one's owner hears of it.
   */
  run(items: readonly Item[]): Promise<readonly Result[]>
  readonly maxBatch: number
  /** How many statements may be on their way at once; what arrives meanwhile waits and makes the next batch larger. */
  readonly maxInFlight: number
  /** Beyond this many waiting items new ones are refused: an outage must not fill the memory. */
  readonly maxWaiting: number
}

/** A statement that takes longer waits for somebody's lock, most likely: the next goes past it. */
const patienceMs = 100
/** So many may be gone past at a time, of all batchers of the process: each holds a connection of the pool. */
const maxPassed = 4
let passed = 0

/** Thrown for an item that found the queue full. */
export class BatchQueueFull extends Error {}

/** Makes a function that answers one item by way of the next batch. */
export function createBatcher<Item, Result>(options: BatcherOptions<Item, Result>): (item: Item) => Promise<Result> {
  let waiting: Waiting<Item, Result>[] = []
  let inFlight = 0
  let scheduled = false

  function schedule() {
    if (scheduled || inFlight >= options.maxInFlight || waiting.length === 0) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      send()
    })
  }

  function send() {
    const batch = waiting.slice(0, options.maxBatch)
    waiting = waiting.slice(options.maxBatch)
    if (batch.length === 0) return
    inFlight += 1
    let isPassed = false
    const passing = setTimeout(() => {
      if (passed >= maxPassed) return
      isPassed = true
      passed += 1
      inFlight -= 1
      schedule()
    }, patienceMs)
    answer(batch).finally(() => {
      clearTimeout(passing)
      if (isPassed) passed -= 1
      else inFlight -= 1
      schedule()
    })
    schedule()
  }

  /** Never rejects. */
  async function answer(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await options.run(batch.map((entry) => entry.item))
      for (const [index, entry] of batch.entries()) entry.resolve(results[index] as Result)
    } catch (reason) {
      if (batch.length > 1 && isRefusedValue(reason)) for (const entry of batch) await answer([entry])
      else for (const entry of batch) entry.reject(reason)
    }
  }

  return (item) => {
    if (waiting.length >= options.maxWaiting)
      return Promise.reject(new BatchQueueFull('too many statements are waiting'))
    const { promise, resolve, reject } = Promise.withResolvers<Result>()
    waiting.push({ item, resolve, reject })
    schedule()
    return promise
  }
}
