// Which way each field of a policy is stricter, what holds it, and what the rules of healthcare say about it: one table.
// From it follow which of two policies is stricter, and the one that is as strict as both. Pure.
import type { PasswordProfile, Platform, Policy } from './policy.ts'
import { canonicalRanges, commonRanges } from './policy-ranges.ts'

/** A policy laid flat: one value for each field, under the name that people read and write. */
export interface PolicyFields {
  'session.idleTimeout': number
  'session.absoluteLifetime': number
  'session.updateAge': number
  'session.extendOnActivity': boolean
  'session.maxConcurrent': number | null
  mfa: Policy['mfa']
  loginMethods: Policy['loginMethods']
  'password.profile': PasswordProfile
  'password.minLength': number
  'password.requireComplexity': boolean
  'password.historyCount': number
  'password.maxAgeDays': number | null
  'tokens.accessTokenTtl': number
  'tokens.refreshTokenTtl': number
  'network.allowedCidrs': readonly string[] | null
  'audit.retentionDays': number
  signup: Policy['signup']
}
export type FieldName = keyof PolicyFields

export const fieldNames = [
  'session.idleTimeout',
  'session.absoluteLifetime',
  'session.updateAge',
  'session.extendOnActivity',
  'session.maxConcurrent',
  'mfa',
  'loginMethods',
  'password.profile',
  'password.minLength',
  'password.requireComplexity',
  'password.historyCount',
  'password.maxAgeDays',
  'tokens.accessTokenTtl',
  'tokens.refreshTokenTtl',
  'network.allowedCidrs',
  'audit.retentionDays',
  'signup',
] as const satisfies readonly FieldName[]

/** An order of values by strictness, in which any two have a value that is just as strict as both. */
export interface Strictness<T> {
  /** In words, for the reference. */
  readonly stricterIs: string
  /** How a bound is put into a sentence: "must be at most 3600". */
  readonly bound: 'at most ' | 'at least ' | ''
  readonly isAtLeastAsStrict: (a: T, b: T) => boolean
  /** The loosest value that is at least as strict as both. */
  readonly stricter: (a: T, b: T) => T
}

/** What the platform holds a field to, whatever an organisation wrote. */
export interface Floor<T> {
  /** For people: why. */
  readonly because: string
  readonly isOn: (platform: Platform) => boolean
  readonly value: T
  /**
   * Whether a policy that asks for less is refused. A switch of the platform refuses nothing: its operator may turn it
   * at any time, and the policies that are already written have to go on standing.
   */
  readonly isRefused: boolean
}

export interface FieldRule<T> extends Strictness<T> {
  readonly floors: readonly Floor<T>[]
  readonly actsOn: string
  readonly hipaa: string
  readonly nist: string
}

const lower: Strictness<number> = {
  stricterIs: 'lower',
  bound: 'at most ',
  isAtLeastAsStrict: (a, b) => a <= b,
  stricter: (a, b) => Math.min(a, b),
}
const higher: Strictness<number> = {
  stricterIs: 'higher',
  bound: 'at least ',
  isAtLeastAsStrict: (a, b) => a >= b,
  stricter: (a, b) => Math.max(a, b),
}
const lowerOrNull: Strictness<number | null> = {
  stricterIs: 'lower; null is no limit',
  bound: 'at most ',
  isAtLeastAsStrict: (a, b) => b === null || (a !== null && a <= b),
  stricter: (a, b) => (a === null || b === null ? (a ?? b) : Math.min(a, b)),
}
function ranked<T extends string | boolean>(...fromLoosest: readonly T[]): Strictness<T> {
  const rank = (value: T) => fromLoosest.indexOf(value)
  return {
    stricterIs: fromLoosest.join(' < '),
    bound: '',
    isAtLeastAsStrict: (a, b) => rank(a) >= rank(b),
    stricter: (a, b) => (rank(a) >= rank(b) ? a : b),
  }
}
const allMethods = ['password', 'magic_link'] as const
const fewerMethods: Strictness<Policy['loginMethods']> = {
  stricterIs: 'fewer; with none nobody signs in',
  bound: '',
  isAtLeastAsStrict: (a, b) => a.every((method) => b.includes(method)),
  stricter: (a, b) => allMethods.filter((method) => a.includes(method) && b.includes(method)),
}
const smallerNetworks: Strictness<readonly string[] | null> = {
  stricterIs: 'fewer addresses',
  bound: '',
  isAtLeastAsStrict: (a, b) => b === null || (a !== null && canonicalRanges(a).join() === commonRanges(a, b).join()),
  stricter(a, b) {
    if (a === null || b === null) return a === b ? null : canonicalRanges(a ?? b ?? [])
    return commonRanges(a, b)
  },
}

