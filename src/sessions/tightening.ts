// Open sessions under a policy that got stricter. The transaction of the change writes down one row, which every read of a
// live session asks for (live.ts): so it acts on all replicas at once, and a looser policy afterwards revives nothing.
// Housekeeping then goes through the sessions in batches: it ends, with audit row and word to the apps, what the stricter
// limits or networks have ended, and writes the limits into the others. When none is left, the row goes. A session that was
// used for several organisations is held to each of them.
import type { Actor } from '../audit/events.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { tellClientsInBundles } from '../deliveries/logouts.ts'
import type { Policy } from '../organizations/policy.ts'
import type { FieldName } from '../organizations/strictness.ts'
import { inSteps } from '../steps.ts'
import { ringIfTold } from './ending.ts'
import { batchSize, logEndings, restFactor } from './expiry.ts'
import { begunFor, isLive, isUsedFor, overUnderChange } from './live.ts'
import { sessionLimits } from './policy.ts'

// What an earlier change asked for is part of a later one that is as strict.
const remember = `with covered as (delete from mlpipes_auth.session_tightenings
      where organization_id = $1 and idle_seconds >= $2 and absolute_seconds >= $3 and allowed_cidrs is null
        and (max_concurrent is null or max_concurrent >= $5))
    insert into mlpipes_auth.session_tightenings (organization_id, idle_seconds, absolute_seconds, allowed_cidrs, max_concurrent,
      changed_by, changed_at)
    values ($1, $2, $3, $4::text[]::cidr[], $5, $6::jsonb, clock_timestamp())`
/**
 * Writes down which sessions are too many: of each person in `many` (id of the organisation, most, account_id) the oldest of
 * those that are live under all changes, that of now included.
 */
const markSurplus = (many: string) => `with many as (${many}), marked as (
      update mlpipes_auth.sessions s set surplus_in = array_append(s.surplus_in, placed.id)
      from (
        select many.id, many.most, theirs.uid, theirs.place from many cross join lateral (
          select s.uid, row_number() over (order by s.signed_in_at desc, s.created_at desc, s.uid desc) as place
          from mlpipes_auth.sessions s where s.account_id = many.account_id and s.signed_in_at is not null
            and ${isUsedFor('many.id')} and ${isLive}
        ) as theirs
      ) as placed where s.uid = placed.uid and placed.place > placed.most
      returning placed.id as organization_id
    )`
// Who has too many to begin with: few or nobody, so that the rest is not looked at.
const surplusOfChange = `${markSurplus(`select $1::text as id, $2::integer as most, account_id from (
        select account_id from mlpipes_auth.sessions where organization_id = $1 and ended_at is null
        union all select s.account_id from mlpipes_auth.session_organizations o
          join mlpipes_auth.sessions s on s.uid = o.session_uid
          where o.organization_id = $1 and s.organization_id is distinct from $1 and s.ended_at is null
      ) as theirs where account_id is not null group by account_id having count(*) > $2::integer`)}
    select count(*) from marked`
// Of requests that had read the policy of before: only people who have a session as young as that.
const surplusOfNew = `${markSurplus(`select distinct p.id, p.most, t.account_id
        from unnest($1::text[], $2::integer[]) as p (id, most) join mlpipes_auth.sessions t on t.organization_id = p.id
        where t.ended_at is null and t.account_id is not null and t.created_at > now() - make_interval(secs => $5::integer)`)}
    insert into mlpipes_auth.session_tightenings (organization_id, idle_seconds, absolute_seconds, max_concurrent, changed_at)
      select p.id, p.idle, p.absolute, p.most, clock_timestamp()
      from unnest($1::text[], $2::integer[], $3::integer[], $4::integer[]) as p (id, most, idle, absolute)
      where p.id in (select organization_id from marked)`

export interface Tightening {
  readonly organizationId: string
  readonly policy: Policy
  /** What of the policy got stricter. */
  readonly stricter: readonly FieldName[]
  readonly actor: Actor
}

/** What of a policy, when it gets stricter, ends open sessions; everything else is asked of the policy at each use. */
export const sessionFields: readonly FieldName[] = [
  'session.idleTimeout',
  'session.absoluteLifetime',
  'session.maxConcurrent',
  'network.allowedCidrs',
]

/** Holds the open sessions of an organisation to a policy that got stricter. Belongs into the transaction that changes it. */
export async function tightenSessions(tx: Tx, tightening: Tightening): Promise<void> {
  const { organizationId, policy, stricter, actor } = tightening
  const { idleSeconds, absoluteSeconds } = sessionLimits(policy)
  const networks = stricter.includes('network.allowedCidrs') ? (policy.network.allowedCidrs ?? []) : null
  const concurrent = stricter.includes('session.maxConcurrent') ? policy.session.maxConcurrent : null
  const limits = [idleSeconds, absoluteSeconds, networks, concurrent]
  await runIn(tx, remember, [organizationId, ...limits, JSON.stringify(actor)])
  if (concurrent !== null) await runIn(tx, surplusOfChange, [organizationId, concurrent])
}

