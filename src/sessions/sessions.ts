// Sessions: the provider's Session and ours are one row: who, which organisation, where from, since when, both limits,
// and how it ended. Limits are columns that every read compares with the database's clock, never a ttl alone (D3).

import type { AuditEvent } from '../audit/events.ts'
import { auditInsert, auditInsertOf, auditParameterCount, auditValues } from '../audit/store.ts'
import { coalesce } from '../db/coalesce.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { type EndedSession, type EndingCause, endSessionById } from './ending.ts'
import { begunFor, isLive, overBecause } from './live.ts'
import type { SessionLimits } from './policy.ts'

export interface SessionRow {
  readonly uid: string
  readonly idHash: string
  readonly payload: Record<string, unknown>
  readonly accountId: string | undefined
  /** The organisation of the latest sign-in. It stays when the session is used for others. */
  readonly organizationId: string | undefined
  /** Every organisation that the request was about: the person's, and that of the app. */
  readonly usedFor: readonly string[]
  readonly ip: string | undefined
  readonly userAgent: string | undefined
  /** Whether somebody signed in; a session without only carries a logout's state. */
  readonly signedIn: boolean
  readonly limits: SessionLimits
  /** Coming back for another app begins the idle limit anew once in so many seconds; undefined where the policy lets it not. */
  readonly activityStepSeconds: number | undefined
  /** Whether the request is one for which the session counts as used: one that is refused holds it to nothing. */
  readonly isUse: boolean
}

export interface StoredSession {
  readonly uid: string
  readonly payload: Record<string, unknown>
  readonly accountId: string | undefined
  readonly organizationId: string | undefined
  /** Where the browser was last seen. */
  readonly ip: string | undefined
  readonly signedInAt: Date | undefined
  readonly lastActivityAt: Date
  readonly idleExpiresAt: Date
  readonly absoluteExpiresAt: Date
  /** When it was read, by the database's clock. */
  readonly readAt: Date
}

const columns =
  'uid, payload, account_id, organization_id, host(ip) as ip, signed_in_at, last_activity_at, idle_expires_at, absolute_expires_at, now() as read_at'
const findById = `select id_hash as key, ${columns} from mlpipes_auth.sessions s where id_hash = any($1::text[]) and ${isLive}`
const findByUid = `select uid as key, ${columns} from mlpipes_auth.sessions s where uid = any($1::text[]) and ${isLive}`

const endOf = `select ${overBecause} as reason
    from mlpipes_auth.sessions s where id_hash = $1 and account_id is not null and not (${isLive})`

/**
 * Whether activity extends the session `s`: not where one of the organisations that it was used for says otherwise, whichever
 * of them it is used for now.
 */
export const isExtendable = `not exists (select from (
      select s.organization_id as id
      union all select x.organization_id from mlpipes_auth.session_organizations x where x.session_uid = s.uid
    ) as used join mlpipes_auth.organizations o on o.id = used.id
    where o.policy #> '{session,extendOnActivity}' = 'false')`

// A session that ended stays ended: the update below never touches such a row, and nothing is inserted beside it.
const columnCount = 13
// The absolute limit runs from the sign-in by the database's clock (F17). The provider's loginTs, which is the clock of
// whichever replica took the password, only tells one sign-in from the next.
const isNewSignIn = `s.payload -> 'loginTs' is distinct from excluded.payload -> 'loginTs'`
const signedInAt = `case when ${isNewSignIn} then excluded.signed_in_at else s.signed_in_at end`
// Whether coming back for another app extends the session, asked under its lock: of those that come back at once, the one
// that writes it down is the one that extends it. A sign-in is none of that, and begins the limits anew in any case.
const dueExtension = `select s.uid from mlpipes_auth.sessions s
      where s.uid = $1 and $13::boolean and s.account_id is not null
        and s.last_activity_at <= (select now() - make_interval(secs => $11::integer))
        and s.payload -> 'loginTs' is not distinct from $3::jsonb -> 'loginTs' and ${isExtendable}
      for update`
const beginsAnew = `(exists (select from due) or ${isNewSignIn})`
const lastActivityAt = `case when ${beginsAnew} then now() else s.last_activity_at end`
// A session that was used for several organisations is held to the strictest of them; one that signs in anew for another
// has tokens of the former still.
const stricter = (column: string) =>
  `case when $13::boolean then least(s.${column}, excluded.${column}) else coalesce(s.${column}, excluded.${column}) end`
const idleSeconds = stricter('idle_seconds')
const absoluteSeconds = stricter('absolute_seconds')
// Without an extension never later than it was.
const idleExpiresAt = `least(${lastActivityAt} + make_interval(secs => coalesce(${idleSeconds}, $9::integer)),
          case when not ${beginsAnew} then s.idle_expires_at end)`
