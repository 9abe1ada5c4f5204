// When a session is over, in SQL: past the limits that it stores, or under a policy that got stricter and that housekeeping
// has still to write into it (tightening.ts). Every read of a live session asks both, so that a change acts on all replicas
// from its commit on, however many sessions it is about. The session is `s` in all of these.

/** Whether a session is one of the organisation `id`, or was used for it. */
export const isUsedFor = (id: string) =>
  `(s.organization_id = ${id} or exists (select from mlpipes_auth.session_organizations x
      where x.session_uid = s.uid and x.organization_id = ${id}))`

/** The organisation that a session was begun for, whatever organisation a sign-in moved it to since. */
export const begunFor = 'coalesce(s.begun_for, s.organization_id)'

/** Whether the networks of the change `t` leave out where it is. A session of another organisation goes on there. */
const isOutside = `(t.organization_id = s.organization_id
      and (t.allowed_cidrs is not null and s.ip is null or not (s.ip <<= any(t.allowed_cidrs))))`

/** Whether it was too many when the change `t` allowed fewer at once. What begins later makes room itself (concurrency.ts). */
const isSurplus = 't.organization_id = any(s.surplus_in)'

/** Why it is over under the change `t`, or null. */
export const overUnderChange = `case
      when s.signed_in_at + make_interval(secs => t.absolute_seconds) <= now() then 'absolute'
      when s.last_activity_at + make_interval(secs => t.idle_seconds) <= now() then 'idle'
      when ${isOutside} then 'network'
      when t.max_concurrent is not null and ${isSurplus} then 'max_concurrent'
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
