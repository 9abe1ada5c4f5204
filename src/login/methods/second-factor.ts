// The second factor of a sign-in: a code of the authenticator, a backup code, and setting one up where it is due.
import type { SignInAccount } from '../../accounts/accounts.ts'
import type { Origin } from '../../audit/events.ts'
import { createBackupCodes, spendBackupCode } from '../../credentials/backup-codes.ts'
import type { Notices } from '../../credentials/notices.ts'
import { clearFailures, recordFailure, restore, type Throttle } from '../../credentials/throttle.ts'
import {
  confirmTotp,
  findTotpMatch,
  listTotp,
  readTotpSetup,
  spendTotpStep,
  type TotpSetup,
} from '../../credentials/totp.ts'
import type { Secrets } from '../../crypto/secrets.ts'
import type { Database, Tx } from '../../db/database.ts'
import type { Factor, Step } from '../flow.ts'
import type { Login, LoginInteraction, Outcome, RefusalReason, Standing, Visitor } from '../login.ts'

export type CodesOutcome = Outcome | { readonly step: 'codes'; readonly codes: readonly string[] }

export interface SecondFactorMethod {
  submitCode(interaction: LoginInteraction, code: string, visitor: Visitor): Promise<Outcome>
  submitBackupCode(interaction: LoginInteraction, code: string, visitor: Visitor): Promise<Outcome>
  /** What the set-up page shows; undefined when none is under way. */
  setup(standing: Standing): Promise<TotpSetup | undefined>
  /** Begins a set-up anew, when the one before has lapsed. */
  beginSetup(interaction: LoginInteraction, visitor: Visitor): Promise<Outcome>
  /** Turns the authenticator on with its first code; the backup codes are in the answer and nowhere else. */
  confirmSetup(interaction: LoginInteraction, code: string, visitor: Visitor): Promise<CodesOutcome>
  /** New backup codes, for somebody who lost the page that showed them. */
  renewCodes(interaction: LoginInteraction, visitor: Visitor): Promise<CodesOutcome>
  /** The person has the backup codes. */
  codesKept(interaction: LoginInteraction, visitor: Visitor): Promise<Outcome>
}

interface Parts {
  readonly database: Database
  readonly throttle: Throttle
  readonly secrets: Secrets
  readonly notices: Notices
  readonly login: Login
  now(): Date
}

type Kind = 'totp' | 'backup_code'
const factorOf: Readonly<Record<Kind, Factor>> = { totp: 'otp', backup_code: 'backup' }
const refusalOf: Readonly<Record<Kind, RefusalReason>> = { totp: 'code_mismatch', backup_code: 'backup_mismatch' }
const stale: Outcome = { step: 'refused', reason: 'stale' }

