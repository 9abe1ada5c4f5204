// A change of an organisation's policy, with all that follows from it, in one transaction: from its commit on, open sessions
// are held to the stricter limits and networks, and whoever listens is told.
import { appendAudit } from '../audit/audit.ts'
import { type Actor, type Origin, policySetting } from '../audit/events.ts'
import { runIn, type Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { sessionFields, tightenSessions } from '../sessions/tightening.ts'
import { effectivePolicy, type Platform, type PolicyInput, policySchema } from './policy.ts'
import { comparePolicies } from './policy-order.ts'
import { type FieldName, fieldNames } from './strictness.ts'

export interface PolicyChanging {
  readonly organizationId: string
  /** The version that the change is meant for; undefined for whichever stands. */
  readonly expectedVersion?: number | undefined
  /** What is to stand, out of what stands. Its throw refuses the change. */
  next(before: PolicyInput): PolicyInput
  /** Whether the transaction is confined to the organisation; what is ended and told reaches further. */
  readonly isConfined: boolean
  readonly platform: Platform
  readonly actor: Actor
  readonly clientId?: string | undefined
  readonly origin: Origin
}

export interface ChangedPolicy {
  readonly written: PolicyInput
  readonly version: number
}

const hold = `select policy, version from mlpipes_auth.organizations
    where id = $1 and ($2::integer is null or version = $2) for no key update`
const write = `update mlpipes_auth.organizations set policy = $2::jsonb, updated_at = now()
    where id = $1 and policy is distinct from $2::jsonb returning version`

/**
 * Changes a policy.
 * @returns undefined when the organisation is not there in this version
 */
export async function changePolicy(tx: Tx, changing: PolicyChanging): Promise<ChangedPolicy | undefined> {
  const { organizationId, expectedVersion, platform, actor, clientId, origin } = changing
  const [row] = await runIn(tx, hold, [organizationId, expectedVersion ?? null])
  if (!row) return undefined
  const before = policySchema.parse(row['policy'])
  const written = changing.next(before)
  const [changed] = await runIn(tx, write, [organizationId, JSON.stringify(written)])
  if (!changed) return { written, version: Number(row['version']) }
  const policy = effectivePolicy(written, platform)
  const change = comparePolicies(effectivePolicy(before, platform), policy)
  const data = { stricter: [...change.stricter], looser: [...change.looser] }
  const common = { outcome: 'success' as const, actor, organizationId, clientId, origin }
  await appendAudit(tx, {
    ...common,
    name: 'policy.updated',
    details: { ...data, ...writtenBeforeAndAfter(before, written) },
  })
  await enqueueWebhooks(tx, organizationId, { type: 'policy.updated', data })
  if (change.stricter.some((field) => sessionFields.includes(field))) {
    const tighten = () => tightenSessions(tx, { organizationId, policy, stricter: change.stricter, actor })
    await (changing.isConfined ? beyond(tx, organizationId, tighten) : tighten())
  }
  return { written, version: Number(changed['version']) }
}

/** The fields that are written otherwise now, so that the log alone says what was written at any time. */
function writtenBeforeAndAfter(before: PolicyInput, after: PolicyInput) {
  const changed = fieldNames.filter(
    (name) => JSON.stringify(writtenOf(before, name)) !== JSON.stringify(writtenOf(after, name)),
  )
  const of = (policy: PolicyInput) => Object.fromEntries(changed.map((name) => [name, writtenOf(policy, name)]))
  return { before: of(before), after: of(after) }
}

/** A null that was written is "no limit"; what was not written at all is null in the log. */
function writtenOf(policy: PolicyInput, name: FieldName) {
  const written = name.split('.').reduce<unknown>((here, part) => Reflect.get(Object(here), part), policy)
  return policySetting.parse(written === null ? 'none' : (written ?? null))
}
