// The password an account has now and the ones before it: read, and replaced by one statement that lets one change win.
// What a new password has to be is in password-rules.ts, how it is hashed and compared in password.ts.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, AuditEvent, Origin } from '../audit/events.ts'
import { sha256 } from '../crypto/secrets.ts'
import { type Database, type Db, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import type { Passwords } from './password.ts'
import {
  changedMeanwhileProblem,
  checkNewPassword,
  type PasswordContext,
  type PasswordProblem,
  type PasswordRules,
  type PasswordVerdict,
  reusedProblem,
} from './password-rules.ts'

/** Each old hash costs a full comparison when a password is changed; the policy allows no more (historyCount). */
export const maxHistory = 24

export interface PasswordState {
  /** PHC string; undefined without a password. */
  readonly hash: string | undefined
  readonly changedAt: Date | undefined
  readonly mustChange: boolean
  /** PHC strings of the passwords before, newest first. */
  readonly history: readonly string[]
}

/** @param db or the transaction to read in */
export async function readPasswordState(db: Db, accountId: string): Promise<PasswordState> {
  const current = await db
    .selectFrom('password_credentials')
    .select(['hash', 'changed_at', 'must_change'])
    .where('account_id', '=', accountId)
    .executeTakeFirst()
  const history = await db
    .selectFrom('password_history')
    .select('hash')
    .where('account_id', '=', accountId)
    .orderBy('id', 'desc')
    .limit(maxHistory)
    .execute()
  return {
    hash: current?.hash,
    changedAt: current?.changed_at,
    mustChange: current?.must_change ?? false,
    history: history.map((row) => row.hash),
  }
}

/**
 * Whether a password is the current one or one of those before. Compares with the hashes one after another, each at the
 * full cost of a sign-in and in its queue: never inside a transaction.
 * @throws Refusal `busy`
 */
export async function isReused(
  passwords: Passwords,
  newPassword: string,
  current: string | undefined,
  history: readonly string[],
): Promise<boolean> {
  const hashes = [...(current === undefined ? [] : [current]), ...history.slice(0, maxHistory)]
  for (const hash of hashes) if ((await passwords.check(newPassword, hash)).ok) return true
  return false
}

// One statement, so that of two changes at once one wins: the update finds the hash that its caller looked at, or it
// does nothing, and nothing else here happens without it. The statement does not see the row it adds to the history,
// so that one fewer of the rows before may stay.
const set = `with changed as (
    update mlpipes_auth.password_credentials set hash = $2, changed_at = now(), must_change = false
    where account_id = $1 and hash = $3::text
    returning account_id
  ), made as (
    insert into mlpipes_auth.password_credentials (account_id, hash) select $1, $2 where $3::text is null
    on conflict (account_id) do nothing
    returning account_id
  ), won as (select account_id from changed union all select account_id from made
  ), kept as (
    insert into mlpipes_auth.password_history (account_id, hash)
    select account_id, $3::text from changed where $4::integer > 0
  ), trimmed as (
    delete from mlpipes_auth.password_history where account_id in (select account_id from changed) and id not in (
      select h.id from mlpipes_auth.password_history h where h.account_id = $1
      order by h.id desc limit greatest($4::integer - 1, 0))
  ), restored as (
    delete from mlpipes_auth.authenticator_failures
    where kind = 'password' and account_id in (select account_id from won)
    returning disabled_at
  )
  select exists (select account_id from won) as won,
    exists (select disabled_at from restored where disabled_at is not null) as restored`

/** By which a hash is known to be a stronger form of another one, of the same password. */
export function rehashDigest(weaker: string, stronger: string): string {
  return sha256(`${weaker} ${stronger}`)
}

export interface PasswordSetting {
  readonly accountId: string
  /** PHC string of the new password. */
  readonly hash: string
  /** The hash that stood there when the change was decided; undefined for an account without a password. */
  readonly expectedHash: string | undefined
  /** How many passwords before the new one are remembered. */
  readonly historyCount: number
  readonly by: 'self' | 'administrator' | 'operator' | 'reset'
  readonly actor: Actor
  readonly organizationId: string
  readonly origin: Origin
}

/**
 * Sets a password: the old one goes into the history, a demand to change it is met, and a password that was disabled
 * for too many failures is in use again.
 * @returns false, having done nothing, when another password stands there than `expectedHash`
 */
export async function setPassword(tx: Tx, setting: PasswordSetting): Promise<boolean> {
  const { accountId, hash, expectedHash, historyCount, by, actor, organizationId, origin } = setting
  const [row] = await runIn(tx, set, [accountId, hash, expectedHash ?? null, historyCount])
  if (row?.['won'] !== true) return false
  const event = { outcome: 'success', actor, accountId, organizationId, origin } as const
  if (row['restored'] === true)
    await appendAudit(tx, { ...event, name: 'authenticator.restored', details: { kind: 'password' } })
  const changed: AuditEvent = { ...event, name: 'password.changed', details: { by } }
  await appendAudit(tx, changed)
  return true
}

export interface PasswordChangeInput extends Omit<PasswordSetting, 'hash' | 'expectedHash' | 'historyCount'> {
  readonly newPassword: string
  readonly rules: PasswordRules
  readonly context: PasswordContext
  /** The hash that the person just proved to know, if they did: it must still be the one in use. */
  readonly provedHash?: string | undefined
  /** More that belongs into the same transaction: ending sessions, notices. A throw undoes the change. */
  inTransaction?(tx: Tx): Promise<void>
}

export interface PasswordChange {
  /**
   * Changes a password, or says everything that is wrong with the new one.
   * @throws Refusal `busy` when too many hashes are waited for, and what `inTransaction` throws
   */
  change(input: PasswordChangeInput): Promise<PasswordVerdict>
}

export function createPasswordChange(parts: {
  readonly database: Pick<Database, 'kysely'>
  readonly passwords: Passwords
}): PasswordChange {
  const { passwords } = parts
  const db = parts.database.kysely
  return {
    async change({ newPassword, rules, context, provedHash, inTransaction, ...about }) {
      const state = await readPasswordState(db, about.accountId)
      if (provedHash !== undefined && provedHash !== state.hash) return refused(changedMeanwhileProblem)
      // What the rules refuse cannot be chosen, used before or not: its hashes need no comparing.
      const verdict = checkNewPassword(newPassword, rules, context)
      if (!verdict.ok) return verdict
      const old = state.history.slice(0, rules.historyCount)
      if (await isReused(passwords, newPassword, state.hash, old)) return refused(reusedProblem(rules))
      const hash = await passwords.hash(newPassword)
      const { historyCount } = rules
      const won = await transact(db, async (tx) => {
        if (!(await setPassword(tx, { ...about, hash, expectedHash: state.hash, historyCount }))) return false
        await inTransaction?.(tx)
        return true
      })
      return won ? { ok: true } : refused(changedMeanwhileProblem)
    },
  }
}

function refused(problem: PasswordProblem): PasswordVerdict {
  return { ok: false, problems: [problem] }
}
