// Choosing another password while signed in. The fresh sign-in is asked for by the door; the current password is asked
// for here, because a browser left open minutes ago is fresh too.
import type { SignInAccount } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import type { Notices } from '../credentials/notices.ts'
import type { Passwords } from '../credentials/password.ts'
import { effectivePasswordRules, type PasswordProblem } from '../credentials/password-rules.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import { recordFailure, type Throttle } from '../credentials/throttle.ts'
import type { Database } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { endAccess } from '../sessions/ending.ts'

export type OwnPasswordOutcome =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: 'mismatch' | 'disabled' }
  | { readonly ok: false; readonly reason: 'throttled'; readonly retryAfterSeconds: number }
  | { readonly ok: false; readonly reason: 'password'; readonly problems: readonly PasswordProblem[] }

export interface OwnPasswordInput {
  /** Not asked of an account that has no password yet. */
  readonly current: string
  readonly wanted: string
  /** The session that goes on. */
  readonly sessionUid: string
  readonly origin: Origin
  readonly deviceHash: string | undefined
}

export interface OwnPassword {
  change(account: SignInAccount, input: OwnPasswordInput): Promise<OwnPasswordOutcome>
}

interface Parts {
  readonly database: Database
  readonly passwords: Passwords
  readonly passwordChange: PasswordChange
  readonly throttle: Throttle
  readonly notices: Notices
}

export function createOwnPassword(parts: Parts): OwnPassword {
  const { database, passwords, passwordChange, throttle, notices } = parts
  const db = database.kysely

  /** The current password, as a guess like any other: counted, compared, and recorded when it is wrong. */
  async function prove(
    account: SignInAccount,
    { current, origin, deviceHash }: OwnPasswordInput,
  ): Promise<OwnPasswordOutcome> {
    const about = { identifier: account.id, accountId: account.id, ip: origin.ip, deviceHash }
    const taken = await throttle.take({ purpose: 'password', ...about })
    if (!taken.ok) return { ok: false, reason: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
    if (account.disabledKinds.includes('password')) return { ok: false, reason: 'disabled' }
    if ((await passwords.check(current, account.passwordHash)).ok) {
      await throttle.settle(taken)
      return { ok: true }
    }
    const organizationId = account.organization.id
    await transact(db, async (tx) => {
      await appendAudit(tx, {
        name: 'login.failed',
        outcome: 'failure',
        actor: { type: 'account', id: account.id },
        accountId: account.id,
        organizationId,
        origin,
        details: { reason: 'current_password', attempts: taken.attempts },
      })
      const { disabledNow } = await recordFailure(tx, account.id, 'password', { organizationId, origin })
      if (disabledNow) await notices.send(tx, account, 'sign_in_disabled', origin)
    })
    return { ok: false, reason: 'mismatch' }
  }

  return {
    async change(account, input) {
      const { origin } = input
      if (account.passwordHash !== undefined) {
        const proven = await prove(account, input)
        if (!proven.ok) return proven
      }
      const about = {
        accountId: account.id,
        organizationId: account.organization.id,
        actor: { type: 'account' as const, id: account.id },
        origin,
      }
      const changed = await passwordChange.change({
        ...about,
        newPassword: input.wanted,
        rules: effectivePasswordRules(account.policy),
        context: { email: account.email, name: account.name, organizationName: account.organization.name },
        provedHash: account.passwordHash,
        by: 'self',
        async inTransaction(tx) {
          await endAccess(tx, { ...about, cause: 'password_changed', exceptSessionUid: input.sessionUid })
          await notices.send(tx, account, 'password_changed', origin)
        },
      })
      return changed.ok ? changed : { ok: false, reason: 'password', problems: changed.problems }
    },
  }
}
