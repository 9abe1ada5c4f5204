// Signing in with a password. The try is counted before anything is compared, the hash is compared for nobody too, and
// what a refused person reads is the same whatever the reason.
import { type Accounts, normalizeEmail, type SignInAccount } from '../../accounts/accounts.ts'
import { appendAudit } from '../../audit/audit.ts'
import type { Origin } from '../../audit/events.ts'
import type { Notices } from '../../credentials/notices.ts'
import { isPasswordShaped, normalizePassword, type Passwords } from '../../credentials/password.ts'
import { rehashDigest } from '../../credentials/password-store.ts'
import { clearFailures, recordFailure, type Throttle } from '../../credentials/throttle.ts'
import type { Secrets } from '../../crypto/secrets.ts'
import { runIn, type Tx } from '../../db/database.ts'
import { noSoonerThan } from '../even.ts'
import type { Login, LoginInteraction, Outcome, Standing, Visitor } from '../login.ts'

export interface PasswordMethod {
  submit(
    interaction: LoginInteraction,
    input: { readonly email: string; readonly password: string },
    visitor: Visitor,
  ): Promise<Outcome>
}

interface Parts {
  readonly accounts: Accounts
  readonly passwords: Passwords
  readonly throttle: Throttle
  readonly secrets: Secrets
  readonly notices: Notices
  readonly login: Login
  readonly evenAnswerMs: number
}

export function createPasswordMethod(parts: Parts): PasswordMethod {
  const { accounts, passwords, throttle, secrets, notices, login } = parts

  /** Counts a wrong password against the account too, and tells its owner when that disables the password. */
  const countFailure = (account: SignInAccount | undefined, origin: Origin) => async (tx: Tx) => {
    const { disabledNow } = await recordFailure(tx, account?.id, 'password', {
      organizationId: account?.organization.id,
      origin,
    })
    if (account && disabledNow) await notices.send(tx, account, 'sign_in_disabled', origin)
  }

  async function compare(
    interaction: LoginInteraction,
    input: { readonly email: string; readonly password: string },
    visitor: Visitor,
  ): Promise<Outcome> {
    const { origin } = visitor
    const email = normalizeEmail(input.email)
    const account = await accounts.findForSignIn(email, interaction.place)
    const taken = await throttle.take({
      purpose: 'password',
      identifier: email,
      ip: origin.ip,
      deviceHash: visitor.deviceHash,
      accountId: account?.id,
    })
    const identifierMac = secrets.mac('attempts', `identifier:${email}`)
    if (!taken.ok) {
      await login.fail(interaction, { reason: 'throttled', attempts: taken.attempts, identifierMac }, origin)
      return { step: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
    }
    const check = await passwords.check(
      isPasswordShaped(normalizePassword(input.password)) ? input.password : '',
      account && mayUsePassword(account) ? account.passwordHash : undefined,
    )
    if (!check.ok || !account) {
      const failure = { reason: reasonOf(account), attempts: taken.attempts, account, identifierMac }
      await login.fail(interaction, failure, origin, countFailure(account, origin))
      return { step: 'refused', reason: 'mismatch' }
    }
    const standing: Standing = await login.standing(interaction)
    const outcome = await login.prove(
      interaction,
      standing,
      {
        account,
        factor: 'pwd',
        failuresBefore: taken.attempts - 1,
        async within(tx) {
          if (check.rehash !== undefined) await storeRehash(tx, account, check.rehash, origin)
          if (!(await holdPassword(tx, account))) return false
          if (account.failingKinds.includes('password')) await clearFailures(tx, account.id, 'password')
          return true
        },
      },
      visitor,
    )
    if (outcome.step !== 'refused') await throttle.settle(taken)
    return outcome
  }

  return {
    submit: (interaction, input, visitor) =>
      noSoonerThan(
        parts.evenAnswerMs,
        () => compare(interaction, input, visitor),
        ({ step }) => step === 'refused',
      ),
  }
}

function mayUsePassword(account: SignInAccount): boolean {
  return (
    account.active && account.policy.loginMethods.includes('password') && !account.disabledKinds.includes('password')
  )
}

/** For the audit log; the person never learns it. */
function reasonOf(account: SignInAccount | undefined): string {
  if (!account) return 'unknown_account'
  if (!account.active) return 'disabled'
  if (account.passwordHash === undefined) return 'no_password'
  if (account.disabledKinds.includes('password')) return 'authenticator_disabled'
  return account.policy.loginMethods.includes('password') ? 'mismatch' : 'method_not_allowed'
}

/**
 * Keeps the password from being changed until the sign-in commits: a reset either came before and is seen here, or waits
 * and then ends what this led to. False when it was changed since it was compared.
 */
async function holdPassword(tx: Tx, account: SignInAccount): Promise<boolean> {
  const held = await runIn(tx, hold, [account.id, account.passwordChangedAt ?? null, account.passwordMustChange])
  return held.length === 1
}

// By its time and not by its hash, which a sign-in beside this one may have made anew. JavaScript knows milliseconds.
const hold = `select account_id from mlpipes_auth.password_credentials
    where account_id = $1 and date_trunc('milliseconds', changed_at) = $2::timestamptz and must_change = $3 for share`

/** Replaces a hash made at a lower cost, unless the password was changed meanwhile (F41). */
async function storeRehash(tx: Tx, account: SignInAccount, hash: string, origin: Origin): Promise<void> {
  const updated = await tx
    .updateTable('password_credentials')
    .set({ hash, rehash_digest: rehashDigest(account.passwordHash ?? '', hash) })
    .where('account_id', '=', account.id)
    .where('hash', '=', account.passwordHash ?? '')
    .executeTakeFirst()
  if (updated.numUpdatedRows !== 1n) return
  await appendAudit(tx, {
    name: 'password.rehashed',
    outcome: 'success',
    actor: { type: 'system' },
    accountId: account.id,
    organizationId: account.organization.id,
    origin,
    details: {},
  })
}
