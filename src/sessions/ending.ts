// Ending what an account has out there: sessions, sign-ins under way, links by mail, grants and tokens together, with the
// audit rows of it and word to the apps, in the transaction of whatever caused it. What goes by which cause: causes.ts.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, AuditEvent, Origin } from '../audit/events.ts'
import { type Row, runIn, type Tx } from '../db/database.ts'
import { ringForDeliveries } from '../deliveries/bell.ts'
import { tellClients } from '../deliveries/logouts.ts'
import { enqueueForMemberships } from '../deliveries/webhooks.ts'
import { type EndingCause, endingRule } from './causes.ts'
import { begunFor } from './live.ts'
import { isOffline, isPersonal } from './tokens.ts'

export type { EndingCause } from './causes.ts'

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
    update mlpipes_auth.mail_links set used_at = now() where $4::boolean and account_id = $1 and used_at is null
      and (kind in ('sign_in', 'reset') or kind = 'email_change' and $2::text is null)
  )
  delete from mlpipes_auth.sign_in_flows where $5::boolean and account_id = $1 and interaction_hash is distinct from $3`
// With a session spared, grants stay: they are shared between sessions, and the tokens of the others are gone all the same.
// A sign-in that was completed and waits to be resumed would open a session again.
const drop = `with gone as (
    delete from mlpipes_auth.oidc_payloads where account_id = $1
      and (${isPersonal} and ($4::boolean or not ${isOffline})
          and ($2::text is null or payload ->> 'sessionUid' is distinct from $2)
        or model = 'Grant' and $2::text is null and $5::boolean
        or model = 'Interaction' and id_hash is distinct from $3 and $6::boolean)
    returning model
  )
  select count(*) as tokens from gone where model not in ('Grant', 'Interaction')`

/** A statement that ends the sessions of a condition and tells their clients; `$1` is the cause. */
export const endSessionsWhere = (condition: string) => `with parted as (
    update mlpipes_auth.sessions s set ended_at = now(), end_reason = $1::text where ended_at is null and ${condition}
    returning uid, account_id, organization_id, ${begunFor} as begun_for, payload, $1::text as cause, null::text as client_id
  ), ${tellClients}
  select uid, account_id, organization_id, begun_for, (select count(*) from told)::integer as told from parted`
const endSessions = endSessionsWhere('account_id = $2 and uid is distinct from $3')
const endOne = endSessionsWhere('uid = $2 and account_id = $3')
const endById = endSessionsWhere('id_hash = $2')

export interface Ended {
  readonly sessions: number
  readonly tokens: number
}

/** Ends every session of an account, but for the one spared, with all that was issued to apps. */
export async function endAccess(tx: Tx, ending: Ending): Promise<Ended> {
  const { accountId, organizationId, cause, exceptSessionUid, exceptInteractionHash, actor, origin } = ending
  const rule = endingRule(cause)
  const spared = [accountId, exceptSessionUid ?? null, exceptInteractionHash ?? null]
  const dropped = [...spared, rule.offlineTokens, rule.grants, rule.signIns]
  await runIn(tx, settle, [accountId])
  await runIn(tx, endBegun, [...spared, rule.links, rule.signIns])
  // The first waits for requests that are spending a code or refresh token; the second takes what those issued while it
  // waited, which the first does not see.
  const before = await runIn(tx, drop, dropped)
  const sessions = await runIn(tx, endSessions, [cause, accountId, exceptSessionUid ?? null])
  const meanwhile = await runIn(tx, drop, dropped)
  const tokens = [...before, ...meanwhile].reduce((sum, row) => sum + Number(row['tokens']), 0)
  await appendAudit(tx, ...endingEvents(sessions, tokens, { accountId, organizationId, cause, actor, origin }))
  if (cause === 'disabled') await enqueueForMemberships(tx, { type: 'account.disabled', data: { accountId } })
  ringIfTold(tx, sessions)
  return { sessions: sessions.length, tokens }
}

export interface SessionEnding extends Omit<Ending, 'exceptSessionUid' | 'exceptInteractionHash'> {
  readonly uid: string
  /** A session that is not ended by this, whatever `uid` says: the one in which the person is doing it. */
  readonly notSessionUid?: string | undefined
}

// What it writes refers to the account: whoever ends all of that (endAccess) is waited for here and not with locks held.
const isLive = `select s.uid from mlpipes_auth.sessions s join mlpipes_auth.accounts a on a.id = s.account_id
    where s.uid = $1 and s.account_id = $2 and s.ended_at is null and s.uid is distinct from $3 for key share of a`
const dropTokens = `delete from mlpipes_auth.oidc_payloads where account_id = $2 and payload ->> 'sessionUid' = $1
    and ${isPersonal} and ($3::boolean or not ${isOffline})
    returning id_hash`

/**
 * Ends one session with the tokens that were issued in it; offline ones too where the cause does not spare them.
 * @returns undefined when the account has no such live session
 */
export async function endSession(tx: Tx, ending: SessionEnding): Promise<Ended | undefined> {
  const { uid, accountId, organizationId, cause, notSessionUid, actor, origin } = ending
  if ((await runIn(tx, isLive, [uid, accountId, notSessionUid ?? null])).length === 0) return undefined
  const tokens = [uid, accountId, endingRule(cause).offlineTokens]
  // In the order in which requests lock that are spending a code or refresh token: it first, the session after it. The
  // first delete waits for them; the second takes what they issued while it waited, which the first does not see.
  const before = await runIn(tx, dropTokens, tokens)
  const [ended] = await runIn(tx, endOne, [cause, uid, accountId])
  if (!ended) return undefined
  const meanwhile = await runIn(tx, dropTokens, tokens)
  const counts = { sessions: 1, tokens: before.length + meanwhile.length }
  const by = { organizationId, cause, actor, origin }
  const elsewhere = endedEvents(ended, by).filter((event) => !tellsEnder(event, by))
  await appendAudit(tx, ...elsewhere, accessEnded({ ...by, accountId, sessionUid: uid }, counts))
  ringIfTold(tx, [ended])
  return counts
}

/** Whose session it was. */
export interface EndedSession {
  readonly uid: string
  readonly accountId: string | undefined
  /** That of the latest sign-in. */
  readonly organizationId: string | undefined
  /** In its log stands all that became of the session. */
  readonly begunFor: string | undefined
}

/**
 * Ends the session with this id, whoever is in it, and leaves its tokens to the provider and to the check of every read.
 * @returns undefined when it had ended already
 */
export async function endSessionById(tx: Tx, idHash: string, cause: EndingCause): Promise<EndedSession | undefined> {
  const rows = await runIn(tx, endById, [cause, idHash])
  ringIfTold(tx, rows)
  return rows[0] && toEndedSession(rows[0])
}

function toEndedSession(row: Row): EndedSession {
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
  return {
    uid: String(row['uid']),
    accountId: text(row['account_id']),
    organizationId: text(row['organization_id']),
    begunFor: text(row['begun_for']),
  }
}

type EndedBy = Pick<Ending, 'actor' | 'origin' | 'organizationId' | 'cause'>

/** The audit rows of a cascade: of each session that it ended, and of all that it ended together. */
export function endingEvents(
  rows: readonly Row[],
  tokens: number,
  by: EndedBy & { readonly accountId?: string },
): AuditEvent[] {
  const events = rows.flatMap((row) => endedEvents(row, by))
  const alone = events.filter((event) => tellsEnder(event, by)).length
  return [...events, accessEnded(by, { sessions: rows.length - alone, tokens })]
}

/**
 * The audit rows of one session that was ended. `session.ended` stands once, where `session.created` does: in the log of the
 * organisation that it was begun for. Another one that ended it, or that a sign-in moved it to, sees by `access.ended` in its
 * own log that it is over.
 */
function endedEvents(row: Row, by: EndedBy): AuditEvent[] {
  const { uid, accountId, organizationId, begunFor: home } = toEndedSession(row)
  const others = [...new Set([organizationId, by.organizationId])].filter((id) => id !== undefined && id !== home)
  const about = { accountId, sessionUid: uid, actor: by.actor, origin: by.origin, cause: by.cause }
  return [
    {
      name: 'session.ended',
      outcome: 'success',
      actor: by.actor,
      accountId,
      organizationId: home,
      sessionUid: uid,
      origin: by.origin,
      details: { reason: by.cause },
    },
    ...others.map((id) => accessEnded({ ...about, organizationId: id }, { sessions: 1, tokens: 0 })),
  ]
}

/** Whether it is in the log of whoever ended the session that it says so. */
function tellsEnder({ name, organizationId }: AuditEvent, by: EndedBy): boolean {
  return name === 'access.ended' && organizationId === by.organizationId
}

function accessEnded(
  { cause, ...about }: EndedBy & { readonly accountId?: string | undefined; readonly sessionUid?: string },
  ended: Ended,
): AuditEvent<'access.ended'> {
  return { ...about, name: 'access.ended', outcome: 'success', details: { cause, ...ended } }
}

export function ringIfTold(tx: Tx, rows: readonly (Row | undefined)[]): void {
  if (rows.some((row) => Number(row?.['told'] ?? 0) > 0)) ringForDeliveries(tx)
}
