// Why a policy is as it is, for whoever administers it: every field of the effective policy with the rule that decided it.
// Pure.
import { effectivePolicy, type Platform, type PolicyInput } from './policy.ts'
import { type Decision, decidePolicy } from './policy-decisions.ts'
import { fieldsOf, isSameField } from './policy-order.ts'
import { type FieldName, type FieldRule, type PolicyFields, policyTable } from './strictness.ts'

/** Another organisation's policy that holds for the same person, because they are in it too or use an app of it. */
export interface PolicySource {
  readonly rule: 'other membership' | 'client organisation'
  readonly organizationSlug: string
  readonly input: PolicyInput
}

export interface FieldExplanation<T> {
  readonly value: T
  readonly rule: Decision<T>['rule'] | PolicySource['rule']
  /** The floor or profile behind the organisation's own value, in words; undefined where another's policy decided. */
  readonly because: string | undefined
  /**
   * Whose policies decided, where others did: one, if it says all by itself, or each that took something away. Empty where
   * the organisation's own policy is the strictest.
   */
  readonly decidedBy: readonly string[]
  /** What the organisation wrote, in its one spelling; undefined where it inherits. */
  readonly written: T | undefined
}
export type PolicyExplanation = { readonly [K in FieldName]: FieldExplanation<PolicyFields[K]> }

/**
 * Explains the policy that is as strict as the organisation's own and each of the others: `stricterPolicy` of their
 * effective policies. Total.
 */
export function explainPolicy(
  input: PolicyInput,
  platform: Platform,
  others: readonly PolicySource[] = [],
): PolicyExplanation {
  const own = decidePolicy(input, platform)
  const rivals = others.map((source) => ({ source, fields: fieldsOf(effectivePolicy(source.input, platform)) }))
  const explain = <K extends FieldName>(name: K): FieldExplanation<PolicyFields[K]> =>
    explainField(
      policyTable[name],
      own[name],
      rivals.map(({ source, fields }) => ({ source, value: fields[name] })),
    )
  return {
    'session.idleTimeout': explain('session.idleTimeout'),
    'session.absoluteLifetime': explain('session.absoluteLifetime'),
    'session.updateAge': explain('session.updateAge'),
    'session.extendOnActivity': explain('session.extendOnActivity'),
    'session.maxConcurrent': explain('session.maxConcurrent'),
    mfa: explain('mfa'),
    loginMethods: explain('loginMethods'),
    'password.profile': explain('password.profile'),
    'password.minLength': explain('password.minLength'),
    'password.requireComplexity': explain('password.requireComplexity'),
    'password.historyCount': explain('password.historyCount'),
    'password.maxAgeDays': explain('password.maxAgeDays'),
    'tokens.accessTokenTtl': explain('tokens.accessTokenTtl'),
    'tokens.refreshTokenTtl': explain('tokens.refreshTokenTtl'),
    'network.allowedCidrs': explain('network.allowedCidrs'),
    'audit.retentionDays': explain('audit.retentionDays'),
    signup: explain('signup'),
  }
}

interface Rival<T> {
  readonly source: PolicySource
  readonly value: T
}

function explainField<T>(order: FieldRule<T>, own: Decision<T>, rivals: readonly Rival<T>[]): FieldExplanation<T> {
  const value = rivals.reduce((held, rival) => order.stricter(held, rival.value), own.value)
  const { written } = own
  const deciders = isSameField(order, value, own.value) ? [] : decidersOf(order, own.value, value, rivals)
  const [first] = deciders
  if (first === undefined) return { value, rule: own.rule, because: own.because, decidedBy: [], written }
  const decidedBy = deciders.map(({ source }) => source.organizationSlug)
  return { value, rule: first.source.rule, because: undefined, decidedBy, written }
}

/** The one whose value it is; or, where it is nobody's alone, each that took something away, in the order given. */
function decidersOf<T>(order: FieldRule<T>, own: T, value: T, rivals: readonly Rival<T>[]): readonly Rival<T>[] {
  const alone = rivals.find((rival) => isSameField(order, rival.value, value))
  if (alone) return [alone]
  const deciders: Rival<T>[] = []
  let held = own
  for (const rival of rivals) {
    if (order.isAtLeastAsStrict(held, rival.value)) continue
    held = order.stricter(held, rival.value)
    deciders.push(rival)
  }
  return deciders
}
