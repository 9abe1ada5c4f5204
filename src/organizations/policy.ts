// Organisation policy: its shape, as it is written and as it is in effect. Pure. Which way a field is stricter and what
// holds it is strictness.ts; what decides each field is policy-decisions.ts; who is told why is explain.ts.
import { z } from 'zod'
import { type Decision, decidePolicy } from './policy-decisions.ts'
import { policyOf } from './policy-order.ts'
import { passwordLengthFloor } from './policy-passwords.ts'
import { type FieldName, fieldNames, type PolicyFields, policyTable } from './strictness.ts'

const seconds = (max: number) => z.number().int().min(1).max(max)
const yearSeconds = 31_536_000
const notARange = 'must be a range of addresses with its length, such as 10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/32'
const passwordProfiles = ['hipaa', 'nist-800-63b-4', 'pci-4.0.1', 'custom'] as const
export type PasswordProfile = (typeof passwordProfiles)[number]

export const policySchema = z.strictObject({
  session: z
    .strictObject({
      idleTimeout: seconds(yearSeconds),
      absoluteLifetime: seconds(yearSeconds),
      updateAge: seconds(86_400),
      extendOnActivity: z.boolean(),
      maxConcurrent: z.number().int().min(1).max(1_000).nullable(),
    })
    .partial()
    .optional(),
  mfa: z.enum(['off', 'optional', 'required']).optional(),
  loginMethods: z
    .array(z.enum(['password', 'magic_link']))
    .min(1)
    .max(2)
    .optional(),
  password: z
    .strictObject({
      profile: z.enum(passwordProfiles),
      minLength: z.number().int().min(passwordLengthFloor).max(256),
      requireComplexity: z.boolean(),
      historyCount: z.number().int().min(0).max(24),
      maxAgeDays: z.number().int().min(1).max(3_650).nullable(),
    })
    .partial()
    .optional(),
  tokens: z
    .strictObject({ accessTokenTtl: seconds(3_600), refreshTokenTtl: seconds(yearSeconds) })
    .partial()
    .optional(),
  network: z
    .strictObject({ allowedCidrs: z.array(z.union([z.cidrv4(), z.cidrv6()], notARange)).max(200) })
    .partial()
    .optional(),
  audit: z
    .strictObject({ retentionDays: z.number().int().min(1).max(36_500) })
    .partial()
    .optional(),
  signup: z.enum(['closed', 'invite', 'open']).optional(),
})

/** What an organisation wrote: partial, what is absent is inherited. */
export type PolicyInput = z.output<typeof policySchema>

export interface Policy {
  readonly session: Readonly<{
    idleTimeout: number
    absoluteLifetime: number
    updateAge: number
    extendOnActivity: boolean
    maxConcurrent: number | null
  }>
  readonly mfa: 'off' | 'optional' | 'required'
  readonly loginMethods: readonly ('password' | 'magic_link')[]
  readonly password: Readonly<{
    profile: PasswordProfile
    minLength: number
    /** Three of the four classes lower, upper, digit, other. */
    requireComplexity: boolean
    historyCount: number
    maxAgeDays: number | null
  }>
  readonly tokens: Readonly<{ accessTokenTtl: number; refreshTokenTtl: number }>
  /** Disjoint ranges in order; null allows every address and an empty list none. Ask `isAddressAllowed`. */
  readonly network: Readonly<{ allowedCidrs: readonly string[] | null }>
  readonly audit: Readonly<{ retentionDays: number }>
  readonly signup: 'closed' | 'invite' | 'open'
}

/** The platform's switches, from the configuration. */
export interface Platform {
  readonly hipaaMode: boolean
  readonly requireMfa: boolean
  readonly sessionTimeoutSeconds: number
  readonly sessionUpdateAgeSeconds: number
  readonly auditRetentionDays: number
  readonly enable: Readonly<{ password: boolean; magicLinks: boolean; secondFactor: boolean; signup: boolean }>
}

/** Effective policy = what the organisation wrote over the defaults, held to the platform's floors. Total. */
export function effectivePolicy(input: PolicyInput, platform: Platform): Policy {
  const decisions = decidePolicy(input, platform)
  return policyOf((name) => decisions[name].value)
}

export interface PolicyBreach {
  readonly field: FieldName
  /** What it must be, and because of which floor or profile. */
  readonly message: string
}

/** What of a policy is below a floor or a profile. Empty when it may stand. */
export function findPolicyBreaches(input: PolicyInput, platform: Platform): PolicyBreach[] {
  const decisions = decidePolicy(input, platform)
  return fieldNames
    .filter((name) => decisions[name].isRefused)
    .map((name) => ({ field: name, message: bound(name, decisions[name]) }))
}

/** The same as one sentence for each. */
export function policyBreaches(input: PolicyInput, platform: Platform): string[] {
  return findPolicyBreaches(input, platform).map(({ field, message }) => `${field} ${message}`)
}

function bound<K extends FieldName>(name: K, { value, because }: Decision<PolicyFields[K]>): string {
  return `must be ${value === null ? '' : policyTable[name].bound}${value} (${because})`
}

/**
 * The policy for one person of an organisation. An administrator's second factor is never `off`: it may always be set up,
 * because administrative acts ask for a fresh one. `required` stays `required`. In HIPAA mode that is a floor; it holds
 * elsewhere as well, since `optional` forces nobody.
 */
export function policyFor(policy: Policy, { isAdministrator }: { readonly isAdministrator: boolean }): Policy {
  return isAdministrator && policy.mfa === 'off' ? { ...policy, mfa: 'optional' } : policy
}
