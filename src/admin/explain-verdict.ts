// What holds for a person, session or token, and what of it is not met. Pure.

import { isOutlived } from '../oidc/token-age.ts'
import { explainPolicy, type PolicySource } from '../organizations/explain.ts'
import { isAddressAllowed } from '../organizations/network.ts'
import type { Policies } from '../organizations/organizations.ts'
import { type Platform, type Policy, policyFor } from '../organizations/policy.ts'
import { stricterPolicy } from '../organizations/policy-order.ts'
import { type FieldName, fieldNames } from '../organizations/strictness.ts'
import { breachOf, sessionLimits, sessionState } from '../sessions/policy.ts'
import type { ExplainedOrganization, ExplainedPerson, ExplainedSession, ExplainedToken } from './explain-store.ts'
import { type FieldValue, toFieldValue } from './policy-input.ts'

export const rules = [
  'floor',
  'platform default',
  'organisation',
  'profile',
  'other membership',
  'client organisation',
  'administrator',
] as const

/** Why something does not stand. */
export const reasons = [
  'account',
  'organization',
  'client',
  'ended',
  'idle',
  'absolute',
  'method',
  'mfa',
  'network',
  'expired',
  'consumed',
  'grant',
] as const
export type Reason = (typeof reasons)[number]

export interface ExplainedField {
  readonly field: FieldName
  readonly value: FieldValue
  readonly rule: (typeof rules)[number]
  readonly because: string | null
  readonly decidedBy: string[]
  readonly written: FieldValue | null
}

export interface Held {
  readonly fields: ExplainedField[]
  /** The same as one policy, to hold a sign-in against. */
  readonly policy: Policy
}

interface Holding {
  readonly platform: Platform
  readonly policies: Policies
  /** Whose explanation it is. */
  readonly organizationId: string
  /** All that are named below. */
  readonly organizations: readonly ExplainedOrganization[]
  readonly person: ExplainedPerson | undefined
  /** Organisations whose whole policy holds as well. */
  readonly places: readonly string[]
  /** Those whose limits hold as well, because the session was used for them. */
  readonly usedFor: readonly string[]
}

/** A session is held to these of every organisation that it was used for; to the rest where it is used. */
const limits: ReadonlySet<FieldName> = new Set(['session.idleTimeout', 'session.absoluteLifetime'])

export function whatHolds(holding: Holding): Held {
  const { platform, policies, organizationId, organizations, person } = holding
  const own = organizations.find(({ id }) => id === organizationId)?.input ?? {}
  const others = (ids: readonly string[]) =>
    organizations.filter(({ id }) => id !== organizationId && ids.includes(id)).map((one) => toSource(one, person))
  const whole = explainPolicy(own, platform, others(holding.places))
  const limited = explainPolicy(own, platform, others(holding.usedFor))
  const inputs = [own, ...others(holding.places).map(({ input }) => input)]
  const policy = inputs.map(policies).reduce(stricterPolicy)
  const isAdministrator = person?.isAdministrator ?? false
  return {
    fields: fieldNames.map((name) => toField(name, limits.has(name) ? limited[name] : whole[name], isAdministrator)),
    policy: policyFor(policy, { isAdministrator }),
  }
}

function toSource({ id, slug, input }: ExplainedOrganization, person: ExplainedPerson | undefined): PolicySource {
  const rule = person?.belongsTo.includes(id) ? 'other membership' : 'client organisation'
  return { rule, organizationSlug: slug, input }
}

type Explained = ReturnType<typeof explainPolicy>[FieldName]

function toField(field: FieldName, explained: Explained, isAdministrator: boolean): ExplainedField {
  const { value, rule, because = null, decidedBy } = explained
  const written = explained.written === undefined ? null : toFieldValue(explained.written)
  if (field === 'mfa' && value === 'off' && isAdministrator) {
    const reason = 'whoever administers may always set up a second factor'
    return { field, value: 'optional', rule: 'administrator', because: reason, decidedBy: [], written }
  }
  return { field, value: toFieldValue(value), rule, because, decidedBy: [...decidedBy], written }
}

/** Why a session does not stand in the organisation; undefined when it does. */
export function sessionReason(
  session: ExplainedSession,
  person: ExplainedPerson | undefined,
  { policy }: Held,
): Reason | undefined {
  if (session.endedAt) return 'ended'
  const state = sessionState(session, sessionLimits(policy), session.readAt)
  if (state !== 'live') return state
  if (!person || person.barred) return person?.barred ?? 'account'
  return breachOf({ amr: session.amr, isPlaceAllowed: isAddressAllowed(policy, session.ip) }, policy)
}

/** Why a token is not active, in the order in which introspection would find it. */
export function tokenReason(
  token: ExplainedToken,
  person: ExplainedPerson | undefined,
  session: ExplainedSession | undefined,
  { policy }: Held,
): Reason | undefined {
  if (token.isExpired) return 'expired'
  if (token.isConsumed) return 'consumed'
  if (!token.client.isEnabled) return 'client'
  if (token.accountId === undefined) return undefined
  if (!token.hasGrant) return 'grant'
  if (!person || person.barred) return person?.barred ?? 'account'
  const bound = token.endsWithSession ? session : undefined
  if (token.endsWithSession && token.sessionUid !== undefined && !bound) return 'ended'
  if (bound?.endedAt) return 'ended'
  if (bound && bound.readAt >= bound.absoluteExpiresAt) return 'absolute'
  if (bound && bound.readAt >= bound.idleExpiresAt) return 'idle'
  if (isOutlived(token, policy, Math.floor(token.readAt.getTime() / 1000))) return 'expired'
  const amr = token.amr ?? bound?.amr
  return amr && breachOf({ amr, isPlaceAllowed: !bound || isAddressAllowed(policy, bound.ip) }, policy)
}
