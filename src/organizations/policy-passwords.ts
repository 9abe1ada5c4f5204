// What password profiles mean, and how they, what the organisation wrote and HIPAA mode make the password fields of an
// effective policy. Pure. What a password must be under them is in credentials/password-rules.ts.
import type { PasswordProfile, Policy, PolicyInput } from './policy.ts'
import type { Decision, Decisions } from './policy-decisions.ts'
import { isSameField } from './policy-order.ts'
import { policyTable, type Strictness } from './strictness.ts'

/** SP 800-63B-4 §3.1.1.2: shorter passwords are never accepted, whatever stands next to them. */
export const passwordLengthFloor = 8
const hipaaPasswordLength = 12

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

type PasswordDecisions = Pick<
  Decisions,
  | 'password.profile'
  | 'password.minLength'
  | 'password.requireComplexity'
  | 'password.historyCount'
  | 'password.maxAgeDays'
>

/** The password fields in effect and what decided each. */
export function passwordDecisions(
  written: PolicyInput['password'],
  mfaRequired: boolean,
  hipaaMode: boolean,
): PasswordDecisions {
  const profile = written?.profile ?? 'hipaa'
  const base = profileFields(profile, mfaRequired)
  const {
    'password.minLength': length,
    'password.requireComplexity': complexity,
    'password.historyCount': history,
    'password.maxAgeDays': age,
  } = policyTable
  const chosen: Decision<PasswordProfile> = {
    value: profile,
    rule: written?.profile === undefined ? 'platform default' : 'organisation',
    because: undefined,
    written: written?.profile,
    isRefused: false,
  }
  if (profile === 'custom')
    return {
      'password.profile': chosen,
      'password.minLength': customLength(written?.minLength, base.minLength, hipaaMode),
      'password.requireComplexity': free(written?.requireComplexity, base.requireComplexity),
      'password.historyCount': free(written?.historyCount, base.historyCount),
      'password.maxAgeDays': free(written?.maxAgeDays, base.maxAgeDays),
    }
  const because = `profile ${profile}; the profile custom may go lower`
  const profiled = {
    'password.profile': chosen,
    'password.minLength': atLeast(length, written?.minLength, base.minLength, because),
    'password.historyCount': atLeast(history, written?.historyCount, base.historyCount, because),
  }
  // §3.1.1.2 forbids composition rules and periodic changes; a policy that had them would not be the NIST profile.
  if (profile === 'nist-800-63b-4')
    return {
      ...profiled,
      'password.requireComplexity': fixed(
        written?.requireComplexity,
        false,
        `profile ${profile} has no composition rules`,
      ),
      'password.maxAgeDays': fixed(written?.maxAgeDays, null, `profile ${profile} has no periodic changes`),
    }
  return {
    ...profiled,
    'password.requireComplexity': atLeast(complexity, written?.requireComplexity, base.requireComplexity, because),
    'password.maxAgeDays': atLeast(age, written?.maxAgeDays, base.maxAgeDays, because),
  }
}

/** What is written may only be stricter than the profile. */
function atLeast<T>(order: Strictness<T>, written: T | undefined, base: T, because: string): Decision<T> {
  const value = written === undefined ? base : order.stricter(written, base)
  return written !== undefined && isSameField(order, value, written)
    ? { value, rule: 'organisation', because: undefined, written, isRefused: false }
    : { value, rule: 'profile', because, written, isRefused: written !== undefined }
}

/** The profile alone decides. */
function fixed<T>(written: T | undefined, value: T, because: string): Decision<T> {
  return written === value
    ? { value, rule: 'organisation', because: undefined, written, isRefused: false }
    : { value, rule: 'profile', because, written, isRefused: written !== undefined }
}

/** What is written stands. */
function free<T>(written: T | undefined, base: T): Decision<T> {
  return written === undefined
    ? { value: base, rule: 'profile', because: 'profile custom', written, isRefused: false }
    : { value: written, rule: 'organisation', because: undefined, written, isRefused: false }
}

function customLength(written: number | undefined, base: number, hipaaMode: boolean): Decision<number> {
  const decision = free(written, base)
  const floor = hipaaMode ? hipaaPasswordLength : passwordLengthFloor
  if (decision.value >= floor) return decision
  const because = hipaaMode ? 'HIPAA mode' : 'SP 800-63B-4 §3.1.1.2'
  return { value: floor, rule: 'floor', because, written, isRefused: true }
}
