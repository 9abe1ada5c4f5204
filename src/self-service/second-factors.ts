// The second factors of an account in its owner's hands: adding, naming and removing authenticators, new backup codes.
// Each change is told to the owner and ends every other session, in the transaction in which it happens.
import type { SignInAccount } from '../accounts/accounts.ts'
import type { Origin } from '../audit/events.ts'
import { createBackupCodes, type FactorChange, lockFactors } from '../credentials/backup-codes.ts'
import type { Notices } from '../credentials/notices.ts'
import type { Throttle } from '../credentials/throttle.ts'
import {
  confirmTotp,
  readTotpSetup,
  removeTotp,
  renameTotp,
  type StartedTotpSetup,
  startTotpSetup,
  type TotpSetup,
} from '../credentials/totp.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { endAccess } from '../sessions/ending.ts'

/** Who does it, and in which session, which goes on. */
export interface Doing {
  readonly account: SignInAccount
  readonly sessionUid: string
  readonly origin: Origin
  readonly deviceHash: string | undefined
}

export type ConfirmOutcome =
  /** `codes` only with the first authenticator; they are kept nowhere. */
  | { readonly ok: true; readonly codes: readonly string[] | undefined }
  | { readonly ok: false; readonly reason: 'mismatch' | 'gone' }
  | { readonly ok: false; readonly reason: 'throttled'; readonly retryAfterSeconds: number }

export interface SecondFactors {
  /** Whether this account may add an authenticator at all. */
  mayAdd(account: SignInAccount): boolean
  start(doing: Doing, name: string): Promise<StartedTotpSetup>
  /** A set-up of this account that waits for its code. */
  setup(account: SignInAccount, totpId: string): Promise<TotpSetup | undefined>
  confirm(doing: Doing, totpId: string, code: string): Promise<ConfirmOutcome>
  rename(doing: Doing, totpId: string, name: string): Promise<'renamed' | 'gone' | 'name'>
  /** `last`: the policy demands a second factor, and this is the only one. */
  remove(doing: Doing, totpId: string): Promise<'removed' | 'gone' | 'last'>
  /** A new set of backup codes; undefined for an account without an authenticator. */
  renewCodes(doing: Doing): Promise<readonly string[] | undefined>
}

interface Parts {
  readonly database: Database
  readonly secrets: Secrets
  readonly throttle: Throttle
  readonly notices: Notices
  /** Whether second factors are offered on this platform. */
  readonly offersSecondFactor: boolean
  now(): Date
}

const countStanding = `select count(*)::integer as standing from mlpipes_auth.totp_credentials
    where account_id = $1 and confirmed_at is not null`

export function createSecondFactors(parts: Parts): SecondFactors {
  const { database, secrets, throttle, notices, now } = parts
  const db = database.kysely
  const about = ({ account, origin }: Doing): FactorChange => ({
    accountId: account.id,
    organizationId: account.organization.id,
    actor: { type: 'account', id: account.id },
    origin,
  })
  const owner = (account: SignInAccount) => ({
    accountId: account.id,
    email: account.email,
    organizationName: account.organization.name,
  })
  const standing = async (tx: Tx, account: SignInAccount) =>
    Number((await runIn(tx, countStanding, [account.id]))[0]?.['standing'])

  async function endOthers(tx: Tx, doing: Doing): Promise<void> {
    await endAccess(tx, { ...about(doing), cause: 'factor_changed', exceptSessionUid: doing.sessionUid })
  }

  return {
    mayAdd: ({ policy }) => parts.offersSecondFactor && policy.mfa !== 'off',

    start: (doing, name) =>
      transact(db, (tx) => startTotpSetup(tx, secrets, { ...about(doing), ...owner(doing.account), name })),

    setup: (account, totpId) => readTotpSetup(db, secrets, { ...owner(account), totpId }),

    async confirm(doing, totpId, code) {
      const { account, origin, deviceHash } = doing
      const who = { identifier: account.id, accountId: account.id, ip: origin.ip, deviceHash }
      const taken = await throttle.take({ purpose: 'code', ...who })
      if (!taken.ok) return { ok: false, reason: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
      const outcome = await transact(db, async (tx): Promise<ConfirmOutcome> => {
        const request = { ...about(doing), totpId, code: code.replace(/\s/g, ''), now: now() }
        const answer = await confirmTotp(tx, secrets, request)
        if (answer !== 'confirmed') return { ok: false, reason: answer }
        const isFirst = (await standing(tx, account)) === 1
        const codes = isFirst ? await createBackupCodes(tx, secrets, about(doing)) : undefined
        await notices.send(tx, account, 'factor_added', origin)
        await endOthers(tx, doing)
        return { ok: true, codes }
      })
      if (outcome.ok) await throttle.settle(taken)
      return outcome
    },

    rename: (doing, totpId, name) => transact(db, (tx) => renameTotp(tx, { ...about(doing), totpId, name })),

    remove: (doing, totpId) =>
      transact(db, async (tx) => {
        const mayBeLast = doing.account.policy.mfa !== 'required'
        const removed = await removeTotp(tx, { ...about(doing), totpId, by: 'self', mayBeLast })
        if (!removed.ok) return removed.reason
        await notices.send(tx, doing.account, 'factor_removed', doing.origin)
        await endOthers(tx, doing)
        return 'removed'
      }),

    renewCodes: (doing) =>
      transact(db, async (tx) => {
        // Codes without an authenticator would be a factor of their own, so none may go away meanwhile.
        await lockFactors(tx, doing.account.id)
        if ((await standing(tx, doing.account)) === 0) return undefined
        const codes = await createBackupCodes(tx, secrets, about(doing))
        await notices.send(tx, doing.account, 'backup_codes_created', doing.origin)
        return codes
      }),
  }
}