const isOpen = 's.ended_at is null and s.signed_in_at is not null'
/** @param held with idle and absolute, in seconds */
const exceeds = (held: string) => `(s.idle_seconds is null or s.idle_seconds > ${held}.idle_seconds
        or s.absolute_seconds > ${held}.absolute_seconds
        or s.idle_expires_at > s.last_activity_at + make_interval(secs => ${held}.idle_seconds)
        or s.absolute_expires_at > s.signed_in_at + make_interval(secs => ${held}.absolute_seconds))`
/** @param held the same, of the session `s` */
const lowered = (held: string) => `idle_seconds = least(s.idle_seconds, ${held}.idle_seconds),
      absolute_seconds = least(s.absolute_seconds, ${held}.absolute_seconds),
      idle_expires_at = least(s.idle_expires_at, s.last_activity_at + make_interval(secs => ${held}.idle_seconds),
        s.signed_in_at + make_interval(secs => ${held}.absolute_seconds)),
      absolute_expires_at = least(s.absolute_expires_at, s.signed_in_at + make_interval(secs => ${held}.absolute_seconds))`

const lowerNew = `update mlpipes_auth.sessions s set ${lowered('held')}
    from (select uid, min(idle) as idle_seconds, min(absolute) as absolute_seconds from (
        select t.uid, p.idle, p.absolute from unnest($1::text[], $2::integer[], $3::integer[]) as p (id, idle, absolute)
          join mlpipes_auth.sessions t on t.organization_id = p.id and t.ended_at is null
          where t.created_at > now() - make_interval(secs => $4::integer)
        union all
        select o.session_uid, p.idle, p.absolute from unnest($1::text[], $2::integer[], $3::integer[]) as p (id, idle, absolute)
          join mlpipes_auth.session_organizations o on o.organization_id = p.id
          join mlpipes_auth.sessions t on t.uid = o.session_uid and t.ended_at is null
          where t.created_at > now() - make_interval(secs => $4::integer)
      ) as each_one group by uid) as held
    where s.uid = held.uid and ${isOpen} and ${exceeds('held')}`

export interface OrganizationPolicy {
  readonly id: string
  readonly policy: Policy
}

function limitsOf(organizations: readonly OrganizationPolicy[]): unknown[] {
  const limits = organizations.map(({ policy }) => sessionLimits(policy))
  return [
    organizations.map(({ id }) => id),
    limits.map((limit) => limit.idleSeconds),
    limits.map((limit) => limit.absoluteSeconds),
  ]
}

/** Holds sessions that are younger than so many seconds to the policies of now. */
export async function holdNewSessions(
  tx: Tx,
  organizations: readonly OrganizationPolicy[],
  newerThanSeconds: number,
): Promise<void> {
  await runIn(tx, lowerNew, [...limitsOf(organizations), newerThanSeconds])
  const limited = organizations.filter(({ policy }) => policy.session.maxConcurrent !== null)
  if (limited.length === 0) return
  const [ids, idle, absolute] = limitsOf(limited)
  const most = limited.map(({ policy }) => policy.session.maxConcurrent)
  await runIn(tx, surplusOfNew, [ids, most, idle, absolute, newerThanSeconds])
}

// One row for each organisation that has a session which lasts longer than it may, unless such a row is there.
const outgrown = `insert into mlpipes_auth.session_tightenings (organization_id, idle_seconds, absolute_seconds)
    select p.id, p.idle, p.absolute from unnest($1::text[], $2::integer[], $3::integer[]) as p (id, idle, absolute)
    where exists (select from mlpipes_auth.sessions s where s.organization_id = p.id and ${isOpen}
        and (s.idle_seconds > p.idle or s.absolute_seconds > p.absolute))
      and not exists (select from mlpipes_auth.session_tightenings t where t.organization_id = p.id
        and t.idle_seconds <= p.idle and t.absolute_seconds <= p.absolute)`

/** Holds all open sessions to policies that got stricter while nobody changed them: by a configuration of the platform. */
export async function holdToPlatform(tx: Tx, organizations: readonly OrganizationPolicy[]): Promise<void> {
  await runIn(tx, outgrown, limitsOf(organizations))
}

const pending = 'select organization_id from mlpipes_auth.session_tightenings group by organization_id order by min(id)'
// Planned once, and to be read in the order of the index: a plan for organisations of middling size reads all of a very large
// one and sorts it, for each batch.
const lock = `select pg_try_advisory_xact_lock(hashtext('mlpipes_auth.session_tightening')) as mine,
    set_config('enable_bitmapscan', 'off', true)`
