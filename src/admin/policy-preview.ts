// What a change of policy would do, counted without doing it: in the words of what happens to sessions that are open.
import { z } from 'zod'
import { type Row, runIn, type Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import type { Policy } from '../organizations/policy.ts'
import { comparePolicies, fieldsOf } from '../organizations/policy-order.ts'
import { fieldNames } from '../organizations/strictness.ts'
import { sessionLimits } from '../sessions/policy.ts'
import { fieldName, fieldValue, toFieldValue } from './policy-input.ts'

const count = z.number().int().nonnegative()

export const previewSchema = z
  .strictObject({
    changes: z.array(
      z.strictObject({
        field: fieldName,
        before: fieldValue,
        after: fieldValue,
        stricter: z.boolean().meta({ description: 'something that is allowed no longer would be' }),
        looser: z.boolean().meta({ description: 'something would be allowed that is not' }),
      }),
    ),
    sessions: z.strictObject({
      live: count.meta({ description: 'open now in this organisation, or used for it' }),
      end: z
        .strictObject({ idle: count, absolute: count, network: count, maxConcurrent: count, total: count })
        .meta({ description: 'would end at once, by the first of these that holds' }),
      stepUp: z
        .strictObject({ mfa: count, method: count })
        .meta({ description: 'would go on, and prove a second factor or sign in by another method at their next use' }),
    }),
    people: z.strictObject({
      active: count,
      withoutSecondFactor: count,
      askedToSetUp: count.meta({ description: 'would be asked for a second factor that they have to set up first' }),
    }),
  })
  .meta({ id: 'PolicyPreview' })

// Each session falls under the first rule that holds: those of sessions/policy.ts, which a test holds this against. A query in
// brackets is asked once and not for each session.
const since = (seconds: string) => `(select now() - make_interval(secs => ${seconds}::integer))`
const verdictOf = (isOwn: boolean, columns: string) => `select ${columns} case
        when s.signed_in_at <= ${since('$3')} then 'absolute'
        when s.last_activity_at <= ${since('$2')} then 'idle'
        when $4::boolean and ${isOwn} and (s.ip is null or not (s.ip <<= any($5::text[]::cidr[]))) then 'network'
        when $6::boolean and not (coalesce(s.amr, '[]') ?| $7::text[]) then 'method'
        when $8::boolean and not (coalesce(s.amr, '[]') ?| array['otp', 'backup_code']) then 'mfa'
      end as verdict`
// By the limits that they store: those that an earlier change has ended and housekeeping is about to are among them.
const live = `s.ended_at is null and s.signed_in_at is not null and s.idle_expires_at > now() and s.absolute_expires_at > now()`
// Those of the organisation's own are read out of their index, which has all that is asked (migration 0011).
const judged = (
  columns = '',
) => `${verdictOf(true, columns)} from mlpipes_auth.sessions s where s.organization_id = $1 and ${live}
    union all
    ${verdictOf(false, columns)} from mlpipes_auth.session_organizations o join mlpipes_auth.sessions s on s.uid = o.session_uid
      where o.organization_id = $1 and ${live}`
// Of each person as many go on as are allowed, the last that were begun; it takes the rows themselves to say whose they are.
const isEnded = `coalesce(verdict in ('absolute', 'idle', 'network'), false)`
const ranked = `select case when ${isEnded} or place <= $9::integer then verdict else 'max_concurrent' end as verdict
    from (select verdict, row_number() over (partition by account_id, ${isEnded}
        order by signed_in_at desc, created_at desc, uid desc) as place
      from (${judged('s.account_id, s.signed_in_at, s.created_at, s.uid,')}) as each_one) as placed`
const countSessions = (verdicts: string) =>
  `select count(*)::integer as live, ${['idle', 'absolute', 'network', 'max_concurrent', 'mfa', 'method']
    .map((verdict) => `count(*) filter (where verdict = '${verdict}')::integer as ${verdict}`)
    .join(', ')} from (${verdicts}) as judged`
const countJudged = countSessions(judged())
const countRanked = countSessions(ranked)

const hasFactor = `exists (select from mlpipes_auth.totp_credentials t
      where t.organization_id = a.organization_id and t.account_id = a.id and t.confirmed_at is not null)`
// All who have a factor stand in an index of their own; for the few of them who are disabled, and for guests, it is looked up.
const countPeople = `select sum(active)::integer as active, greatest(sum(active - proven), 0)::integer as without from (
      select count(*) filter (where a.disabled_at is null) as active,
        (select count(distinct t.account_id) from mlpipes_auth.totp_credentials t
          where t.organization_id = $1 and t.confirmed_at is not null)
          - count(*) filter (where a.disabled_at is not null and ${hasFactor}) as proven
      from mlpipes_auth.accounts a where a.organization_id = $1
      union all
      select count(*), count(*) filter (where ${hasFactor})
      from mlpipes_auth.memberships m join mlpipes_auth.accounts a on a.id = m.account_id and a.disabled_at is null
      where m.organization_id = $1 and not m.home
    ) as counted`

const proofs = { password: 'pwd', magic_link: 'magic_link' } as const

export async function previewPolicy(
  tx: Tx,
  organizationId: string,
  before: Policy,
  after: Policy,
): Promise<z.output<typeof previewSchema>> {
  const { stricter, looser } = comparePolicies(before, after)
  const { idleSeconds, absoluteSeconds } = sessionLimits(after)
  const asksForFactor = stricter.includes('mfa') && after.mfa === 'required'
  // Sessions of others that were used for this organisation are counted too: numbers, and nothing else of them.
  const { sessions = {}, people = {} } = await beyond(tx, organizationId, async () => {
    const limitsMore = stricter.includes('session.maxConcurrent')
    const [sessions] = await runIn(tx, limitsMore ? countRanked : countJudged, [
      organizationId,
      idleSeconds,
      absoluteSeconds,
      stricter.includes('network.allowedCidrs'),
      after.network.allowedCidrs ?? [],
      stricter.includes('loginMethods'),
      after.loginMethods.map((method) => proofs[method]),
      asksForFactor,
      ...(limitsMore ? [after.session.maxConcurrent] : []),
    ])
    const [people] = await runIn(tx, countPeople, [organizationId])
    return { sessions, people }
  })
  const [left, right] = [fieldsOf(before), fieldsOf(after)]
  const withoutSecondFactor = Number(people['without'])
  return {
    changes: fieldNames
      .map((field) => ({
        field,
        before: toFieldValue(left[field]),
        after: toFieldValue(right[field]),
        stricter: stricter.includes(field),
        looser: looser.includes(field),
      }))
      .filter((change) => change.stricter || change.looser),
    sessions: toSessions(sessions),
    people: {
      active: Number(people['active']),
      withoutSecondFactor,
      askedToSetUp: asksForFactor ? withoutSecondFactor : 0,
    },
  }
}

function toSessions(row: Row): z.output<typeof previewSchema>['sessions'] {
  const of = (verdict: string) => Number(row[verdict] ?? 0)
  const end = {
    idle: of('idle'),
    absolute: of('absolute'),
    network: of('network'),
    maxConcurrent: of('max_concurrent'),
  }
  const total = end.idle + end.absolute + end.network + end.maxConcurrent
  return { live: of('live'), end: { ...end, total }, stepUp: { mfa: of('mfa'), method: of('method') } }
}
