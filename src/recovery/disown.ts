// "This was not me": the answer to a security notice. It ends all that is open, stops the password, and brings back an
// address that was changed.
import { z } from 'zod'
import { normalizeEmail } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import { forgetDevices } from '../credentials/devices.ts'
import { disable } from '../credentials/failures.ts'
import type { MailLinks } from '../credentials/mail-links.ts'
import type { Database, Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { endAccess } from '../sessions/ending.ts'

export interface Disowning {
  /** What happened, if a live link says so. Spends nothing. */
  look(token: string): Promise<{ readonly notice: string } | undefined>
  /** Ends every session and disables the password until a reset by mail. False when the link is spent or past its time. */
  disown(token: string, origin: Origin): Promise<boolean>
}

export function createDisowning({
  database,
  links,
}: {
  readonly database: Database
  readonly links: MailLinks
}): Disowning {
  return {
    async look(token) {
      const link = await links.look('not_me', token)
      return link && { notice: String(link.payload['notice'] ?? '') }
    },

    disown: (token, origin) =>
      transact(database.kysely, async (tx) => {
        const link = await links.spend(tx, 'not_me', token)
        if (link?.accountId === undefined) return false
        const { accountId, organizationId } = link
        const actor = { type: 'account' as const, id: accountId }
        const { numUpdatedRows } = await tx
          .updateTable('password_credentials')
          .set({ must_change: true })
          .where('account_id', '=', accountId)
          .executeTakeFirst()
        // Whoever it was may know the password, and would be the first to be asked for a new one. It works again once the
        // owner sets another by mail.
        if (numUpdatedRows > 0n) await disable(tx, accountId, 'password', { organizationId, origin })
        await appendAudit(tx, {
          name: 'account.disowned',
          outcome: 'success',
          actor,
          accountId,
          organizationId,
          origin,
          details: { notice: String(link.payload['notice'] ?? '').slice(0, 64) },
        })
        const restored = restorable.safeParse(link.payload['restore'])
        if (restored.success && (await restoreAddress(tx, accountId, restored.data))) {
          const details = {}
          await appendAudit(tx, {
            name: 'account.email_changed',
            outcome: 'success',
            actor,
            accountId,
            organizationId,
            origin,
            details,
          })
        }
        await forgetDevices(tx, accountId)
        await endAccess(tx, { accountId, organizationId, cause: 'disowned', actor, origin })
        return true
      }),
  }
}

const restorable = z.strictObject({ from: z.string(), to: z.string() })

/**
 * Brings back the address that a change replaced, so that whoever made the change cannot reset the password by mail. Not
 * when the address was changed again since, or is somebody else's by now.
 */
async function restoreAddress(tx: Tx, accountId: string, change: z.output<typeof restorable>): Promise<boolean> {
  const before = normalizeEmail(change.from)
  const { numUpdatedRows } = await tx
    .updateTable('accounts')
    .set((eb) => ({ email: change.from, email_normalized: before, updated_at: eb.fn<Date>('now') }))
    .where('id', '=', accountId)
    .where('email_normalized', '=', normalizeEmail(change.to))
    .where(({ not, exists, selectFrom }) =>
      not(exists(selectFrom('accounts as other').select('other.id').where('other.email_normalized', '=', before))),
    )
    .executeTakeFirst()
  return numUpdatedRows === 1n
}
