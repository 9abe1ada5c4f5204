// sign_in_flows in SQL: one row per interaction, moved on by one conditional update.
import { sql } from 'kysely'
import type { Db, Tx } from '../db/database.ts'
import { type Factor, type Flow, factors } from './flow.ts'

export interface StoredFlow extends Flow {
  /** 0: nothing is stored yet. */
  readonly version: number
  /** The authenticator that is being set up in this sign-in. */
  readonly totpId: string | undefined
  /** The organisation that somebody of several chose. */
  readonly organizationId: string | undefined
}

const flowMinutes = 15

export async function findFlow(db: Db, interactionHash: string): Promise<StoredFlow | undefined> {
  const row = await db
    .selectFrom('sign_in_flows')
    .select(['version', 'account_id', 'proved', 'totp_id', 'codes_pending', 'organization_id'])
    .where('interaction_hash', '=', interactionHash)
    .where('expires_at', '>', sql<Date>`now()`)
    .executeTakeFirst()
  return (
    row && {
      version: row.version,
      accountId: row.account_id ?? undefined,
      proved: factors.filter((factor) => row.proved.includes(factor)),
      totpId: row.totp_id ?? undefined,
      codesPending: row.codes_pending,
      organizationId: row.organization_id ?? undefined,
    }
  )
}

/**
 * Moves a flow on from the version it was read at.
 * @returns false when another request moved it first
 */
export async function advanceFlow(tx: Tx, interactionHash: string, flow: StoredFlow): Promise<boolean> {
  const values = {
    account_id: flow.accountId ?? null,
    proved: [...new Set<Factor>(flow.proved)],
    totp_id: flow.totpId ?? null,
    codes_pending: flow.codesPending,
    organization_id: flow.organizationId ?? null,
  }
  if (flow.version === 0) {
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
    .where('version', '=', flow.version)
    .executeTakeFirst()
  return updated.numUpdatedRows === 1n
}

export async function cleanFlows(db: Db, limit: number): Promise<void> {
  await sql`delete from sign_in_flows where interaction_hash in
    (select interaction_hash from sign_in_flows where expires_at < now() limit ${limit})`.execute(db)
}
