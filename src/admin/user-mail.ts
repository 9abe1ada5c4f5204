// What administrators have mailed to people: the first mail of a new account, and a link to a new password. Whoever has the
// mail chooses the password; the administrator never knows it (ASVS 6.4.1, 6.4.6).
import { normalizeEmail } from '../accounts/accounts.ts'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { linkSeconds, linkUrl, type MailLinks } from '../credentials/mail-links.ts'
import { type Throttle, throttleLimits } from '../credentials/throttle.ts'
import type { Tx } from '../db/database.ts'
import type { Outbox } from '../mail/outbox.ts'
import type { Organization } from '../organizations/organizations.ts'
import type { Call } from './call.ts'
import type { User } from './user-store.ts'

export interface UserMailing {
  readonly issuer: string
  readonly links: MailLinks
  readonly outbox: Pick<Outbox, 'enqueue'>
}

type Addressee = Pick<User, 'id' | 'email' | 'name' | 'secondFactors'>

/**
 * Counts a mail before the transaction that writes it, on the same budget as those that its owner asks for: an
 * administrator fills nobody's mailbox either (F56).
 * @param within the organisation whose own budget it is on
 * @throws ApiProblem when too many of this kind went to the address
 */
export async function countMail(
  throttle: Pick<Throttle, 'take'>,
  purpose: 'invite' | 'reset',
  { email, id: accountId, within }: { readonly email: string; readonly id?: string; readonly within?: string },
): Promise<void> {
  const address = normalizeEmail(email)
  const identifier = within === undefined ? address : `${within} ${address}`
  const to = { identifier, accountId, ip: undefined, deviceHash: undefined }
  const taken = await throttle.take({ purpose, ...to, isByAdministrator: true })
  if (taken.ok) return
  const errors = taken.reason === 'account' ? [{ path: '', message: mailboxIsFull }] : []
  throw new ApiProblem('throttled', errors, { retryAfterSeconds: taken.retryAfterSeconds })
}

const { tries, windowSeconds } = throttleLimits.mailsPerAccount
const mailboxIsFull = `this address gets at most ${tries} mails of this kind in ${windowSeconds / 60} minutes; look there for the last one, or send another later`

export async function mailResetLink(tx: Tx, parts: UserMailing, user: Addressee, about: Call['about']): Promise<void> {
  const data = { ...(await issueResetLink(tx, parts, user, about)), hasSecondFactor: user.secondFactors > 0 }
  await parts.outbox.enqueue(tx, { template: 'reset-link', to: user.email, data }, user.id)
}

/** The first mail to somebody whose account was made for them: it leads to a way of signing in that the policy has. */
export async function mailWelcome(
  tx: Tx,
  parts: UserMailing,
  user: Addressee,
  { organization, about }: { readonly organization: Organization; readonly about: Call['about'] },
): Promise<void> {
  const { issuer, outbox } = parts
  const names = { name: user.name, organizationName: organization.name }
  if (organization.policy.loginMethods.includes('password')) {
    const data = { ...(await issueResetLink(tx, parts, user, about)), ...names }
    return outbox.enqueue(tx, { template: 'welcome', to: user.email, data }, user.id)
  }
  const data = { link: `${issuer}/account`, ...names }
  await outbox.enqueue(tx, { template: 'welcome-without-password', to: user.email, data }, user.id)
}

/** A link to a new password, with its audit row. */
async function issueResetLink(tx: Tx, { issuer, links }: UserMailing, user: Addressee, about: Call['about']) {
  const token = await links.issue(tx, {
    kind: 'reset',
    accountId: user.id,
    organizationId: about.organizationId,
    payload: { sentTo: user.email },
  })
  await appendAudit(tx, {
    ...about,
    accountId: user.id,
    name: 'link.sent',
    outcome: 'success',
    details: { kind: 'reset' },
  })
  return { link: linkUrl(issuer, '/recover', token), minutes: linkSeconds.reset / 60 }
}