const hipaaFloor = <T>(value: T): Floor<T> => ({
  because: 'HIPAA mode',
  isOn: ({ hipaaMode }) => hipaaMode,
  value,
  isRefused: true,
})
const switchFloor = <T>(because: string, value: T, isOn: (platform: Platform) => boolean): Floor<T> => ({
  because,
  isOn,
  value,
  isRefused: false,
})

const passwordCitation = '164.308(a)(5)(ii)(D) (addressable): creating, changing and safeguarding passwords'

export const policyTable: { readonly [K in FieldName]: FieldRule<PolicyFields[K]> } = {
  'session.idleTimeout': {
    ...lower,
    floors: [hipaaFloor(3_600)],
    actsOn: 'ends a session, with its tokens, after so many seconds without activity',
    hipaa: '164.312(a)(2)(iii) (addressable): automatic logoff after a predetermined time; the rule names no figure',
    nist: 'SP 800-63B-4: AAL2 should be ≤ 3,600 s idle, AAL3 ≤ 900 s; the session shall end',
  },
  'session.absoluteLifetime': {
    ...lower,
    floors: [hipaaFloor(86_400)],
    actsOn: 'ends a session so many seconds after sign-in, whatever its activity',
    hipaa: '164.312(a)(2)(iii) (addressable): automatic logoff; the rule names no figure',
    nist: 'SP 800-63B-4: an overall limit shall exist; AAL2 should be ≤ 86,400 s, AAL3 shall be ≤ 43,200 s, AAL1 ≤ 30 days',
  },
  // Neither way lets a session outlive its idle limit, because what is written down is never later than the activity.
  // Lower counts as stricter, so that of two the more exact record is kept.
  'session.updateAge': {
    ...lower,
    floors: [],
    actsOn:
      'activity is written at most once in so many seconds, or in half the idle limit where that is less; a session may end that much early, never late',
    hipaa: '164.312(b): how exact the record of activity is',
    nist: 'SP 800-63B-4: activity resets the idle limit',
  },
  'session.extendOnActivity': {
    ...ranked(true, false),
    floors: [],
    actsOn: 'with `false` the idle limit runs from sign-in and activity does not move it',
    hipaa: '—',
    nist: 'SP 800-63B-4: activity resets the idle limit; without that it is a second overall limit',
  },
  'session.maxConcurrent': {
    ...lowerOrNull,
    floors: [],
    actsOn: 'sessions that one person may have at once; the oldest ends',
    hipaa: '164.312(a)(2)(i): unique user identification; a low figure makes sharing an account awkward',
    nist: '—',
  },
  mfa: {
    ...ranked('off', 'optional', 'required'),
    floors: [switchFloor<Policy['mfa']>('REQUIRE_MFA', 'required', ({ requireMfa }) => requireMfa)],
    actsOn:
      'a second factor: may not be set up, may be, must be. One that an account has is asked for all the same. For an administrator `off` is `optional`',
    hipaa:
      '164.312(d): person or entity authentication. The rule proposed in 90 FR 898 asks for MFA, and for each act that changes privileges',
    nist: 'SP 800-63B-4 §2.2.2: AAL2 needs two factors and the offer of a phishing-resistant one, which TOTP is not',
  },
  loginMethods: {
    ...fewerMethods,
    floors: [
      switchFloor<Policy['loginMethods']>('ENABLE_EMAIL_PASSWORD', ['magic_link'], ({ enable }) => !enable.password),
      switchFloor<Policy['loginMethods']>('ENABLE_MAGIC_LINKS', ['password'], ({ enable }) => !enable.magicLinks),
    ],
    actsOn: 'what a sign-in may begin with. A magic link is never a second factor',
    hipaa: '164.312(d): person or entity authentication',
    nist: 'SP 800-63B-4 §3.1.3.1: e-mail shall not be used for out-of-band authentication; a magic link reaches no AAL',
  },
  // A name promises something only while it stands alone: the NIST profile has no composition rules, which no combination
  // keeps, while the rules of hipaa and pci are kept by everything stricter. PCI's letters and digits hang on its name.
  'password.profile': {
    ...ranked<PasswordProfile>('nist-800-63b-4', 'custom', 'hipaa', 'pci-4.0.1'),
    floors: [],
    actsOn: 'the least that the other password fields ask for; `pci-4.0.1` asks for letters and digits besides',
    hipaa: passwordCitation,
    nist: 'SP 800-63B-4 §3.1.1.2: the profile `nist-800-63b-4` alone follows it',
  },
  'password.minLength': {
    ...higher,
    floors: [],
    actsOn: 'code points of a new password, after NFC; judged when it is chosen',
    hipaa: `${passwordCitation}; the rule names no figure`,
    nist: 'SP 800-63B-4 §3.1.1.2: shall be ≥ 15 alone, ≥ 8 as a part of multi-factor authentication',
  },
  'password.requireComplexity': {
    ...ranked(false, true),
    floors: [],
    actsOn: 'three of lower case, upper case, digit, other in a new password',
    hipaa: passwordCitation,
    nist: 'SP 800-63B-4 §3.1.1.2: shall not be asked for',
  },
  'password.historyCount': {
    ...higher,
    floors: [],
    actsOn: 'former passwords that may not come back; the current one never may',
    hipaa: passwordCitation,
    nist: 'SP 800-63B-4: none needed',
  },
  'password.maxAgeDays': {
    ...lowerOrNull,
    floors: [],
    actsOn: 'days after which a password has to be replaced at sign-in',
    hipaa: passwordCitation,
    nist: 'SP 800-63B-4 §3.1.1.2: periodic change shall not be asked for; a change on evidence of compromise shall',
  },
  'tokens.accessTokenTtl': {
    ...lower,
    floors: [],
    actsOn: 'seconds that an access token lives, at most; it ends with its session',
    hipaa: '164.308(a)(3)(ii)(C) (addressable): access ends when employment does',
    nist: 'SP 800-63B-4 §5.2: sessions of provider and application are independent. SMART App Launch: should be ≤ 3,600 s',
  },
  'tokens.refreshTokenTtl': {
    ...lower,
    floors: [],
    actsOn: 'seconds that a refresh token and its grant live, at most; the cap of `offline_access`',
    hipaa: '164.308(a)(3)(ii)(C) (addressable): access ends when employment does',
    nist: 'SP 800-63B-4 §5.2: sessions of provider and application are independent. ONC (g)(10) asks for ≥ 3 months where patients use apps',
  },
  'network.allowedCidrs': {
    ...smallerNetworks,
    floors: [],
    actsOn: 'addresses from which somebody may act; written `[]` is anywhere',
    hipaa: '164.308(a)(4)(ii)(B) (addressable): access authorisation; an address proves nobody’s identity',
    nist: '—',
  },
  'audit.retentionDays': {
    ...higher,
    floors: [hipaaFloor(2_190)],
    actsOn: 'days for which audit events are kept, at least',
    hipaa: '164.316(b)(2)(i): documentation is kept for six years, and by practice audit logs too; 164.312(b)',
    nist: '—',
  },
  signup: {
    ...ranked('open', 'invite', 'closed'),
    floors: [switchFloor<Policy['signup']>('ENABLE_SIGNUP', 'closed', ({ enable }) => !enable.signup)],
    actsOn: 'who may make an account: anybody, who was invited, nobody but administrators',
    hipaa: '164.308(a)(4)(ii)(C) (addressable): how access is established and modified',
    nist: '—',
  },
}
