// A link to a new password that an administrator has mailed to its owner. Whoever has the mail chooses it; the
// administrator never knows it (ASVS 6.4.1, 6.4.6).
import { appendAudit } from '../audit/audit.ts'
import { linkSeconds, linkUrl, type MailLinks } from '../credentials/mail-links.ts'
import type { Tx } from '../db/database.ts'
import type { Outbox } from '../mail/outbox.ts'
import type { Call } from './call.ts'
import type { User } from './user-store.ts'

export async function mailResetLink(
  tx: Tx,
  parts: { readonly issuer: string; readonly links: MailLinks; readonly outbox: Pick<Outbox, 'enqueue'> },
  user: Pick<User, 'id' | 'email' | 'secondFactors'>,
  about: Call['about'],
): Promise<void> {
  const { issuer, links, outbox } = parts
  const token = await links.issue(tx, {
    kind: 'reset',
    accountId: user.id,
    organizationId: about.organizationId,
    payload: { sentTo: user.email },
  })
  const data = {
    link: linkUrl(issuer, '/recover', token),
    minutes: linkSeconds.reset / 60,
    hasSecondFactor: user.secondFactors > 0,
  }
  await outbox.enqueue(tx, { template: 'reset-link', to: user.email, data }, user.id)
  await appendAudit(tx, {
    ...about,
    accountId: user.id,
    name: 'link.sent',
    outcome: 'success',
    details: { kind: 'reset' },
  })
}
