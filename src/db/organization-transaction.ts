// Transactions in the name of one organisation: in the role that row-level security shows that organisation's rows and no
// others, whatever a statement forgets to say (migration 0004). Role and organisation are set for the transaction alone,
// so that the next holder of the connection cannot find them.
import { sql } from 'kysely'
import { appRole, type Db, organizationRole, type Tx } from './database.ts'
import { transact } from './transaction.ts'

/**
 * A column that makes the rest of a transaction plan each statement for what it is asked: plans made once for all would read
 * a very large organisation as if it were of middling size.
 */
export const planForThis = `set_config('plan_cache_mode', 'force_custom_plan', true)`

/** Runs `work` in a transaction that sees and writes rows of this organisation only. Retried like `transact`. */
export function transactFor<T>(db: Db, organizationId: string, work: (tx: Tx) => Promise<T>): Promise<T> {
  return transact(db, async (tx) => {
    await confineTo(tx, organizationId)
    return work(tx)
  })
}

/**
 * From here to its end, a transaction sees and writes rows of this organisation only; of all, without one. Its plans are
 * made for this organisation.
 */
export async function confineTo(tx: Tx, organizationId: string | undefined): Promise<void> {
  const role = organizationId === undefined ? appRole : organizationRole
  await sql`select set_config('role', ${role}, true), set_config('mlpipes_auth.organization', ${organizationId ?? ''}, true),
    ${sql.raw(planForThis)}`.execute(tx)
}

/**
 * Does `work` with the rows of every organisation, in a transaction that is confined to one: for what follows a person out
 * of it, such as their sessions elsewhere. The transaction is confined again afterwards; when `work` throws, it is over.
 */
export async function beyond<T>(tx: Tx, organizationId: string, work: () => Promise<T>): Promise<T> {
  await confineTo(tx, undefined)
  const result = await work()
  await confineTo(tx, organizationId)
  return result
}
