// A change of an organisation's policy, with all that follows from it, in one transaction: sessions that are open are held to
// the stricter limits at once, those that are used from outside its networks end, and whoever listens is told.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, Origin } from '../audit/events.ts'
import { runIn, type Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { endedEvent, endSessionsWhere, ringIfTold } from '../sessions/ending.ts'
import { tightenSessions } from '../sessions/tightening.ts'
import { effectivePolicy, type Platform, type Policy, type PolicyInput, policySchema } from './policy.ts'
import { comparePolicies, type PolicyChange } from './policy-order.ts'

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

/** What open sessions store of a policy (`sessionLimits`); everything else is asked of it at each use. */
const sessionLimitFields = ['session.idleTimeout', 'session.absoluteLifetime'] as const

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
  const details = { stricter: [...change.stricter], looser: [...change.looser] }
  const common = { outcome: 'success' as const, actor, organizationId, clientId, origin }
  await appendAudit(tx, { ...common, name: 'policy.updated', details })
  await enqueueWebhooks(tx, organizationId, { type: 'policy.updated', data: details })
  // A session of another organisation that was used for this one is held to it too, and apps of others hear of an ending.
  const act = async () => {
    if (sessionLimitFields.some((field) => change.stricter.includes(field)))
      await tightenSessions(tx, organizationId, policy)
    await endOutside(tx, change, policy, changing)
  }
  await (changing.isConfined ? beyond(tx, organizationId, act) : act())
  return { written, version: Number(changed['version']) }
}

const endOutsideRanges = endSessionsWhere(
  `organization_id = $2 and signed_in_at is not null and (ip is null or not (ip <<= any($3::text[]::cidr[])))`,
)

/**
 * Every use of them is refused already. A session of another organisation goes on there, though not with apps of this one.
 */
async function endOutside(
  tx: Tx,
  change: PolicyChange,
  { network }: Policy,
  { organizationId, actor, clientId, origin }: PolicyChanging,
): Promise<void> {
  if (!change.stricter.includes('network.allowedCidrs')) return
  const cause = 'network' as const
  const rows = await runIn(tx, endOutsideRanges, [cause, organizationId, network.allowedCidrs ?? []])
  if (rows.length === 0) return
  await appendAudit(tx, ...rows.map((row) => endedEvent(row, { actor, origin, organizationId, cause })), {
    name: 'access.ended',
    outcome: 'success',
    actor,
    organizationId,
    clientId,
    origin,
    details: { cause, sessions: rows.length, tokens: 0 },
  })
  ringIfTold(tx, rows)
}
