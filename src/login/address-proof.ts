// The first proof that somebody reads the mail of an account's address. Until then anybody may have set its password:
// whoever proves the address first gets an account without it (pre-account hijack, F59).
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import type { Tx } from '../db/database.ts'
import { endAccess } from '../sessions/ending.ts'

/**
 * Marks the address as proven. The first time it removes the password and ends every session; afterwards nothing.
 * @param password `replaced` when the same transaction sets a new one
 * @param interactionHash the sign-in in which it happens, which goes on
 */
export async function proveAddress(
  tx: Tx,
  account: { readonly id: string; readonly emailVerified: boolean; readonly organization: { readonly id: string } },
  origin: Origin,
  {
    password = 'removed',
    interactionHash,
  }: { readonly password?: 'removed' | 'replaced'; readonly interactionHash?: string } = {},
): Promise<void> {
  if (account.emailVerified) return
  const verified = await tx
    .updateTable('accounts')
    .set((eb) => ({ email_verified_at: eb.fn<Date>('now'), updated_at: eb.fn<Date>('now') }))
    .where('id', '=', account.id)
    .where('email_verified_at', 'is', null)
    .executeTakeFirst()
  if (verified.numUpdatedRows !== 1n) return
  const removed =
    password === 'removed' &&
    (await tx.deleteFrom('password_credentials').where('account_id', '=', account.id).executeTakeFirst())
  const actor = { type: 'account' as const, id: account.id }
  const organizationId = account.organization.id
  await appendAudit(tx, {
    name: 'account.email_verified',
    outcome: 'success',
    actor,
    accountId: account.id,
    organizationId,
    origin,
    details: { passwordRemoved: removed !== false && removed.numDeletedRows === 1n },
  })
  await endAccess(tx, {
    accountId: account.id,
    organizationId,
    cause: 'address_proven',
    exceptInteractionHash: interactionHash,
    actor,
    origin,
  })
}
