// Organisation policy: its shape, the platform's defaults and floors, and how they make the effective policy. Pure.
import { z } from 'zod'

const seconds = (max: number) => z.number().int().min(1).max(max)
const yearSeconds = 31_536_000

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
      profile: z.enum(['hipaa', 'nist-800-63b-4', 'pci-4.0.1', 'custom']),
      minLength: z.number().int().min(8).max(256),
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
    profile: string
    minLength: number
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
  passwordLengthWithMfa: 8,
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
    password: { profile: 'hipaa', minLength: 12, requireComplexity: true, historyCount: 12, maxAgeDays: null },
    tokens: { accessTokenTtl: 900, refreshTokenTtl: 7_776_000 },
    network: { allowedCidrs: [] },
    audit: { retentionDays: platform.auditRetentionDays },
    signup: 'closed',
  }
}

/** Refuses a policy below a floor: one sentence per breach, naming the floor. Empty when it may stand. */
export function policyBreaches(input: PolicyInput, platform: Platform): string[] {
  if (!platform.hipaaMode) return []
  const breaches: string[] = []
  const { session, password, audit } = input
  if (session?.idleTimeout !== undefined && session.idleTimeout > hipaaFloor.idleTimeoutSeconds) {
    breaches.push(`session.idleTimeout must be at most ${hipaaFloor.idleTimeoutSeconds} (HIPAA mode)`)
  }
  if (session?.absoluteLifetime !== undefined && session.absoluteLifetime > hipaaFloor.absoluteLifetimeSeconds) {
    breaches.push(`session.absoluteLifetime must be at most ${hipaaFloor.absoluteLifetimeSeconds} (HIPAA mode)`)
  }
  if (audit?.retentionDays !== undefined && audit.retentionDays < hipaaFloor.auditRetentionDays) {
    breaches.push(`audit.retentionDays must be at least ${hipaaFloor.auditRetentionDays} (HIPAA mode)`)
  }
  const nistWithMfa = password?.profile === 'nist-800-63b-4' && input.mfa === 'required'
  const minLength = nistWithMfa ? hipaaFloor.passwordLengthWithMfa : hipaaFloor.passwordLength
  if (password?.minLength !== undefined && password.minLength < minLength) {
    breaches.push(`password.minLength must be at least ${minLength} (HIPAA mode)`)
  }
  return breaches
}

/** Effective policy = what the organisation wrote over the defaults, held to the platform's floors. Total. */
export function effectivePolicy(input: PolicyInput, platform: Platform): Policy {
  const base = defaults(platform)
  const session = { ...base.session, ...present(input.session) }
  const chosen: Policy = {
    session,
    mfa: input.mfa ?? base.mfa,
    loginMethods: input.loginMethods ?? base.loginMethods,
    password: { ...base.password, ...present(input.password) },
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
    mfa: platform.requireMfa ? 'required' : policy.mfa,
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