export function createSecondFactorMethod(parts: Parts): SecondFactorMethod {
  const { database, throttle, secrets, notices, login, now } = parts
  const db = database.kysely

  /** The sign-in if it stands at this step; every other path here is a form that was kept or forged (F66). */
  async function at(interaction: LoginInteraction, step: Step) {
    const standing = await login.standing(interaction)
    return standing.step === step && standing.account ? { standing, account: standing.account } : undefined
  }

  /** One try with a code: counted, compared and spent. `spend` says whether the code was good. */
  async function tryCode(
    interaction: LoginInteraction,
    kind: Kind,
    visitor: Visitor,
    spend: (tx: Tx, account: SignInAccount) => Promise<boolean>,
  ): Promise<Outcome> {
    const here = await at(interaction, 'second_factor')
    if (!here) return stale
    const { account, standing } = here
    const taken = await throttle.take({
      purpose: 'code',
      identifier: account.id,
      ip: visitor.origin.ip,
      deviceHash: visitor.deviceHash,
      accountId: account.id,
    })
    if (!taken.ok) {
      await login.fail(interaction, { reason: 'throttled', attempts: taken.attempts, account }, visitor.origin)
      return { step: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
    }
    if (account.disabledKinds.includes(kind)) return { step: 'refused', reason: 'disabled_factor' }
    let matched = false
    const outcome = await login.prove(
      interaction,
      standing,
      {
        account,
        factor: factorOf[kind],
        failuresBefore: taken.attempts - 1,
        async within(tx) {
          matched = await spend(tx, account)
          if (matched && account.failingKinds.includes(kind)) await clearFailures(tx, account.id, kind)
          return matched
        },
      },
      visitor,
    )
    if (matched) {
      if (outcome.step !== 'refused') await throttle.settle(taken)
      return outcome
    }
    const failure = { reason: refusalOf[kind], attempts: taken.attempts, account }
    await login.fail(interaction, failure, visitor.origin, (tx) => countFailure(tx, account, kind, visitor.origin))
    return { step: 'refused', reason: refusalOf[kind] }
  }

  async function countFailure(tx: Tx, account: SignInAccount, kind: Kind, origin: Origin): Promise<void> {
    const { disabledNow } = await recordFailure(tx, account.id, kind, {
      organizationId: account.organization.id,
      origin,
    })
    if (disabledNow) await notices.send(tx, account, 'sign_in_disabled', origin)
  }

  const context = (account: SignInAccount, origin: Origin) => ({
    accountId: account.id,
    actor: { type: 'account' as const, id: account.id },
    organizationId: account.organization.id,
    origin,
  })

  return {
    submitCode: (interaction, code, visitor) =>
      tryCode(interaction, 'totp', visitor, async (tx, account) => {
        const match = await findTotpMatch(tx, secrets, account.id, code.replace(/\s/g, ''), now())
        return match !== undefined && (await spendTotpStep(tx, match))
      }),

    submitBackupCode: (interaction, code, visitor) =>
      tryCode(interaction, 'backup_code', visitor, async (tx, account) => {
        const spent = await spendBackupCode(tx, secrets, { ...context(account, visitor.origin), input: code })
        if (!spent) return false
        await notices.send(tx, account, 'backup_code_used', visitor.origin, { left: spent.left })
        return true
      }),

    async setup({ account, flow }) {
      if (!account || flow.totpId === undefined) return undefined
      return readTotpSetup(db, secrets, {
        accountId: account.id,
        totpId: flow.totpId,
        email: account.email,
        organizationName: account.organization.name,
      })
    },

    async beginSetup(interaction, visitor) {
      const here = await at(interaction, 'set_up_second_factor')
      return here ? login.move(interaction, here.standing, { totpId: undefined }, visitor) : stale
    },

    async confirmSetup(interaction, code, visitor) {
      const here = await at(interaction, 'set_up_second_factor')
      const totpId = here?.standing.flow.totpId
      if (!here || totpId === undefined) return stale
      const { account, standing } = here
      const taken = await throttle.take({
        purpose: 'code',
        identifier: account.id,
        ip: visitor.origin.ip,
        deviceHash: visitor.deviceHash,
        accountId: account.id,
      })
      if (!taken.ok) return { step: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
      let codes: readonly string[] = []
      let confirmed = false
      const outcome = await login.prove(
        interaction,
        { ...standing, flow: { ...standing.flow, codesPending: true, totpId: undefined } },
        {
          account,
          factor: 'otp',
          failuresBefore: 0,
          async within(tx) {
            const about = context(account, visitor.origin)
            const answer = await confirmTotp(tx, secrets, {
              ...about,
              totpId,
              code: code.replace(/\s/g, ''),
              now: now(),
            })
            // Of two sign-ins that stand at this step at once, the later one has to give the code of the other's (F63).
            confirmed = answer === 'confirmed' && (await listTotp(tx, account.id)).length === 1
            if (!confirmed) return false
            codes = await createBackupCodes(tx, secrets, about)
            // Both are bound anew, so what failed before is history (SP 800-63B-4 §3.2.2).
            await restore(tx, account.id, 'totp', about)
            await restore(tx, account.id, 'backup_code', about)
            await notices.send(tx, account, 'factor_added', visitor.origin)
            return true
          },
        },
        visitor,
      )
      if (!confirmed) return { step: 'refused', reason: 'code_mismatch' }
      if (outcome.step === 'refused') return outcome
      await throttle.settle(taken)
      return { step: 'codes', codes }
    },

    async renewCodes(interaction, visitor) {
      const here = await at(interaction, 'save_backup_codes')
      if (!here) return stale
      let codes: readonly string[] = []
      const outcome = await login.move(interaction, here.standing, {}, visitor, async (tx) => {
        codes = await createBackupCodes(tx, secrets, context(here.account, visitor.origin))
        return true
      })
      return outcome.step === 'refused' ? outcome : { step: 'codes', codes }
    },

    async codesKept(interaction, visitor) {
      const here = await at(interaction, 'save_backup_codes')
      return here ? login.move(interaction, here.standing, { codesPending: false }, visitor) : stale
    },
  }
}
