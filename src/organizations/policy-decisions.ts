// What decides each field of an effective policy: what the organisation wrote, the platform's default, a password
// profile, or a floor. The effective policy and its explanation are two readings of this. Pure.
import type { Platform, Policy, PolicyInput } from './policy.ts'
import { passwordDecisions } from './policy-passwords.ts'
import { canonicalRanges } from './policy-ranges.ts'
import { type FieldName, type FieldRule, type PolicyFields, policyTable } from './strictness.ts'

export interface Decision<T> {
  readonly value: T
  readonly rule: 'floor' | 'platform default' | 'organisation' | 'profile'
  /** The floor or profile behind the value, in words; undefined where nothing stands against what was chosen. */
  readonly because: string | undefined
  /** What the organisation wrote, in its one spelling; undefined where it inherits. */
  readonly written: T | undefined
  /** Whether what was written may not stand: it asks for less than a floor or profile that refuses it. */
  readonly isRefused: boolean
}
export type Decisions = { readonly [K in FieldName]: Decision<PolicyFields[K]> }

/** Every field with what decided it. Total: what falls below a floor or profile is lifted to it. */
export function decidePolicy(input: PolicyInput, platform: Platform): Decisions {
  const { session, tokens } = input
  const mfa = decide('mfa', input.mfa, 'optional', platform)
  return {
    'session.idleTimeout': decide(
      'session.idleTimeout',
      session?.idleTimeout,
      platform.sessionTimeoutSeconds,
      platform,
    ),
    'session.absoluteLifetime': decide('session.absoluteLifetime', session?.absoluteLifetime, 43_200, platform),
    'session.updateAge': decide('session.updateAge', session?.updateAge, platform.sessionUpdateAgeSeconds, platform),
    'session.extendOnActivity': decide('session.extendOnActivity', session?.extendOnActivity, true, platform),
    'session.maxConcurrent': decide('session.maxConcurrent', session?.maxConcurrent, null, platform),
    mfa,
    loginMethods: decide('loginMethods', methodsOf(input), ['password', 'magic_link'], platform),
    ...passwordDecisions(input.password, mfa.value === 'required', platform.hipaaMode),
    'tokens.accessTokenTtl': decide('tokens.accessTokenTtl', tokens?.accessTokenTtl, 900, platform),
    'tokens.refreshTokenTtl': decide('tokens.refreshTokenTtl', tokens?.refreshTokenTtl, 7_776_000, platform),
    'network.allowedCidrs': decide('network.allowedCidrs', networksOf(input), null, platform),
    'audit.retentionDays': decide(
      'audit.retentionDays',
      input.audit?.retentionDays,
      platform.auditRetentionDays,
      platform,
    ),
    signup: decide('signup', input.signup, 'closed', platform),
  }
}

function decide<K extends FieldName>(
  name: K,
  written: PolicyFields[K] | undefined,
  fallback: PolicyFields[K],
  platform: Platform,
): Decision<PolicyFields[K]> {
  const rule: FieldRule<PolicyFields[K]> = policyTable[name]
  const chosen = written === undefined ? fallback : written
  const floors = rule.floors.filter((floor) => floor.isOn(platform) && !rule.isAtLeastAsStrict(chosen, floor.value))
  const value = floors.reduce((held, floor) => rule.stricter(held, floor.value), chosen)
  return {
    value,
    rule: floors.length > 0 ? 'floor' : written === undefined ? 'platform default' : 'organisation',
    because: floors.length > 0 ? floors.map(({ because }) => because).join(' and ') : undefined,
    written,
    isRefused: written !== undefined && floors.some(({ isRefused }) => isRefused),
  }
}

/** Each method once, in one order. */
function methodsOf({ loginMethods }: PolicyInput): Policy['loginMethods'] | undefined {
  return loginMethods && policyTable.loginMethods.stricter(loginMethods, loginMethods)
}

/** Who writes an empty list allows every address. */
function networksOf({ network }: PolicyInput): readonly string[] | null | undefined {
  const written = network?.allowedCidrs
  return written && (written.length === 0 ? null : canonicalRanges(written))
}
