// Coalescing: what concurrent requests ask of the database in one turn of the event loop becomes one statement.

interface Waiting<Item, Result> {
  readonly item: Item
  resolve(result: Result): void
  reject(reason: unknown): void
}

export interface BatcherOptions<Item, Result> {
  /** Answers the items, one result per item and in their order. A rejection reaches everyone in the batch. */
  run(items: readonly Item[]): Promise<readonly Result[]>
  readonly maxBatch: number
  /** How many statements may be on their way at once; what arrives meanwhile waits and makes the next batch larger. */
  readonly maxInFlight: number
  /** Beyond this many waiting items new ones are refused: an outage must not fill the memory. */
  readonly maxWaiting: number
}

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
    options
      .run(batch.map((entry) => entry.item))
      .then(
        (results) => {
          for (const [index, entry] of batch.entries()) entry.resolve(results[index] as Result)
        },
        (reason: unknown) => {
          for (const entry of batch) entry.reject(reason)
        },
      )
      .finally(() => {
        inFlight -= 1
        schedule()
      })
    schedule()
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
