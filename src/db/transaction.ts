// One database transaction per token request that spends something: opened at the first statement that needs it,
// kept in async-local storage for the adapter, committed unless the answer is 5xx. A 400 commits too, because finding
// that a code was used twice revokes what the first use got (RFC 6749 §4.1.2). The answer is sent after the commit.
import { AsyncLocalStorage } from 'node:async_hooks'
import type { ControlledTransaction } from 'kysely'
import type { Db, Tx } from './database.ts'
import { retryCollisions } from './pg-errors.ts'
import type { Schema } from './schema.ts'

/** A transaction that may open later. Statements inside run one after another, as one connection wants it. */
class Scope {
  readonly #db: Db
  #transaction: Promise<ControlledTransaction<Schema>> | undefined
  #last: Promise<unknown> = Promise.resolve()

  constructor(db: Db) {
    this.#db = db
  }

  get isOpen(): boolean {
    return this.#transaction !== undefined
  }

  run<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    this.#transaction ??= this.#db.startTransaction().execute()
    const transaction = this.#transaction
    const result = this.#last.then(async () => work(await transaction))
    this.#last = result.catch(() => undefined)
    return result
  }

  async finish(commit: boolean): Promise<void> {
    if (!this.#transaction) return
    await this.#last
    const transaction = await this.#transaction
    await (commit ? transaction.commit() : transaction.rollback()).execute()
  }
}

const scopes = new AsyncLocalStorage<Scope>()
const given = new AsyncLocalStorage<Tx>()

/**
 * Runs `work` in a transaction of its own. When two of them collide (deadlock, serialisation failure), the one that
 * PostgreSQL rolled back is run again, so `work` must do nothing that a rollback does not undo.
 */
export function transact<T>(db: Db, work: (tx: Tx) => Promise<T>): Promise<T> {
  return retryCollisions(() => db.transaction().execute(work))
}

/** Runs `work` in the transaction of the current request, opening it when the request has a scope but none open. */
export function inRequestTransaction<T>(db: Db, work: (tx: Tx) => Promise<T>): Promise<T> {
  const tx = given.getStore()
  if (tx) return work(tx)
  const scope = scopes.getStore()
  return scope ? scope.run(work) : transact(db, work)
}

/** Runs `work` with the request's transaction if one is open already, without one otherwise. */
export function withOpenTransaction<T>(work: (tx: Tx | undefined) => Promise<T>): Promise<T> {
  const tx = given.getStore()
  if (tx) return work(tx)
  const scope = scopes.getStore()
  return scope?.isOpen ? scope.run(work) : work(undefined)
}

export function hasScope(): boolean {
  return given.getStore() !== undefined || scopes.getStore() !== undefined
}

/** Lets what the provider writes during `work` join a transaction that the caller opened. */
export function joinTransaction<T>(tx: Tx, work: () => Promise<T>): Promise<T> {
  return given.run(tx, work)
}

/**
 * Gives `work` a scope and settles it afterwards.
 * @param shouldCommit asked when `work` returned; a throw always rolls back
 */
export async function withScope(db: Db, work: () => Promise<void>, shouldCommit: () => boolean): Promise<void> {
  const scope = new Scope(db)
  try {
    await scopes.run(scope, work)
  } catch (error) {
    await scope.finish(false).catch(() => undefined)
    throw error
  }
  await scope.finish(shouldCommit())
}
