// Session limits: what an organisation's policy of today says about a session's times. Pure.
import type { Policy } from '../organizations/policy.ts'

export interface SessionLimits {
  readonly idleSeconds: number
  readonly absoluteSeconds: number
}

/** Limits of a session that nobody has signed in to yet: it only carries a logout's state. */
export const anonymousLimits: SessionLimits = { idleSeconds: 900, absoluteSeconds: 900 }

export function sessionLimits(policy: Pick<Policy, 'session'>): SessionLimits {
  return {
    idleSeconds: Math.min(policy.session.idleTimeout, policy.session.absoluteLifetime),
    absoluteSeconds: policy.session.absoluteLifetime,
  }
}

export interface SessionTimes {
  readonly signedInAt: Date
  readonly lastActivityAt: Date
  /** What was promised when it was written: the policy of then. */
  readonly idleExpiresAt: Date
  readonly absoluteExpiresAt: Date
}

/**
 * Whether a session still stands. The stricter of the policy then and the policy now decides, so that tightening acts
 * at once and loosening never revives (SP 800-63B-4 §5.2: on either time-out the session is over).
 */
export function sessionState(times: SessionTimes, limits: SessionLimits, now: Date): 'live' | 'idle' | 'absolute' {
  const at = now.getTime()
  const absoluteEnd = Math.min(
    times.absoluteExpiresAt.getTime(),
    times.signedInAt.getTime() + limits.absoluteSeconds * 1000,
  )
  const idleEnd = Math.min(times.idleExpiresAt.getTime(), times.lastActivityAt.getTime() + limits.idleSeconds * 1000)
  if (at >= absoluteEnd) return 'absolute'
  return at >= idleEnd ? 'idle' : 'live'
}

/** What a session that is there is held to: another organisation may have made it shorter than the policy of this use. */
type Held = Pick<SessionTimes, 'lastActivityAt' | 'idleExpiresAt' | 'absoluteExpiresAt'>

/**
 * How many seconds after the last activity the next is written down: `updateAge`, or half the idle limit where that is less.
 * Otherwise somebody who is there all the time would be signed out before anything is written.
 */
export function activityStepSeconds(policy: Pick<Policy, 'session'>, held?: Held): number {
  const half = Math.min(sessionLimits(policy).idleSeconds, held ? idleSecondsOf(held) : Infinity) / 2
  return Math.min(policy.session.updateAge, Math.floor(half))
}

/** An idle limit that the absolute one cuts short says nothing, and nothing can extend it. */
function idleSecondsOf({ lastActivityAt, idleExpiresAt, absoluteExpiresAt }: Held): number {
  return idleExpiresAt < absoluteExpiresAt ? (idleExpiresAt.getTime() - lastActivityAt.getTime()) / 1000 : Infinity
}

/** Whether a use of a session is to be written down as activity: once per step, and only where activity extends it at all. */
export function isActivityDue(held: Held, policy: Pick<Policy, 'session'>, now: Date): boolean {
  const seconds = (now.getTime() - held.lastActivityAt.getTime()) / 1000
  return policy.session.extendOnActivity && seconds >= activityStepSeconds(policy, held)
}

/** What a policy finds wanting in how somebody signed in, and from where. */
export type PolicyBreach = 'method' | 'mfa' | 'network'

export interface SignInFacts {
  /** What was proven (RFC 8176, and our magic_link and backup_code). */
  readonly amr: readonly string[]
  /** Whether the network of the policy holds the place that the person acts from (organizations/network.ts). */
  readonly isPlaceAllowed: boolean
}

const secondFactors = ['otp', 'backup_code']

/**
 * Whether what was proven, and from where, still does under a policy of now: at sign-in, at single sign-on, at refresh, at
 * userinfo and at introspection. A policy that got stricter acts on what was issued before.
 */
export function breachOf(facts: SignInFacts, policy: Policy): PolicyBreach | undefined {
  const { amr } = facts
  if (!facts.isPlaceAllowed) return 'network'
  const methods: readonly string[] = policy.loginMethods
  const hasFirst =
    (amr.includes('pwd') && methods.includes('password')) ||
    (amr.includes('magic_link') && methods.includes('magic_link'))
  if (!hasFirst) return 'method'
  return policy.mfa === 'required' && !secondFactors.some((factor) => amr.includes(factor)) ? 'mfa' : undefined
}
