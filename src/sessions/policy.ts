// Session limits: what an organisation's policy and a session's times say. Pure.
import type { Policy } from '../organizations/policy.ts'

export interface SessionLimits {
  readonly idleSeconds: number
  readonly absoluteSeconds: number
}

/** Limits of a session that nobody has signed in to yet: it only carries a logout's state. */
export const anonymousLimits: SessionLimits = { idleSeconds: 900, absoluteSeconds: 900 }

export function sessionLimits(policy: Policy): SessionLimits {
  return {
    idleSeconds: Math.min(policy.session.idleTimeout, policy.session.absoluteLifetime),
    absoluteSeconds: policy.session.absoluteLifetime,
  }
}
