// Every session of an organisation, ended in batches by an administrator, as after an incident: what endSession() does for
// one, for many at once, each batch in a transaction of its own so that nobody waits long for any of them.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, Origin } from '../audit/events.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { endingEvents, endSessionsWhere, ringIfTold } from './ending.ts'
import { isPersonal } from './tokens.ts'

export const sessionsPerBatch = 500
const tokensPerBatch = 2_000
const cause = 'ended_by_administrator' as const

export interface OrganizationEnding {
  readonly organizationId: string
  /** A session that goes on, with its tokens: the one in which this is asked. */
  readonly exceptSessionUid: string | undefined
  readonly actor: Actor
  readonly origin: Origin
}

export interface EndedAll {
  readonly sessions: number
  readonly tokens: number
}

// Those of its people, and those of guests that were used for it.
const isOpen = 's.ended_at is null and s.account_id is not null and s.uid is distinct from $2'
const findSome = `select uid, account_id from (
      select s.uid, s.account_id from mlpipes_auth.sessions s where s.organization_id = $1 and ${isOpen}
      union select s.uid, s.account_id from mlpipes_auth.session_organizations x
        join mlpipes_auth.sessions s on s.uid = x.session_uid where x.organization_id = $1 and ${isOpen}
    ) as theirs limit ${sessionsPerBatch}`
const dropTokens = `delete from mlpipes_auth.oidc_payloads where account_id = any($2::text[])
    and payload ->> 'sessionUid' = any($1::text[]) and ${isPersonal} returning id_hash`
const endThese = endSessionsWhere('uid = any($2::text[])')
// What outlived a session that was over before, by way of the places that people have here: those are indexed.
const dropLeft = `delete from mlpipes_auth.oidc_payloads where ctid = any(array(
      select p.ctid from mlpipes_auth.memberships m join mlpipes_auth.oidc_payloads p on p.account_id = m.account_id
      where m.organization_id = $1 and ${isPersonal} and p.payload ->> 'sessionUid' is distinct from $2
        and coalesce(p.organization_id, (select c.organization_id from mlpipes_auth.clients c where c.client_id = p.client_id)) = $1
      limit ${tokensPerBatch} for update of p))
    returning id_hash`

/** Ends them all, with their tokens, offline ones too. Returns how many this call ended. */
export async function endOrganizationSessions(
  database: Pick<Database, 'kysely'>,
  ending: OrganizationEnding,
): Promise<EndedAll> {
  const all = { sessions: 0, tokens: 0 }
  for (;;) {
    const ended = await transact(database.kysely, (tx) => endSome(tx, ending))
    if (!ended) break
    all.sessions += ended.sessions
    all.tokens += ended.tokens
  }
  for (;;) {
    const dropped = await transact(database.kysely, (tx) => dropSome(tx, ending))
    all.tokens += dropped
    if (dropped < tokensPerBatch) return all
  }
}

async function endSome(tx: Tx, ending: OrganizationEnding): Promise<EndedAll | undefined> {
  const { organizationId, exceptSessionUid, actor, origin } = ending
  const found = await runIn(tx, findSome, [organizationId, exceptSessionUid ?? null])
  if (found.length === 0) return undefined
  const uids = found.map((row) => String(row['uid']))
  const ofThem = [uids, [...new Set(found.map((row) => String(row['account_id'])))]]
  // Tokens before sessions, and once more, for the reasons that endSession() gives.
  const before = await runIn(tx, dropTokens, ofThem)
  const sessions = await runIn(tx, endThese, [cause, uids])
  const meanwhile = await runIn(tx, dropTokens, ofThem)
  const tokens = before.length + meanwhile.length
  await appendAudit(tx, ...endingEvents(sessions, tokens, { actor, origin, organizationId, cause }))
  ringIfTold(tx, sessions)
  return { sessions: sessions.length, tokens }
}

async function dropSome(tx: Tx, ending: OrganizationEnding): Promise<number> {
  const { organizationId, exceptSessionUid, actor, origin } = ending
  const dropped = (await runIn(tx, dropLeft, [organizationId, exceptSessionUid ?? null])).length
  if (dropped > 0) await appendAudit(tx, ...endingEvents([], dropped, { actor, origin, organizationId, cause }))
  return dropped
}