const absoluteExpiresAt = `coalesce(${signedInAt}, now()) + make_interval(secs => coalesce(${absoluteSeconds}, $10::integer))`
// A session is created when an account enters it, once: not again at the resume after a consent, nor when the person
// proves again who they are.
const saveSession = `with before as (select account_id, organization_id from mlpipes_auth.sessions where uid = $1),
    due as (${dueExtension}),
    saved as (
      insert into mlpipes_auth.sessions as s (uid, id_hash, payload, account_id, organization_id, ip, user_agent, signed_in_at,
        last_activity_at, idle_seconds, absolute_seconds, idle_expires_at, absolute_expires_at)
      values ($1, $2, $3::jsonb, $4, $5, $6::inet, $7, case when $8::boolean then now() end, now(),
        case when $8::boolean then $9::integer end, case when $8::boolean then $10::integer end,
        now() + make_interval(secs => $9::integer), now() + make_interval(secs => $10::integer))
      on conflict (uid) do update set
        id_hash = excluded.id_hash, payload = excluded.payload, account_id = excluded.account_id,
        organization_id = case when ${isNewSignIn} then excluded.organization_id
          else coalesce(s.organization_id, excluded.organization_id) end,
        begun_for = coalesce(s.begun_for, s.organization_id),
        signed_in_at = ${signedInAt}, ip = excluded.ip, user_agent = excluded.user_agent,
        last_activity_at = ${lastActivityAt}, idle_seconds = ${idleSeconds}, absolute_seconds = ${absoluteSeconds},
        idle_expires_at = least(${idleExpiresAt}, ${absoluteExpiresAt}),
        absolute_expires_at = ${absoluteExpiresAt}
      where s.ended_at is null
      returning uid, account_id, organization_id, ${begunFor} as begun_for
    ), also as (
      insert into mlpipes_auth.session_organizations (session_uid, organization_id)
      select saved.uid, used.id from saved,
        unnest($12::text[] || array(select organization_id from before where $13::boolean)) as used (id)
      where $13::boolean and used.id <> saved.organization_id on conflict do nothing
    ), logged as (${auditInsert(columnCount + 1)}
      where exists (select from saved) and not exists (select from before where account_id is not null)
    ), extended as (${auditInsertOf(
      ['name', 'outcome', 'actor_type', 'actor_id', 'account_id', 'organization_id', 'session_uid', 'details'],
      `select 'session.extended', 'success', 'account', account_id, account_id, begun_for, uid, '{}'::jsonb
        from saved where exists (select from due)`,
    )})
    select uid from saved`

// A share lock: whoever ends the session waits until what is issued in it is stored, and can then take it away.
const hold = `select s.uid from mlpipes_auth.sessions s where s.uid = $1 and ${isLive} for share of s`

export interface Sessions {
  findById(idHash: string): Promise<StoredSession | undefined>
  findByUid(uid: string): Promise<StoredSession | undefined>
  /** Why the session with this id has ended, also when nobody has marked it so yet; undefined when it lives or is none. */
  endOf(idHash: string): Promise<string | undefined>
  /** Writes the row in one statement, with `created` if that is when an account enters the session, or its extension. */
  save(tx: Tx | undefined, row: SessionRow, created: AuditEvent | undefined): Promise<void>
  /** Keeps a session from being ended until the transaction commits. False when it is over, by whatever says so. */
  hold(tx: Tx, uid: string): Promise<boolean>
  /** Ends the session with this id. Returns what was ended, or undefined when it had ended already. */
  end(tx: Tx, idHash: string, cause: EndingCause): Promise<EndedSession | undefined>
}

export function createSessions(database: Database): Sessions {
  const finder = (statement: string) =>
    coalesce<string, StoredSession | undefined>(database, {
      statement,
      values: (keys) => [[...new Set(keys)]],
      results(rows, keys) {
        const byKey = new Map(rows.map((row) => [String(row['key']), toStoredSession(row)]))
        return keys.map((key) => byKey.get(key))
      },
    })
  return {
    findById: finder(findById),
    findByUid: finder(findByUid),
    async endOf(idHash) {
      const [row] = await database.run(endOf, [idHash])
      return typeof row?.['reason'] === 'string' ? row['reason'] : undefined
    },
    async save(tx, row, created) {
      const values = [
        row.uid,
        row.idHash,
        JSON.stringify(row.payload),
        row.accountId ?? null,
        row.organizationId ?? null,
        row.ip ?? null,
        row.userAgent ?? null,
        row.signedIn,
        row.limits.idleSeconds,
        row.limits.absoluteSeconds,
        row.activityStepSeconds ?? null,
        [...new Set(row.usedFor)],
        row.isUse,
        ...auditValues(created ? [created] : []),
      ]
      await (tx ? runIn(tx, saveSession, values) : database.run(saveSession, values))
    },
    hold: async (tx, uid) => (await runIn(tx, hold, [uid])).length === 1,
    end: endSessionById,
  }
}

/** Number of array parameters that the audit part of a save takes; a test holds it against the statement. */
export const saveParameterCount = columnCount + auditParameterCount

/** Maps a row of `columns`. */
export function toStoredSession(row: Row): StoredSession {
  return {
    uid: String(row['uid']),
    payload: row['payload'] as Record<string, unknown>,
    accountId: row['account_id'] === null ? undefined : String(row['account_id']),
    organizationId: row['organization_id'] === null ? undefined : String(row['organization_id']),
    ip: row['ip'] === null ? undefined : String(row['ip']),
    signedInAt: (row['signed_in_at'] as Date | null) ?? undefined,
    lastActivityAt: row['last_activity_at'] as Date,
    idleExpiresAt: row['idle_expires_at'] as Date,
    absoluteExpiresAt: row['absolute_expires_at'] as Date,
    readAt: row['read_at'] as Date,
  }
}
