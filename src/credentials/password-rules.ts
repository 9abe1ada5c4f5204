// What a new password has to be under an organisation's policy, in numbers and in words, and whether the one in use has
// to be replaced. Pure but for the blocklist's files. A password is judged when it is chosen, never at sign-in (F39).
import type { PasswordProfile, Policy } from '../organizations/policy.ts'
import { type BlockReason, blockReason, type PasswordContext } from './blocklist.ts'
import { codePointCount, isPasswordShaped, maxPasswordCodePoints, normalizePassword } from './password.ts'

export type { PasswordContext } from './blocklist.ts'

/** The classes of characters that a policy with complexity wants three of. */
const classes = [
  { name: 'a lower-case letter', pattern: /\p{Ll}/u },
  { name: 'an upper-case letter', pattern: /\p{Lu}/u },
  { name: 'a digit', pattern: /\p{Nd}/u },
  // Letters without case too: whoever writes Hebrew or Chinese is not asked for Latin capitals.
  { name: 'another character, such as a space or a sign', pattern: /[^\p{Ll}\p{Lu}\p{Nd}]/u },
] as const
const complexClassCount = 3

const dayMs = 86_400_000

export interface PasswordRules {
  readonly profile: PasswordProfile
  /** Code points after NFC, as is `maxLength`. */
  readonly minLength: number
  readonly maxLength: number
  /** How many of the four classes lower, upper, digit, other a password has to hold; 0 for none. */
  readonly minClasses: number
  /** PCI DSS 8.3.6: both letters and digits. */
  readonly lettersAndDigits: boolean
  /** How many passwords before the current one may not come back. The current one never may. */
  readonly historyCount: number
  /** Days after which a password must be replaced; null for never. */
  readonly maxAgeDays: number | null
}

export type PasswordProblemCode =
  | 'empty'
  | 'unusable'
  | 'too_short'
  | 'too_long'
  | 'needs_classes'
  | 'needs_letters_and_digits'
  | BlockReason
  | 'reused'
  | 'changed_meanwhile'

/** Why a new password was not taken. `text` is for the person: the rule, and how to meet it. Never the password. */
export interface PasswordProblem {
  readonly code: PasswordProblemCode
  readonly text: string
}

export type PasswordVerdict =
  | { readonly ok: true }
  | { readonly ok: false; readonly problems: readonly PasswordProblem[] }

/** The rules of an effective policy. */
export function effectivePasswordRules({ password }: Pick<Policy, 'password'>): PasswordRules {
  return {
    profile: password.profile,
    minLength: password.minLength,
    maxLength: maxPasswordCodePoints,
    minClasses: password.requireComplexity ? complexClassCount : 0,
    lettersAndDigits: password.profile === 'pci-4.0.1',
    historyCount: password.historyCount,
    maxAgeDays: password.maxAgeDays,
  }
}

/** Judges a password that somebody chose: every problem at once. Whether it was used before is asked elsewhere. */
export function checkNewPassword(password: string, rules: PasswordRules, context: PasswordContext): PasswordVerdict {
  const normalized = normalizePassword(password)
  const problem = shapeProblem(normalized, rules)
  const problems = problem
    ? [problem]
    : [
        ...lengthProblems(normalized, rules),
        ...compositionProblems(normalized, rules),
        ...blockProblems(normalized, context),
      ]
  return problems.length === 0 ? { ok: true } : { ok: false, problems }
}

/** What makes a text no password at all, so that nothing else is worth saying about it. */
function shapeProblem(password: string, { maxLength }: PasswordRules): PasswordProblem | undefined {
  if (password === '') return { code: 'empty', text: 'Enter a new password.' }
  if (isPasswordShaped(password)) return undefined
  const length = codePointCount(password)
  return length > maxLength
    ? { code: 'too_long', text: `Use at most ${maxLength} characters; this has ${length}.` }
    : {
        code: 'unusable',
        text: 'This holds a character that no keyboard types. Type the password instead of pasting it.',
      }
}

function lengthProblems(password: string, { minLength }: PasswordRules): PasswordProblem[] {
  const length = codePointCount(password)
  return length >= minLength
    ? []
    : [{ code: 'too_short', text: `Use at least ${minLength} characters; this has ${length}.` }]
}

function compositionProblems(password: string, rules: PasswordRules): PasswordProblem[] {
  const problems: PasswordProblem[] = []
  const missing = classes.filter(({ pattern }) => !pattern.test(password)).map(({ name }) => name)
  const lacking = rules.minClasses - (classes.length - missing.length)
  if (lacking > 0)
    problems.push({
      code: 'needs_classes',
      text: `Mix at least ${inWords(rules.minClasses)} kinds of characters: add ${missing.length > lacking ? `${inWords(lacking)} of ` : ''}${listed(missing, missing.length > lacking ? 'or' : 'and')}.`,
    })
  if (rules.lettersAndDigits) {
    const absent = [...(/\p{L}/u.test(password) ? [] : ['a letter']), ...(/\p{Nd}/u.test(password) ? [] : ['a digit'])]
    if (absent.length > 0)
      problems.push({
        code: 'needs_letters_and_digits',
        text: `Use both letters and digits: add ${listed(absent, 'and')}.`,
      })
  }
  return problems
}

