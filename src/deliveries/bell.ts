// The bell between whoever writes deliveries and the worker of the same process: neither knows the other, and both know the
// database. What other processes write is found by looking.
import type { Db } from '../db/database.ts'

// Kysely gives a transaction the adapter of the database that it was opened on.
const listeners = new WeakMap<object, Set<() => void>>()

/** Calls `listener` for each delivery that this process writes, before its transaction is committed. */
export function listenForDeliveries(db: Db, listener: () => void): () => void {
  const { adapter } = db.getExecutor()
  const all = listeners.get(adapter) ?? new Set()
  listeners.set(adapter, all)
  all.add(listener)
  return () => void all.delete(listener)
}

/** Says that a delivery was written. */
export function ringForDeliveries(tx: Db): void {
  for (const listener of listeners.get(tx.getExecutor().adapter) ?? []) listener()
}
