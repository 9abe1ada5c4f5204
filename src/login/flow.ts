// What comes next in a sign-in: one pure function of what is proven and what the policy asks. A method proves one
// thing; nothing but this decides that a sign-in is over.
import type { Policy } from '../organizations/policy.ts'

export type Factor = 'pwd' | 'otp'
export type Step = 'identify' | 'second_factor' | 'second_factor_missing' | 'done'

export interface Flow {
  readonly accountId: string | undefined
  readonly proved: readonly Factor[]
}

export interface Requirements {
  readonly mfa: Policy['mfa']
  /** Whether the account has a confirmed second factor. */
  readonly hasSecondFactor: boolean
}

export function nextStep(flow: Flow, requirements: Requirements): Step {
  if (flow.accountId === undefined || !flow.proved.includes('pwd')) return 'identify'
  if (flow.proved.includes('otp')) return 'done'
  // A factor that somebody turned on is asked for whatever the organisation's policy: MFA stands on the account.
  if (requirements.hasSecondFactor) return 'second_factor'
  return requirements.mfa === 'required' ? 'second_factor_missing' : 'done'
}

/** `amr` (RFC 8176) and `acr` of a finished sign-in. */
export function authenticationContext(proved: readonly Factor[]): { amr: string[]; acr: string } {
  const isMfa = proved.includes('pwd') && proved.includes('otp')
  return {
    amr: isMfa ? [...proved, 'mfa'] : [...proved],
    acr: isMfa ? 'urn:mlpipes:acr:mfa' : 'urn:mlpipes:acr:password',
  }
}
