// Changing the address of an account: asked for by whoever signed in freshly, told to the old address at once, done when
// the new address's mail is opened by the same account. The old address counts until then.
import { isEmailShaped, normalizeEmail, type SignInAccount } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import { linkSeconds, linkUrl, type MailLinks } from '../credentials/mail-links.ts'
import type { Notices } from '../credentials/notices.ts'
import type { Throttle } from '../credentials/throttle.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import type { Outbox } from '../mail/outbox.ts'
import { paths } from './places.ts'

export type EmailRequest =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: 'address_unreadable' | 'same_address' }
  | { readonly ok: false; readonly reason: 'throttled'; readonly retryAfterSeconds: number }

export interface EmailChange {
  /** Mails a link to the new address, unless it is somebody else's: nothing here says which (F32). */
  request(account: SignInAccount, email: string, origin: Origin): Promise<EmailRequest>
  /** The address that a live link of this account would set. Spends nothing. */
  look(account: SignInAccount, token: string): Promise<string | undefined>
  /** Sets the address. False when the link is spent, past its time, of another account, or its address is taken. */
  confirm(account: SignInAccount, token: string, origin: Origin): Promise<boolean>
}

interface Parts {
  readonly database: Database
  readonly issuer: string
  readonly links: MailLinks
  readonly outbox: Pick<Outbox, 'enqueue'>
  readonly notices: Notices
  readonly throttle: Throttle
}

const secondsPerHour = 3_600
// Nobody else's address, and still the one from which the change was asked for.
const change = `update mlpipes_auth.accounts set email = $2, email_normalized = $3, email_verified_at = now(), updated_at = now()
    where id = $1 and email_normalized = $4 and disabled_at is null
      and not exists (select from mlpipes_auth.accounts other where other.email_normalized = $3 and other.id <> $1)
    returning id`
// What was mailed to the old address must not open the account any more.
const endOldLinks = `update mlpipes_auth.mail_links set used_at = now()
    where account_id = $1 and used_at is null and kind in ('sign_in', 'reset', 'email_change')`
const isTaken = 'select id from mlpipes_auth.accounts where email_normalized = $1'

export function createEmailChange(parts: Parts): EmailChange {
  const { database, issuer, links, outbox, notices, throttle } = parts
  const db = database.kysely

  async function set(tx: Tx, account: SignInAccount, token: string, origin: Origin): Promise<boolean> {
    const link = await links.spend(tx, 'email_change', token)
    if (link?.accountId !== account.id) return false
    const email = String(link.payload['email'])
    const changed = await runIn(tx, change, [account.id, email, normalizeEmail(email), String(link.payload['from'])])
    if (changed.length === 0) return false
    await runIn(tx, endOldLinks, [account.id])
    await appendAudit(tx, {
      name: 'account.email_changed',
      outcome: 'success',
      actor: { type: 'account', id: account.id },
      accountId: account.id,
      organizationId: account.organization.id,
      origin,
      details: {},
    })
    const restore = { from: account.email, to: email }
    await notices.send(tx, account, 'email_changed', origin, { to: account.email, restore })
    await notices.send(tx, account, 'email_changed', origin, { to: email })
    return true
  }

  async function look(account: SignInAccount, token: string): Promise<string | undefined> {
    const link = await links.look('email_change', token)
    if (link?.accountId !== account.id || link.payload['from'] !== normalizeEmail(account.email)) return undefined
    return String(link.payload['email'])
  }

  return {
    async request(account, input, origin) {
      const email = input.normalize('NFKC').trim()
      const normalized = normalizeEmail(email)
      if (!isEmailShaped(email)) return { ok: false, reason: 'address_unreadable' }
      if (normalized === normalizeEmail(account.email)) return { ok: false, reason: 'same_address' }
      // A budget of its own: asking for sign-in links must not keep somebody from this, nor this from those.
      const identifier = `email_change:${account.id}`
      const taken = await throttle.take({ purpose: 'link', identifier, ip: origin.ip, deviceHash: undefined })
      if (!taken.ok) return { ok: false, reason: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
      await transact(db, async (tx) => {
        const about = { accountId: account.id, organizationId: account.organization.id }
        const payload = { email, from: normalizeEmail(account.email) }
        const token = await links.issue(tx, { kind: 'email_change', ...about, payload })
        const isFree = (await runIn(tx, isTaken, [normalized])).length === 0
        const link = linkUrl(issuer, paths.emailConfirm, token)
        const data = { link, hours: linkSeconds.email_change / secondsPerHour, name: account.name }
        await (isFree
          ? outbox.enqueue(tx, { template: 'email-change-confirm', to: email, data }, account.id)
          : outbox.enqueue(tx, { template: 'none' }))
        await appendAudit(tx, {
          name: 'link.sent',
          outcome: isFree ? 'success' : 'failure',
          actor: { type: 'account', id: account.id },
          ...about,
          origin,
          details: { kind: 'email_change' },
        })
        await notices.send(tx, account, 'email_change_requested', origin)
      })
      return { ok: true }
    },

    look,

    async confirm(account, token, origin) {
      // Before it is spent: somebody else who is signed in must not use up a link that is not theirs.
      if ((await look(account, token)) === undefined) return false
      try {
        return await transact(db, (tx) => set(tx, account, token, origin))
      } catch (error) {
        if (isUniqueViolation(error)) return false
        throw error
      }
    },
  }
}

/** SQLSTATE 23505: somebody else took the address at the same moment. */
function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '23505'
}
