// `mlpipes-auth invite` and `mlpipes-auth reset-factor`: what an operator does for people until an administrator can.
import { isEmailShaped, normalizeEmail } from '../accounts/accounts.ts'
import { factorResetHours, openFactorReset } from '../credentials/factor-reset.ts'
import { restore } from '../credentials/failures.ts'
import { createMailLinks } from '../credentials/mail-links.ts'
import { createNotices } from '../credentials/notices.ts'
import { removeAllFactors } from '../credentials/totp.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { mailInvitation } from '../invitations/invitations.ts'
import { createOutbox } from '../mail/outbox.ts'
import { endAccess } from '../sessions/ending.ts'

interface Parts {
  readonly database: Database
  readonly secrets: Secrets
  readonly issuer: string
}

const roleName = /^[a-z][a-z0-9_]{0,62}$/

/** Says in words why something could not be done. */
export class NotPossible extends Error {}

/** Mails an invitation; a running server sends it. */
export async function invitePerson(
  { database, secrets, issuer }: Parts,
  invited: { readonly email: string; readonly organizationSlug: string; readonly roles: readonly string[] },
): Promise<void> {
  const { email, organizationSlug, roles } = invited
  if (!isEmailShaped(email)) throw new NotPossible(`${email} is not an e-mail address`)
  const wrong = roles.find((role) => !roleName.test(role))
  if (wrong !== undefined) throw new NotPossible(`${wrong} is not a role name: a-z 0-9 _, starting with a letter`)
  const organization = await database.kysely
    .selectFrom('organizations')
    .select(['id', 'name'])
    .where('slug', '=', organizationSlug)
    .where('closed_at', 'is', null)
    .executeTakeFirst()
  if (!organization) throw new NotPossible(`there is no open organisation ${organizationSlug}`)
  const mailing = { issuer, links: createMailLinks(database, secrets), outbox: createOutbox({ database, secrets }) }
  const inviter = { by: { type: 'operator' as const }, name: 'The operator', origin: {} }
  await transact(database.kysely, (tx) => mailInvitation(tx, mailing, { email, organization, roles }, inviter))
}

/**
 * For a lost phone and no backup code: takes every second factor away, ends all sessions, and gives the person a day to
 * set up a new one at the next sign-in. Their owner is told by mail.
 * @returns until when
 */
export async function resetFactor({ database, secrets, issuer }: Parts, email: string, now: Date): Promise<Date> {
  const db = database.kysely
  const account = await db
    .selectFrom('accounts')
    .select(['id', 'email', 'name', 'organization_id'])
    .where('email_normalized', '=', normalizeEmail(email))
    .executeTakeFirst()
  if (!account) throw new NotPossible(`there is no account ${email}`)
  const until = new Date(now.getTime() + factorResetHours * 3_600_000)
  const links = createMailLinks(database, secrets)
  const notices = createNotices({ outbox: createOutbox({ database, secrets }), links, issuer, now: () => now })
  const about = {
    accountId: account.id,
    organizationId: account.organization_id,
    actor: { type: 'operator' as const },
    origin: {},
  }
  await transact(db, async (tx) => {
    await removeAllFactors(tx, about, 'administrator')
    await restore(tx, account.id, 'totp', about)
    await restore(tx, account.id, 'backup_code', about)
    await openFactorReset(tx, account.id, until)
    await endAccess(tx, { ...about, cause: 'factor_changed' })
    const owner = { ...account, organization: { id: account.organization_id } }
    await notices.send(tx, owner, 'factor_removed', {})
  })
  return until
}