// All changes that wait for a session; what began after a change began under it.
const held = `select min(t.idle_seconds) as idle_seconds, min(t.absolute_seconds) as absolute_seconds, min(t.reason) as reason,
        (array_agg(t.changed_by) filter (where t.reason in ('network', 'max_concurrent')))[1] as changed_by
      from (select t.idle_seconds, t.absolute_seconds, t.changed_by, ${overUnderChange} as reason from mlpipes_auth.session_tightenings t
        where t.organization_id = $1 and t.changed_at >= s.created_at) as t`
const isDue = `${isOpen} and (${exceeds('held')} or held.reason is not null)`
const heldColumns = 'held.idle_seconds, held.absolute_seconds, held.reason, held.changed_by'
// Walked from the oldest sign-in, which has the least left. What somebody holds at the moment is passed by, and found again
// at the end (`isLeft`): waiting for it here would be in another order than that in which uses lock them. What is locked stays
// where it is, so the update finds it there and not by its key.
const own = `select s.uid, s.ctid, s.signed_in_at as at, ${heldColumns} from mlpipes_auth.sessions s cross join lateral (${held}) as held
      where s.organization_id = $1 and ${isDue} and (s.signed_in_at, s.uid) > ($2::timestamptz, $3::text)
      order by s.signed_in_at, s.uid limit ${batchSize} for no key update of s skip locked`
const others = `select s.uid, s.ctid, timestamptz '-infinity' as at, ${heldColumns} from mlpipes_auth.session_organizations o
        join mlpipes_auth.sessions s on s.uid = o.session_uid cross join lateral (${held}) as held
      where o.organization_id = $1 and ${isDue} and $2::timestamptz is not null and o.session_uid > $3::text
      order by o.session_uid limit ${batchSize} for no key update of s skip locked`
const step = (page: string) => `with page as materialized (${page}),
    written as (
      update mlpipes_auth.sessions s set ${lowered('page')},
        ended_at = case when page.reason is not null then now() end, end_reason = page.reason
      from page where s.ctid = page.ctid
      returning s.uid, s.account_id, s.organization_id, ${begunFor} as begun_for, s.payload, s.end_reason as cause,
        null::text as client_id, case when page.reason in ('network', 'max_concurrent') then page.changed_by end as changed_by
    ), parted as (select uid, account_id, organization_id, begun_for, payload, cause, client_id, changed_by from written where cause is not null),
    ${tellClientsInBundles}, ${logEndings}
    select at::text as at, uid, (select count(*) from page)::integer as count, (select count(*) from told)::integer as told
      from page order by page.at desc, page.uid desc limit 1`
const walks = [step(own), step(others)]

// Asked again, of everything at once: a session that somebody held, or that went from one walk to the other, is found here.
const isLeft = (sessions: string) => `exists (select from ${sessions} where ${isOpen} and t.changed_at >= s.created_at
      and (${exceeds('t')} or ${overUnderChange} is not null)`
const finish = `delete from mlpipes_auth.session_tightenings t where t.organization_id = $1
    and not ${isLeft('mlpipes_auth.sessions s')} and s.organization_id = $1)
    and not ${isLeft('mlpipes_auth.session_organizations o join mlpipes_auth.sessions s on s.uid = o.session_uid')} and o.organization_id = $1)`

/**
 * Goes through the sessions of changes that wait, in batches. Whatever stops it, the next one begins anew with what is left.
 * What fails for one organisation keeps no other waiting.
 * @param goesOn asked before each batch
 * @throws what failed first
 */
export async function finishTightenings(database: Database, goesOn: () => boolean = () => true): Promise<void> {
  const failures: unknown[] = []
  for (const row of await database.run(pending, []))
    await finishOne(database, String(row['organization_id']), goesOn).catch((error: unknown) => failures.push(error))
  if (failures.length > 0) throw failures[0]
}

async function finishOne(database: Database, organizationId: string, goesOn: () => boolean): Promise<void> {
  for (const walk of walks) if (!(await walkAll(database, walk, organizationId, goesOn))) return
  // What somebody held meanwhile is taken at the next round.
  await database.run(finish, [organizationId])
}

/** @returns false when it was stopped, or another replica is at it */
async function walkAll(
  database: Database,
  walk: string,
  organizationId: string,
  goesOn: () => boolean,
): Promise<boolean> {
  let place: readonly unknown[] = ['-infinity', '']
  let isMine = true
  const isDone = await inSteps({ restFactor, goesOn }, async () => {
    const rows = await transact(database.kysely, (tx) => walkSome(tx, walk, [organizationId, ...place]))
    isMine = rows !== undefined
    const [last] = rows ?? []
    if (last) place = [last['at'], last['uid']]
    return last?.['count'] === batchSize
  })
  return isDone && isMine
}

async function walkSome(tx: Tx, walk: string, values: readonly unknown[]): Promise<Row[] | undefined> {
  const [answer] = await runIn(tx, lock, [])
  if (answer?.['mine'] !== true) return undefined
  const rows = await runIn(tx, walk, values)
  ringIfTold(tx, rows)
  return rows
}
