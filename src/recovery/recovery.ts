// Getting back into an account by a link to a new password. A mailbox alone never resets an account that has a second
// factor (ASVS 6.4.3, SP 800-63B-4 §4.2.2.2).
import { type Accounts, isEmailShaped, normalizeEmail, type SignInAccount } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import { spendBackupCode } from '../credentials/backup-codes.ts'
import { forgetDevices } from '../credentials/devices.ts'
import { factorResetState } from '../credentials/factor-reset.ts'
import { linkSeconds, linkUrl, type MailLinks } from '../credentials/mail-links.ts'
import type { Notices } from '../credentials/notices.ts'
import { effectivePasswordRules, type PasswordProblem } from '../credentials/password-rules.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import { recordFailure, type Taken, type Throttle } from '../credentials/throttle.ts'
import { findTotpMatch, spendTotpStep } from '../credentials/totp.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database, Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { proveAddress } from '../login/address-proof.ts'
import { noSoonerThan } from '../login/even.ts'
import type { Visitor } from '../login/login.ts'
import type { Outbox } from '../mail/outbox.ts'
import { endAccess } from '../sessions/ending.ts'

export type ResetRequest =
  | { readonly step: 'sent' }
  | { readonly step: 'throttled'; readonly retryAfterSeconds: number }
  | { readonly step: 'refused'; readonly reason: 'address_unreadable' }

export type ResetOutcome =
  | { readonly step: 'done' }
  | { readonly step: 'throttled'; readonly retryAfterSeconds: number }
  | { readonly step: 'refused'; readonly reason: 'link_dead' | 'code_mismatch' }
  | { readonly step: 'refused'; readonly reason: 'password'; readonly problems: readonly PasswordProblem[] }

/** Who asks: an app, and the sign-in in which somebody forgot their password. */
export interface Asker {
  readonly clientId: string | undefined
  readonly interactionHash?: string | undefined
}

export interface Recovery {
  /** Mails a reset link to the address if it has an account. Same answer and same work for any address (F32). */
  request(email: string, asker: Asker, visitor: Visitor): Promise<ResetRequest>
  /** The account a live reset link is for. Spends nothing. */
  look(token: string): Promise<SignInAccount | undefined>
  reset(
    token: string,
    input: { readonly password: string; readonly code: string },
    visitor: Visitor,
  ): Promise<ResetOutcome>
}

interface Parts {
  readonly database: Database
  readonly issuer: string
  readonly accounts: Accounts
  readonly passwordChange: PasswordChange
  readonly throttle: Throttle
  readonly secrets: Secrets
  readonly links: MailLinks
  readonly outbox: Pick<Outbox, 'enqueue'>
  readonly notices: Notices
  readonly evenAnswerMs: number
  now(): Date
}

/** Undoes a reset whose link or code was spent by somebody faster. */
class Undone extends Error {
  readonly reason: 'link_dead' | 'code_mismatch'
  constructor(reason: 'link_dead' | 'code_mismatch') {
    super(reason)
    this.reason = reason
  }
}

