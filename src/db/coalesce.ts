// Reads that concurrent requests share: one prepared statement over arrays for all who ask in the same turn. A request
// that holds a transaction reads inside it instead, on its own connection, and so sees what it wrote itself.
import { createBatcher } from './batcher.ts'
import { type Database, type Row, runIn } from './database.ts'
import { withOpenTransaction } from './transaction.ts'

export interface Coalesced<Item, Result> {
  readonly statement: string
  /** The statement's parameters for these items: arrays, one entry per item. */
  values(items: readonly Item[]): unknown[]
  /** One result per item, in their order. */
  results(rows: readonly Row[], items: readonly Item[]): Result[]
}

const limits = { maxBatch: 500, maxInFlight: 1, maxWaiting: 20_000 } as const

export function coalesce<Item, Result>(
  database: Database,
  read: Coalesced<Item, Result>,
): (item: Item) => Promise<Result> {
  const batched = createBatcher<Item, Result>({
    ...limits,
    run: async (items) => read.results(await database.run(read.statement, read.values(items)), items),
  })
  return (item) =>
    withOpenTransaction(async (tx) => {
      if (!tx) return batched(item)
      const [result] = read.results(await runIn(tx, read.statement, read.values([item])), [item])
      return result as Result
    })
}
