// What a person allowed a client, remembered beyond the session in which they did.
import type { Db, Tx } from '../db/database.ts'

export interface Consents {
  /** Scopes that this person allowed this client; empty when they were never asked. */
  find(accountId: string, clientId: string): Promise<string[]>
  /** Adds scopes to what was allowed before. */
  add(tx: Tx, accountId: string, clientId: string, scopes: readonly string[]): Promise<void>
}

export function createConsents(db: Db): Consents {
  return {
    async find(accountId, clientId) {
      const row = await db
        .selectFrom('consents')
        .select('scopes')
        .where('account_id', '=', accountId)
        .where('client_id', '=', clientId)
        .executeTakeFirst()
      return row?.scopes ?? []
    },
    async add(tx, accountId, clientId, scopes) {
      const known = await tx
        .selectFrom('consents')
        .select('scopes')
        .where('account_id', '=', accountId)
        .where('client_id', '=', clientId)
        .forUpdate()
        .executeTakeFirst()
      const all = [...new Set([...(known?.scopes ?? []), ...scopes])]
      await tx
        .insertInto('consents')
        .values({ account_id: accountId, client_id: clientId, scopes: all })
        .onConflict((conflict) =>
          conflict
            .columns(['account_id', 'client_id'])
            .doUpdateSet((eb) => ({ scopes: eb.ref('excluded.scopes'), granted_at: eb.fn<Date>('now') })),
        )
        .execute()
    },
  }
}