export function createRecovery(parts: Parts): Recovery {
  const { database, issuer, accounts, passwordChange, throttle, secrets, links, outbox, notices, now } = parts
  const db = database.kysely

  /**
   * While a lost factor waits to be replaced, the password is all that is left: a mailbox alone must not be enough to
   * choose both anew (SP 800-63B-4 §4.2.2.2).
   */
  const mayReset = (account: SignInAccount) =>
    account.active &&
    account.policy.loginMethods.includes('password') &&
    factorResetState(account.factorResetUntil, now()) !== 'open'

  async function look(token: string): Promise<SignInAccount | undefined> {
    const link = await links.look('reset', token)
    const account = link?.accountId === undefined ? undefined : await accounts.findForSignInById(link.accountId)
    return account && mayReset(account) ? account : undefined
  }

  /** A code of the authenticator or a backup code, spent: true for a good one. What is disabled does not count here either. */
  async function spendCode(tx: Tx, account: SignInAccount, code: string, origin: Origin): Promise<boolean> {
    const typed = code.replace(/\s/g, '')
    if (isTotpShaped(typed)) {
      if (account.disabledKinds.includes('totp')) return false
      const match = await findTotpMatch(tx, secrets, account.id, typed, now())
      return match !== undefined && spendTotpStep(tx, match)
    }
    if (account.disabledKinds.includes('backup_code')) return false
    const about = { accountId: account.id, organizationId: account.organization.id, origin }
    const spent = await spendBackupCode(tx, secrets, {
      ...about,
      actor: { type: 'account', id: account.id },
      input: code,
    })
    if (spent) await notices.send(tx, account, 'backup_code_used', origin, { left: spent.left })
    return spent !== undefined
  }

  async function spendAll(tx: Tx, token: string, account: SignInAccount, code: string, origin: Origin): Promise<void> {
    const actor = { type: 'account' as const, id: account.id }
    const organizationId = account.organization.id
    const link = await links.spend(tx, 'reset', token)
    if (link?.accountId !== account.id) throw new Undone('link_dead')
    if (account.totpIds.length > 0 && !(await spendCode(tx, account, code, origin))) throw new Undone('code_mismatch')
    await appendAudit(tx, {
      name: 'link.used',
      outcome: 'success',
      actor,
      accountId: account.id,
      organizationId,
      origin,
      details: { kind: 'reset', by: 'link' },
    })
    await proveAddress(tx, account, origin, { password: 'replaced' })
    await forgetDevices(tx, account.id)
    await endAccess(tx, { accountId: account.id, organizationId, cause: 'password_reset', actor, origin })
    await notices.send(tx, account, 'password_reset', origin)
  }

  async function countCode(account: SignInAccount, code: string, attempts: number, origin: Origin): Promise<void> {
    const kind = isTotpShaped(code.replace(/\s/g, '')) ? 'totp' : 'backup_code'
    await transact(db, async (tx) => {
      await appendAudit(tx, {
        name: 'link.refused',
        outcome: 'failure',
        actor: { type: 'anonymous' },
        accountId: account.id,
        organizationId: account.organization.id,
        origin,
        details: { kind: 'reset', reason: 'code_mismatch', attempts },
      })
      const about = { organizationId: account.organization.id, origin }
      const { disabledNow } = await recordFailure(tx, account.id, kind, about)
      if (disabledNow) await notices.send(tx, account, 'sign_in_disabled', origin)
    })
  }

  async function ask(
    input: string,
    { clientId, interactionHash }: Asker,
    { origin, deviceHash }: Visitor,
  ): Promise<ResetRequest> {
    const email = normalizeEmail(input)
    if (!isEmailShaped(email)) return { step: 'refused', reason: 'address_unreadable' }
    const found = await accounts.findForSignIn(email)
    const from = { identifier: email, ip: origin.ip, deviceHash, accountId: found?.id }
    const taken = await throttle.take({ purpose: 'reset', ...from })
    if (!taken.ok) return { step: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
    const account = found && mayReset(found) ? found : undefined
    await transact(db, async (tx) => {
      const about = { accountId: account?.id, organizationId: account?.organization.id }
      const token = await links.issue(tx, {
        kind: 'reset',
        ...about,
        interactionHash,
        payload: { sentTo: input.trim() },
      })
      const data = {
        link: linkUrl(issuer, '/recover', token),
        minutes: linkSeconds.reset / 60,
        hasSecondFactor: (account?.totpIds.length ?? 0) > 0,
      }
      await (account
        ? outbox.enqueue(tx, { template: 'reset-link', to: account.email, data }, account.id)
        : outbox.enqueue(tx, { template: 'none' }))
      await appendAudit(tx, {
        name: 'link.sent',
        outcome: account ? 'success' : 'failure',
        actor: { type: 'anonymous' },
        ...about,
        clientId,
        origin,
        details: { kind: 'reset', identifierMac: secrets.mac('attempts', `identifier:${email}`) },
      })
    })
    return { step: 'sent' }
  }

  return {
    request: (input, asker, visitor) => noSoonerThan(parts.evenAnswerMs, () => ask(input, asker, visitor)),

    look,

    async reset(token, { password, code }, { origin, deviceHash }) {
      const account = await look(token)
      if (!account) return { step: 'refused', reason: 'link_dead' }
      const taken = await throttle.take({
        purpose: 'code',
        identifier: account.id,
        ip: origin.ip,
        deviceHash,
        accountId: account.id,
      })
      if (!taken.ok) return { step: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
      try {
        const changed = await passwordChange.change({
          accountId: account.id,
          newPassword: password,
          rules: effectivePasswordRules(account.policy),
          context: { email: account.email, name: account.name, organizationName: account.organization.name },
          by: 'reset',
          actor: { type: 'account', id: account.id },
          organizationId: account.organization.id,
          origin,
          inTransaction: (tx) => spendAll(tx, token, account, code, origin),
        })
        await throttle.settle(changed.ok ? taken : givenBack(taken))
        return changed.ok ? { step: 'done' } : { step: 'refused', reason: 'password', problems: changed.problems }
      } catch (error) {
        if (!(error instanceof Undone)) throw error
        if (error.reason === 'code_mismatch') await countCode(account, code, taken.attempts, origin)
        return { step: 'refused', reason: error.reason }
      }
    },
  }
}

/** A password that the rules refuse says nothing about a code: its try is given back, and those before it stay (F62). */
function givenBack({ keys, ...taken }: Taken): Taken {
  return { ...taken, keys: { forgotten: [], returned: [...keys.forgotten, ...keys.returned] } }
}

/** Six digits are a code of an authenticator; anything else can only be a backup code. */
function isTotpShaped(code: string): boolean {
  return /^\d{6}$/.test(code)
}
