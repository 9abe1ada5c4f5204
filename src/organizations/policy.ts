// Organisation policy: its shape, the platform's defaults and floors, what password profiles mean, and how they make the
// effective policy. Pure. What a password must be under it is in credentials/password-rules.ts.
import { z } from 'zod'

const seconds = (max: number) => z.number().int().min(1).max(max)
const yearSeconds = 31_536_000
const passwordProfiles = ['hipaa', 'nist-800-63b-4', 'pci-4.0.1', 'custom'] as const
export type PasswordProfile = (typeof passwordProfiles)[number]

/** SP 800-63B-4 §3.1.1.2: shorter passwords are never accepted, whatever stands next to them. */
const passwordLengthFloor = 8

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
    .strictObject({ allowedCidrs: z.array(z.union([z.cidrv4(), z.cidrv6()])).max(200) })
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
  readonly network: Readonly<{ allowedCidrs: readonly string[] }>
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

const hipaaFloor = {
  idleTimeoutSeconds: 3_600,
  absoluteLifetimeSeconds: 86_400,
  auditRetentionDays: 2_190,
  passwordLength: 12,
}

type PasswordFields = Omit<Policy['password'], 'profile'>

/**
 * What a profile asks for where the organisation wrote nothing. For every profile but `custom` it is also the least:
 * what the organisation wrote may only ask for more.
 */
function profileFields(profile: PasswordProfile, mfaRequired: boolean): PasswordFields {
  switch (profile) {
    case 'hipaa':
    case 'custom':
      return { minLength: 12, requireComplexity: true, historyCount: 12, maxAgeDays: null }
    case 'nist-800-63b-4':
      // SP 800-63B-4 §3.1.1.2: 15 for a password that stands alone, 8 as a part of multi-factor authentication.
      return {
        minLength: mfaRequired ? passwordLengthFloor : 15,
        requireComplexity: false,
        historyCount: 0,
        maxAgeDays: null,
      }
    case 'pci-4.0.1':
      // PCI DSS 8.3.6, 8.3.7 and 8.3.9. Its letters and digits are the profile's own rule, not three of four classes.
      return { minLength: 12, requireComplexity: false, historyCount: 4, maxAgeDays: mfaRequired ? null : 90 }
  }
}

/** The password fields in effect. Total: what falls below the profile or a floor is lifted to it. */
function effectivePassword(
  input: PolicyInput['password'],
  mfaRequired: boolean,
  hipaaMode: boolean,
): Policy['password'] {
  const { profile = 'hipaa', ...written } = present(input)
  const base = profileFields(profile, mfaRequired)
  const wanted: PasswordFields = { ...base, ...written }
  if (profile === 'custom') {
    const floor = hipaaMode ? hipaaFloor.passwordLength : passwordLengthFloor
    return { ...wanted, profile, minLength: Math.max(wanted.minLength, floor) }
  }
  // §3.1.1.2 forbids composition rules and periodic changes; a policy that had them would not be the NIST profile.
  const isNist = profile === 'nist-800-63b-4'
  return {
    profile,
    minLength: Math.max(wanted.minLength, base.minLength),
    requireComplexity: !isNist && (wanted.requireComplexity || base.requireComplexity),
    historyCount: Math.max(wanted.historyCount, base.historyCount),
    maxAgeDays: isNist ? null : shorter(wanted.maxAgeDays, base.maxAgeDays),
  }
}

/** The shorter of two ages in days; null is without end. */
function shorter(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b
  return Math.min(a, b)
}

/** What an organisation wrote that would not take effect: one sentence per field, saying what stands against it. */
function passwordBreaches(input: PolicyInput, platform: Platform): string[] {
  const written = present(input.password)
  const mfaRequired = platform.requireMfa || input.mfa === 'required'
  const effective = effectivePassword(input.password, mfaRequired, platform.hipaaMode)
  const { profile } = effective
  const because = profile === 'custom' ? 'HIPAA mode' : `profile ${profile}; the profile custom may go lower`
  const breaches: string[] = []
  if (written.minLength !== undefined && written.minLength < effective.minLength)
    breaches.push(`password.minLength must be at least ${effective.minLength} (${because})`)
  if (written.historyCount !== undefined && written.historyCount < effective.historyCount)
    breaches.push(`password.historyCount must be at least ${effective.historyCount} (${because})`)
  if (written.requireComplexity !== undefined && written.requireComplexity !== effective.requireComplexity)
    breaches.push(`password.requireComplexity must be ${effective.requireComplexity} (${because})`)
  if (written.maxAgeDays !== undefined && written.maxAgeDays !== effective.maxAgeDays)
    breaches.push(
      effective.maxAgeDays === null
        ? `password.maxAgeDays must be null (profile ${profile} has no periodic changes)`
        : `password.maxAgeDays must be at most ${effective.maxAgeDays} (${because})`,
    )
  return breaches
}

