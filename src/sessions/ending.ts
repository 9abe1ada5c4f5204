// Ending what an account has out there: sessions, sign-ins under way, links by mail, grants and tokens together, with the
// audit rows of it, in the transaction of whatever caused it.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, AuditEvent, Origin } from '../audit/events.ts'
import { runIn, type Tx } from '../db/database.ts'

export type EndingCause =
  | 'password_reset'
  | 'password_changed'
  | 'factor_changed'
  | 'disowned'
  | 'disabled'
  | 'ended_by_owner'
  | 'address_proven'
  /** The person signed out. */
  | 'sign_out'
  /** The same browser signed in anew. */
  | 'signed_in_anew'
  /** Nobody did anything in it for as long as the policy allows, or it lasted as long as it may. */
  | 'idle'
  | 'absolute'
  /** More sessions at once than the policy allows: the oldest made room. */
  | 'max_concurrent'
  | 'ended_by_administrator'
  | 'organization_closed'
  | 'membership_ended'
  | 'client_disabled'
  | 'consent_withdrawn'

export interface Ending {
  readonly accountId: string
  readonly organizationId: string | undefined
  readonly cause: EndingCause
  /** A session that goes on, with its tokens: the one in which the person is doing this. */
  readonly exceptSessionUid?: string | undefined
  /** A sign-in that goes on: the one in which the person is doing this. SHA-256 of its interaction's uid. */
  readonly exceptInteractionHash?: string | undefined
  readonly actor: Actor
  readonly origin: Origin
}

// Whatever is being written for the account refers to its row: this waits for it, and what follows sees it.
const settle = 'select id from mlpipes_auth.accounts where id = $1 for update'
// What was proven before must not complete a sign-in afterwards, and what was mailed before must not open one (F52). An
// e-mail change that the owner asked for in the session that is spared goes on.
const endBegun = `with links as (
    update mlpipes_auth.mail_links set used_at = now() where account_id = $1 and used_at is null
      and (kind in ('sign_in', 'reset') or kind = 'email_change' and $2::text is null)
  )
  delete from mlpipes_auth.sign_in_flows where account_id = $1 and interaction_hash is distinct from $3`
// With a session spared, grants stay: they are shared between sessions, and the tokens of the others are gone all the same.
// A sign-in that was completed and waits to be resumed would open a session again.
const drop = `with gone as (
    delete from mlpipes_auth.oidc_payloads where account_id = $1
      and (model in ('AccessToken', 'RefreshToken', 'AuthorizationCode')
          and ($2::text is null or payload ->> 'sessionUid' is distinct from $2)
        or model = 'Grant' and $2::text is null
        or model = 'Interaction' and id_hash is distinct from $3)
    returning model
  )
  select count(*) as tokens from gone where model not in ('Grant', 'Interaction')`
const endSessions = `update mlpipes_auth.sessions set ended_at = now(), end_reason = $3
    where account_id = $1 and ended_at is null and uid is distinct from $2 returning uid`

export interface Ended {
  readonly sessions: number
  readonly tokens: number
}

/** Ends every session of an account, but for the one spared, with all that was issued to apps. */
export async function endAccess(tx: Tx, ending: Ending): Promise<Ended> {
  const { accountId, organizationId, cause, exceptSessionUid, exceptInteractionHash, actor, origin } = ending
  const spared = [accountId, exceptSessionUid ?? null, exceptInteractionHash ?? null]
  await runIn(tx, settle, [accountId])
  await runIn(tx, endBegun, spared)
  // The first waits for requests that are spending a code or refresh token; the second takes what those issued while it
  // waited, which the first does not see.
  const before = await runIn(tx, drop, spared)
  const sessions = await runIn(tx, endSessions, [accountId, exceptSessionUid ?? null, cause])
  const meanwhile = await runIn(tx, drop, spared)
  const uids = sessions.map((row) => String(row['uid']))
  const tokens = [...before, ...meanwhile].reduce((sum, row) => sum + Number(row['tokens']), 0)
  const ended = { sessions: uids.length, tokens }
  const common = { outcome: 'success' as const, actor, accountId, organizationId, origin }
  const sessionEvents = uids.map(
    (uid): AuditEvent => ({ ...common, name: 'session.ended', sessionUid: uid, details: { reason: cause } }),
  )
  await appendAudit(tx, ...sessionEvents, { ...common, name: 'access.ended', details: { cause, ...ended } })
  return ended
}

export interface SessionEnding extends Omit<Ending, 'exceptSessionUid' | 'exceptInteractionHash'> {
  readonly uid: string
  /** A session that is not ended by this, whatever `uid` says: the one in which the person is doing it. */
  readonly notSessionUid?: string | undefined
}

const isLive = `select uid from mlpipes_auth.sessions
    where uid = $1 and account_id = $2 and ended_at is null and uid is distinct from $3`
const endOne = `update mlpipes_auth.sessions set ended_at = now(), end_reason = $3
    where uid = $1 and account_id = $2 and ended_at is null returning uid`
const dropTokens = `delete from mlpipes_auth.oidc_payloads where account_id = $2 and payload ->> 'sessionUid' = $1
    and model in ('AccessToken', 'RefreshToken', 'AuthorizationCode') returning id_hash`

/**
 * Ends one session with the tokens that were issued in it, offline ones too.
 * @returns undefined when the account has no such live session
 */
export async function endSession(tx: Tx, ending: SessionEnding): Promise<Ended | undefined> {
  const { uid, accountId, organizationId, cause, notSessionUid, actor, origin } = ending
  if ((await runIn(tx, isLive, [uid, accountId, notSessionUid ?? null])).length === 0) return undefined
  // In the order in which requests lock that are spending a code or refresh token: it first, the session after it. The
  // first delete waits for them; the second takes what they issued while it waited, which the first does not see.
  const before = await runIn(tx, dropTokens, [uid, accountId])
  const ended = await runIn(tx, endOne, [uid, accountId, cause])
  if (ended.length === 0) return undefined
  const meanwhile = await runIn(tx, dropTokens, [uid, accountId])
  const counts = { sessions: 1, tokens: before.length + meanwhile.length }
  const common = { outcome: 'success' as const, actor, accountId, organizationId, origin, sessionUid: uid }
  await appendAudit(
    tx,
    { ...common, name: 'session.ended', details: { reason: cause } },
    { ...common, name: 'access.ended', details: { cause, ...counts } },
  )
  return counts
}
