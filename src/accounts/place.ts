// Where somebody acts: which of the organisations that they belong to a sign-in or a token is for. Pure.
import type { Policy } from '../organizations/policy.ts'
import { stricterPolicy } from '../organizations/policy-order.ts'

/** A place in an organisation that is open. */
export interface Membership {
  readonly organization: { readonly id: string; readonly slug: string; readonly name: string }
  /** Whether this organisation manages the account; in others the person is a guest. */
  readonly home: boolean
  readonly roles: readonly string[]
  /** Effective policy of the organisation alone. */
  readonly policy: Policy
}

/** What is known of where a sign-in leads. */
export interface Place {
  /** What the app asked for with `organization=`. */
  readonly requestedSlug?: string | undefined
  /** What the person chose in this sign-in. */
  readonly chosenId?: string | undefined
  /** The organisation that the live session of this browser is in. */
  readonly sessionOrganizationId?: string | undefined
  /** The organisation of the app; our own pages belong to none. */
  readonly client?: ClientPlace | undefined
}

export interface ClientPlace {
  readonly organizationId: string
  readonly policy: Policy
}

export type Decision =
  | { readonly kind: 'in'; readonly membership: Membership }
  /** The person belongs to several, and nothing says which: they choose. */
  | { readonly kind: 'choose'; readonly among: readonly Membership[] }
  /** The app asked for an organisation that the person does not belong to. */
  | { readonly kind: 'foreign' }

/**
 * Decides the organisation: what the app names, else what the person chose, else the app's own, else that of the
 * session, else the only one. Somebody of several is asked.
 * @param memberships at least one; a person has a home
 */
export function decideOrganization(memberships: readonly Membership[], place: Place): Decision {
  const byId = (id: string | undefined) => memberships.find(({ organization }) => organization.id === id)
  if (place.requestedSlug !== undefined) {
    const named = memberships.find(({ organization }) => organization.slug === place.requestedSlug)
    return named ? { kind: 'in', membership: named } : { kind: 'foreign' }
  }
  const known = byId(place.chosenId) ?? byId(place.client?.organizationId) ?? byId(place.sessionOrganizationId)
  if (known) return { kind: 'in', membership: known }
  const [only, ...others] = memberships
  if (only && others.length === 0) return { kind: 'in', membership: only }
  // Our own pages are about the account, not about an organisation.
  const home = memberships.find((membership) => membership.home)
  if (place.client === undefined && home) return { kind: 'in', membership: home }
  return memberships.length === 0 ? { kind: 'foreign' } : { kind: 'choose', among: memberships }
}

// Effective policies are few and live long; the lists of networks in a combined one are built once for each pair.
const combined = new WeakMap<Policy, WeakMap<Policy, Policy>>()

/**
 * The policy that holds for somebody of an organisation in an app: also that of the app's organisation, so that a sign-in
 * under a weak policy gives nothing in an organisation with a strong one.
 */
export function policyIn(
  { organization, policy }: Pick<Membership, 'organization' | 'policy'>,
  client: ClientPlace | undefined,
): Policy {
  if (client === undefined || client.organizationId === organization.id) return policy
  const known = combined.get(policy)?.get(client.policy)
  if (known) return known
  const both = stricterPolicy(policy, client.policy)
  const others = combined.get(policy) ?? new WeakMap<Policy, Policy>()
  combined.set(policy, others.set(client.policy, both))
  return both
}
