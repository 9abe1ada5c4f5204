// sign_in_flows in SQL: one row per interaction, moved on by one conditional update.
import { sql } from 'kysely'
import type { Db, Tx } from '../db/database.ts'
import type { Factor, Flow } from './flow.ts'

export interface StoredFlow extends Flow {
  readonly version: number
}

const flowMinutes = 15

export async function findFlow(db: Db, interactionHash: string): Promise<StoredFlow | undefined> {
  const row = await db
    .selectFrom('sign_in_flows')
    .select(['version', 'account_id', 'proved'])
    .where('interaction_hash', '=', interactionHash)
    .where('expires_at', '>', sql<Date>`now()`)
    .executeTakeFirst()
  return row && { version: row.version, accountId: row.account_id ?? undefined, proved: row.proved.filter(isFactor) }
}

function isFactor(value: string): value is Factor {
  return value === 'pwd' || value === 'otp'
}

/**
 * Moves a flow on from `version`.
 * @returns false when another request moved it first
 */
export async function advanceFlow(tx: Tx, interactionHash: string, version: number, flow: Flow): Promise<boolean> {
  const values = { account_id: flow.accountId ?? null, proved: [...flow.proved] }
  if (version === 0) {
    const inserted = await tx
      .insertInto('sign_in_flows')
      .values({
        interaction_hash: interactionHash,
        version: 1,
        ...values,
        expires_at: sql<Date>`now() + make_interval(mins => ${flowMinutes})`,
      })
      .onConflict((conflict) => conflict.column('interaction_hash').doNothing())
      .executeTakeFirst()
    return inserted.numInsertedOrUpdatedRows === 1n
  }
  const updated = await tx
    .updateTable('sign_in_flows')
    .set((eb) => ({ ...values, version: eb('version', '+', 1) }))
    .where('interaction_hash', '=', interactionHash)
    .where('version', '=', version)
    .executeTakeFirst()
  return updated.numUpdatedRows === 1n
}

export async function cleanFlows(db: Db, limit: number): Promise<void> {
  await sql`delete from sign_in_flows where interaction_hash in
    (select interaction_hash from sign_in_flows where expires_at < now() limit ${limit})`.execute(db)
  await sql`delete from sign_in_attempts where key in
    (select key from sign_in_attempts where window_ends_at < now() limit ${limit})`.execute(db)
}
