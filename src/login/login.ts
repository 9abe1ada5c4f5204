// Use cases of a sign-in: what happens when a person submits a password, a code, a consent. Pages are in routes.ts.
import { type Accounts, normalizeEmail, type SignInAccount } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import { isPasswordShaped, type Passwords } from '../credentials/password.ts'
import { type Budget, settleAttempts, takeAttempt } from '../credentials/throttle.ts'
import { findTotpMatch, spendTotpStep } from '../credentials/totp.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import type { Database, Tx } from '../db/database.ts'
import { joinTransaction, transact } from '../db/transaction.ts'
import { authenticationContext, type Factor, type Flow, nextStep, type Step } from './flow.ts'
import { advanceFlow, findFlow } from './store.ts'

/** What the provider needs to hear when a sign-in is over. */
export interface LoginResult {
  readonly accountId: string
  readonly amr: string[]
  readonly acr: string
  /** Epoch seconds of the sign-in. */
  readonly ts: number
}

/** The interaction that a sign-in belongs to, and how to finish it. */
export interface LoginInteraction {
  readonly uid: string
  readonly clientId: string
  /** Stores the result where the provider resumes; runs inside the transaction of the sign-in. */
  finish(result: LoginResult): Promise<void>
}

export type LoginOutcome =
  | { readonly step: 'done' | 'second_factor' }
  | { readonly step: 'refused'; readonly reason: 'mismatch' | 'second_factor_missing' | 'code_mismatch' | 'stale' }
  | { readonly step: 'throttled'; readonly retryAfterSeconds: number }

export interface Login {
  stepOf(uid: string): Promise<{ step: Step; email: string | undefined }>
  submitPassword(
    interaction: LoginInteraction,
    input: { email: string; password: string },
    origin: Origin,
  ): Promise<LoginOutcome>
  submitCode(interaction: LoginInteraction, input: { code: string }, origin: Origin): Promise<LoginOutcome>
}

export interface LoginParts {
  readonly database: Database
  readonly accounts: Accounts
  readonly passwords: Passwords
  readonly secrets: Secrets
  now(): Date
}

/** Tries within a quarter of an hour. */
export const attemptLimits = { perAccount: 10, perAddress: 300, codesPerAccount: 10 } as const