function defaults(platform: Platform): Policy {
  return {
    session: {
      idleTimeout: platform.sessionTimeoutSeconds,
      absoluteLifetime: 43_200,
      updateAge: platform.sessionUpdateAgeSeconds,
      extendOnActivity: true,
      maxConcurrent: null,
    },
    mfa: 'optional',
    loginMethods: ['password', 'magic_link'],
    password: effectivePassword(undefined, platform.requireMfa, platform.hipaaMode),
    tokens: { accessTokenTtl: 900, refreshTokenTtl: 7_776_000 },
    network: { allowedCidrs: [] },
    audit: { retentionDays: platform.auditRetentionDays },
    signup: 'closed',
  }
}

/** Refuses a policy below a floor or a profile: one sentence per breach, naming it. Empty when it may stand. */
export function policyBreaches(input: PolicyInput, platform: Platform): string[] {
  const breaches = passwordBreaches(input, platform)
  if (!platform.hipaaMode) return breaches
  const { session, audit } = input
  if (session?.idleTimeout !== undefined && session.idleTimeout > hipaaFloor.idleTimeoutSeconds) {
    breaches.push(`session.idleTimeout must be at most ${hipaaFloor.idleTimeoutSeconds} (HIPAA mode)`)
  }
  if (session?.absoluteLifetime !== undefined && session.absoluteLifetime > hipaaFloor.absoluteLifetimeSeconds) {
    breaches.push(`session.absoluteLifetime must be at most ${hipaaFloor.absoluteLifetimeSeconds} (HIPAA mode)`)
  }
  if (audit?.retentionDays !== undefined && audit.retentionDays < hipaaFloor.auditRetentionDays) {
    breaches.push(`audit.retentionDays must be at least ${hipaaFloor.auditRetentionDays} (HIPAA mode)`)
  }
  return breaches
}

/** Effective policy = what the organisation wrote over the defaults, held to the platform's floors. Total. */
export function effectivePolicy(input: PolicyInput, platform: Platform): Policy {
  const base = defaults(platform)
  const session = { ...base.session, ...present(input.session) }
  const mfa = platform.requireMfa ? 'required' : (input.mfa ?? base.mfa)
  const chosen: Policy = {
    session,
    mfa,
    loginMethods: input.loginMethods ?? base.loginMethods,
    password: effectivePassword(input.password, mfa === 'required', platform.hipaaMode),
    tokens: { ...base.tokens, ...present(input.tokens) },
    network: { ...base.network, ...present(input.network) },
    audit: { ...base.audit, ...present(input.audit) },
    signup: input.signup ?? base.signup,
  }
  return floored(chosen, platform)
}

function floored(policy: Policy, platform: Platform): Policy {
  const offered = policy.loginMethods.filter((method) =>
    method === 'password' ? platform.enable.password : platform.enable.magicLinks,
  )
  const session = platform.hipaaMode
    ? {
        ...policy.session,
        idleTimeout: Math.min(policy.session.idleTimeout, hipaaFloor.idleTimeoutSeconds),
        absoluteLifetime: Math.min(policy.session.absoluteLifetime, hipaaFloor.absoluteLifetimeSeconds),
      }
    : policy.session
  return {
    ...policy,
    session,
    loginMethods: offered,
    signup: platform.enable.signup ? policy.signup : 'closed',
    audit: {
      retentionDays: platform.hipaaMode
        ? Math.max(policy.audit.retentionDays, hipaaFloor.auditRetentionDays)
        : policy.audit.retentionDays,
    },
  }
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

function present<T extends object>(value: T | undefined): Present<T> {
  return Object.fromEntries(Object.entries(value ?? {}).filter(([, entry]) => entry !== undefined)) as Present<T>
}
