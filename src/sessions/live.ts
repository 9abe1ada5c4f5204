// When a session is over, in SQL: past the limits that it stores, or under a policy that got stricter and that housekeeping
// has still to write into it (tightening.ts). Every read of a live session asks both, so that a change acts on all replicas
// from its commit on, however many sessions it is about. The session is `s` in all of these.

/** Whether a session is one of the organisation `id`, or was used for it. */
export const isUsedFor = (id: string, session = 's') =>
  `(${session}.organization_id = ${id} or exists (select from mlpipes_auth.session_organizations x
      where x.session_uid = ${session}.uid and x.organization_id = ${id}))`

/** The organisation that a session was begun for, whatever organisation a sign-in moved it to since. */
export const begunFor = 'coalesce(s.begun_for, s.organization_id)'

/** Whether the networks of the change `t` leave out where a session is. One of another organisation goes on there. */
const isOutside = (session: string) => `(t.organization_id = ${session}.organization_id
      and (t.allowed_cidrs is not null and ${session}.ip is null or not (${session}.ip <<= any(t.allowed_cidrs))))`

const newerOf = (ended: string) => `select from mlpipes_auth.sessions n
      where n.account_id = s.account_id and ${ended} and n.signed_in_at is not null and n.created_at <= t.changed_at
        and (n.signed_in_at, n.created_at, n.uid) > (s.signed_in_at, s.created_at, s.uid)
        and least(n.idle_expires_at, n.absolute_expires_at, n.last_activity_at + make_interval(secs => t.idle_seconds),
          n.signed_in_at + make_interval(secs => t.absolute_seconds)) > t.changed_at
        and ${isOutside('n')} is not true and ${isUsedFor('t.organization_id', 'n')}`
/**
 * How many of the person's sessions in that organisation began later, and were there at the change `t`: the oldest make room
 * then, and stay over when one of those ends before housekeeping has been there. What begins after the change makes room at
 * its own sign-in (concurrency.ts).
 */
const newer = `(select count(*) from (${newerOf('n.ended_at is null')} union all ${newerOf('n.ended_at > t.changed_at')}) as newer)`

/** Why it is over under the change `t`, or null. */
export const overUnderChange = `case
      when s.signed_in_at + make_interval(secs => t.absolute_seconds) <= now() then 'absolute'
      when s.last_activity_at + make_interval(secs => t.idle_seconds) <= now() then 'idle'
      when ${isOutside('s')} then 'network'
      when t.max_concurrent is not null and ${newer} >= t.max_concurrent then 'max_concurrent'
    end`

// What began after a change began under it. Hardly ever is there any such change.
const changes = `(select ${overUnderChange} as reason from mlpipes_auth.session_tightenings t
    where t.changed_at >= s.created_at and s.signed_in_at is not null and ${isUsedFor('t.organization_id')}) as change
    where change.reason is not null`

export const isLive = `s.ended_at is null and s.idle_expires_at > now() and s.absolute_expires_at > now() and not exists (select from ${changes})`

/** Why a session that is not live is over. */
export const overBecause = `coalesce(s.end_reason, case when s.absolute_expires_at <= now() then 'absolute'
      when s.idle_expires_at <= now() then 'idle' end,
    (select min(change.reason) from ${changes}))`