export function createLogin({ database, accounts, passwords, secrets, now }: LoginParts): Login {
  const db = database.kysely
  const budget = (kind: string, value: string, maxFailures: number): Budget => ({
    key: secrets.mac('attempts', `${kind}:${value}`),
    maxFailures,
  })

  async function fail(
    failure: {
      reason: string
      attempts: number
      accountId?: string | undefined
      organizationId?: string | undefined
      identifierMac?: string | undefined
    },
    interaction: LoginInteraction,
    origin: Origin,
  ) {
    await transact(db, (tx) =>
      appendAudit(tx, {
        name: 'login.failed',
        outcome: 'failure',
        actor: { type: 'anonymous' },
        accountId: failure.accountId,
        organizationId: failure.organizationId,
        clientId: interaction.clientId,
        origin,
        details: {
          reason: failure.reason,
          attempts: failure.attempts,
          ...(failure.identifierMac === undefined ? {} : { identifierMac: failure.identifierMac }),
        },
      }),
    )
  }

  /** Writes what was proven; when that completes the sign-in, finishes it in the same transaction. */
  async function advance(
    tx: Tx,
    interaction: LoginInteraction,
    account: SignInAccount,
    version: number,
    proved: readonly Factor[],
    failuresBefore: number,
    origin: Origin,
  ): Promise<Step | 'stale'> {
    const flow: Flow = { accountId: account.id, proved }
    if (!(await advanceFlow(tx, sha256(interaction.uid), version, flow))) return 'stale'
    const step = nextStep(flow, { mfa: account.policy.mfa, hasSecondFactor: account.totpIds.length > 0 })
    if (step !== 'done') return step
    const { amr, acr } = authenticationContext(proved)
    await appendAudit(tx, {
      name: 'login.succeeded',
      outcome: 'success',
      actor: { type: 'account', id: account.id },
      accountId: account.id,
      organizationId: account.organization.id,
      clientId: interaction.clientId,
      origin,
      details: { amr, acr, failuresBefore },
    })
    await joinTransaction(tx, () =>
      interaction.finish({ accountId: account.id, amr, acr, ts: Math.floor(now().getTime() / 1000) }),
    )
    return step
  }

  return {
    async stepOf(uid) {
      const flow = await findFlow(db, sha256(uid))
      const account = flow?.accountId === undefined ? undefined : await accounts.findForSignInById(flow.accountId)
      if (!flow || !account?.active) return { step: 'identify', email: undefined }
      return {
        step: nextStep(flow, { mfa: account.policy.mfa, hasSecondFactor: account.totpIds.length > 0 }),
        email: account.email,
      }
    },

    async submitPassword(interaction, input, origin) {
      const email = normalizeEmail(input.email)
      const identifierMac = secrets.mac('attempts', `identifier:${email}`)
      const accountBudget = budget('email', email, attemptLimits.perAccount)
      const addressBudget = budget('address', origin.ip ?? 'unknown', attemptLimits.perAddress)
      // Counted before anything is compared, so that parallel tries cannot share one count (F36).
      const attempt = await takeAttempt(database, [accountBudget, addressBudget])
      if (!attempt.ok) {
        await fail({ reason: 'throttled', attempts: attemptLimits.perAccount, identifierMac }, interaction, origin)
        return { step: 'throttled', retryAfterSeconds: attempt.retryAfterSeconds }
      }
      const account = await accounts.findForSignIn(email)
      const usable =
        account?.active && account.policy.loginMethods.includes('password') ? account.passwordHash : undefined
      const check = await passwords.check(isPasswordShaped(input.password) ? input.password : '', usable)
      if (!check.ok || !account) {
        const reason = !account
          ? 'unknown_account'
          : !account.active
            ? 'disabled'
            : !account.passwordHash
              ? 'no_password'
              : 'mismatch'
        await fail(
          {
            reason,
            attempts: attempt.count,
            accountId: account?.id,
            organizationId: account?.organization.id,
            identifierMac,
          },
          interaction,
          origin,
        )
        return { step: 'refused', reason: 'mismatch' }
      }
      const before = await findFlow(db, sha256(interaction.uid))
      const step = await transact(db, async (tx) => {
        if (check.rehash !== undefined) await storeRehash(tx, account, check.rehash, origin)
        return advance(tx, interaction, account, before?.version ?? 0, ['pwd'], attempt.count - 1, origin)
      })
      if (step === 'stale') return { step: 'refused', reason: 'stale' }
      await settleAttempts(database, [accountBudget.key], [addressBudget.key])
      if (step === 'second_factor_missing') {
        await fail(
          {
            reason: 'second_factor_missing',
            attempts: 0,
            accountId: account.id,
            organizationId: account.organization.id,
          },
          interaction,
          origin,
        )
        return { step: 'refused', reason: 'second_factor_missing' }
      }
      return { step: step === 'done' ? 'done' : 'second_factor' }
    },

    async submitCode(interaction, input, origin) {
      const flow = await findFlow(db, sha256(interaction.uid))
      const account = flow?.accountId === undefined ? undefined : await accounts.findForSignInById(flow.accountId)
      if (!flow || !account?.active || !flow.proved.includes('pwd') || flow.proved.includes('otp'))
        return { step: 'refused', reason: 'stale' }
      const key = budget('code', account.id, attemptLimits.codesPerAccount)
      const attempt = await takeAttempt(database, [key])
      if (!attempt.ok) {
        await fail(
          {
            reason: 'throttled',
            attempts: attemptLimits.codesPerAccount,
            accountId: account.id,
            organizationId: account.organization.id,
          },
          interaction,
          origin,
        )
        return { step: 'throttled', retryAfterSeconds: attempt.retryAfterSeconds }
      }
      const step = await transact(db, async (tx) => {
        const match = await findTotpMatch(tx, secrets, account.id, input.code.replace(/\s/g, ''), now())
        if (!match || !(await spendTotpStep(tx, match))) return undefined
        return advance(tx, interaction, account, flow.version, [...flow.proved, 'otp'], attempt.count - 1, origin)
      })
      if (step === undefined) {
        await fail(
          {
            reason: 'code_mismatch',
            attempts: attempt.count,
            accountId: account.id,
            organizationId: account.organization.id,
          },
          interaction,
          origin,
        )
        return { step: 'refused', reason: 'code_mismatch' }
      }
      if (step !== 'done') return { step: 'refused', reason: 'stale' }
      await settleAttempts(database, [key.key], [])
      return { step: 'done' }
    },
  }
}

/** Replaces a hash made at a lower cost, unless the password was changed meanwhile (F41). */
async function storeRehash(tx: Tx, account: SignInAccount, hash: string, origin: Origin): Promise<void> {
  const updated = await tx
    .updateTable('password_credentials')
    .set({ hash })
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