const blockTexts: Readonly<Record<BlockReason, string>> = {
  simple:
    'This is a simple row or repetition of characters, which is guessed first. Use several unrelated words instead.',
  common:
    'This is one of the passwords that are guessed first: a common password or a single word, perhaps with something before or after it. Use several unrelated words instead.',
  email: 'This is your email address or a part of it, which others know. Use several unrelated words instead.',
  name: 'This is your name or a part of it, which others know. Use several unrelated words instead.',
  organization:
    'This is the name of your organisation or a part of it, which others know. Use several unrelated words instead.',
  product: 'This is the name of this service, which is guessed first. Use several unrelated words instead.',
}

/** SP 800-63B-4 §3.1.1.2: who chose a password on the blocklist is told why it was refused. */
function blockProblems(password: string, context: PasswordContext): PasswordProblem[] {
  const reason = blockReason(password, context)
  return reason === undefined ? [] : [{ code: reason, text: blockTexts[reason] }]
}

/** One rule for people. `check` is what public/strength.js can tell while somebody types. */
export interface PasswordRuleText {
  readonly text: string
  readonly check?: { readonly kind: 'length' | 'classes' | 'letters-and-digits'; readonly atLeast: number }
}

/**
 * The rules as a list to show before the field.
 * @param isFirst there is no password before it to differ from
 */
export function describePasswordRules(rules: PasswordRules, isFirst = false): readonly PasswordRuleText[] {
  const { minLength, minClasses, lettersAndDigits, historyCount } = rules
  return [
    { text: `At least ${minLength} characters. Spaces count.`, check: { kind: 'length', atLeast: minLength } },
    ...(minClasses > 0
      ? [
          {
            text: `At least ${inWords(minClasses)} of: lower-case letters, upper-case letters, digits, other characters.`,
            check: { kind: 'classes' as const, atLeast: minClasses },
          },
        ]
      : []),
    ...(lettersAndDigits
      ? [{ text: 'Both letters and digits.', check: { kind: 'letters-and-digits' as const, atLeast: 2 } }]
      : []),
    { text: 'Not a common password, nor your name, email or organisation.' },
    ...(isFirst ? [] : [{ text: historyText(historyCount) }]),
  ]
}

function historyText(historyCount: number): string {
  return historyCount > 0
    ? `None of your last ${historyCount} passwords, nor the one you have now.`
    : 'Not the password you have now.'
}

export const reusedProblem = (rules: PasswordRules): PasswordProblem => ({
  code: 'reused',
  text:
    rules.historyCount > 0
      ? `You have used this password before. Choose one that is none of your last ${rules.historyCount} and not the one you have now.`
      : 'This is the password you have now. Choose another one.',
})

export const changedMeanwhileProblem: PasswordProblem = {
  code: 'changed_meanwhile',
  text: 'The password was changed somewhere else a moment ago, so this change was not made. If that was not you, tell your organisation’s administrator.',
}

/**
 * Whether a password has to be replaced before its owner may go on: somebody said so, or its age did.
 * @param state `changedAt` is undefined for an account without a password
 */
export function passwordExpired(
  state: { readonly changedAt: Date | undefined; readonly mustChange: boolean },
  rules: Pick<PasswordRules, 'maxAgeDays'>,
  now: Date,
): boolean {
  if (state.changedAt === undefined) return false
  if (state.mustChange) return true
  return rules.maxAgeDays !== null && now.getTime() - state.changedAt.getTime() >= rules.maxAgeDays * dayMs
}

/** The same of an account as sign-in reads it. */
export function isPasswordExpired(
  account: {
    readonly passwordChangedAt: Date | undefined
    readonly passwordMustChange: boolean
    readonly policy: Pick<Policy, 'password'>
  },
  now: Date,
): boolean {
  const state = { changedAt: account.passwordChangedAt, mustChange: account.passwordMustChange }
  return passwordExpired(state, account.policy.password, now)
}

function inWords(count: number): string {
  return ['none', 'one', 'two', 'three', 'four'][count] ?? String(count)
}

function listed(names: readonly string[], joint: 'and' | 'or'): string {
  const last = names.at(-1) ?? ''
  return names.length < 2 ? last : `${names.slice(0, -1).join(', ')} ${joint} ${last}`
}
