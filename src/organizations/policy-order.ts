// Policies compared and combined, field by field as the table of strictness.ts says. Pure.
import type { Policy } from './policy.ts'
import { type FieldName, fieldNames, type PolicyFields, policyTable, type Strictness } from './strictness.ts'

/** The loosest policy that is at least as strict as both: what holds for somebody whom two organisations rule. */
export function stricterPolicy(a: Policy, b: Policy): Policy {
  const [left, right] = [fieldsOf(a), fieldsOf(b)]
  return policyOf((name) => policyTable[name].stricter(left[name], right[name]))
}

/** Whether `a` lets nobody do what `b` would not, in any field. */
export function isAtLeastAsStrict(a: Policy, b: Policy): boolean {
  const [left, right] = [fieldsOf(a), fieldsOf(b)]
  return fieldNames.every((name) => isFieldAtLeastAsStrict(name, left, right))
}

export interface PolicyChange {
  /** Fields in which something that was allowed no longer is. */
  readonly stricter: readonly FieldName[]
  /** Fields in which something is allowed that was not. A field may be in both: other networks, other methods. */
  readonly looser: readonly FieldName[]
}

/** What a change of policy changes, for a preview of it. */
export function comparePolicies(before: Policy, after: Policy): PolicyChange {
  const [left, right] = [fieldsOf(before), fieldsOf(after)]
  return {
    stricter: fieldNames.filter((name) => !isFieldAtLeastAsStrict(name, left, right)),
    looser: fieldNames.filter((name) => !isFieldAtLeastAsStrict(name, right, left)),
  }
}

/** Whether a change takes anything away that was allowed, so that what is already out has to be held to it. */
export function isTightening(before: Policy, after: Policy): boolean {
  return !isAtLeastAsStrict(before, after)
}

function isFieldAtLeastAsStrict<K extends FieldName>(name: K, a: PolicyFields, b: PolicyFields): boolean {
  return policyTable[name].isAtLeastAsStrict(a[name], b[name])
}

/** Whether two values allow the same, however they are spelled. */
export function isSameField<T>(rule: Strictness<T>, a: T, b: T): boolean {
  return rule.isAtLeastAsStrict(a, b) && rule.isAtLeastAsStrict(b, a)
}

export function fieldsOf(policy: Policy): PolicyFields {
  const { session, password, tokens } = policy
  return {
    'session.idleTimeout': session.idleTimeout,
    'session.absoluteLifetime': session.absoluteLifetime,
    'session.updateAge': session.updateAge,
    'session.extendOnActivity': session.extendOnActivity,
    'session.maxConcurrent': session.maxConcurrent,
    mfa: policy.mfa,
    loginMethods: policy.loginMethods,
    'password.profile': password.profile,
    'password.minLength': password.minLength,
    'password.requireComplexity': password.requireComplexity,
    'password.historyCount': password.historyCount,
    'password.maxAgeDays': password.maxAgeDays,
    'tokens.accessTokenTtl': tokens.accessTokenTtl,
    'tokens.refreshTokenTtl': tokens.refreshTokenTtl,
    'network.allowedCidrs': policy.network.allowedCidrs,
    'audit.retentionDays': policy.audit.retentionDays,
    signup: policy.signup,
  }
}

/** The policy that has these values. */
export function policyOf(at: <K extends FieldName>(name: K) => PolicyFields[K]): Policy {
  return {
    session: {
      idleTimeout: at('session.idleTimeout'),
      absoluteLifetime: at('session.absoluteLifetime'),
      updateAge: at('session.updateAge'),
      extendOnActivity: at('session.extendOnActivity'),
      maxConcurrent: at('session.maxConcurrent'),
    },
    mfa: at('mfa'),
    loginMethods: at('loginMethods'),
    password: {
      profile: at('password.profile'),
      minLength: at('password.minLength'),
      requireComplexity: at('password.requireComplexity'),
      historyCount: at('password.historyCount'),
      maxAgeDays: at('password.maxAgeDays'),
    },
    tokens: {
      accessTokenTtl: at('tokens.accessTokenTtl'),
      refreshTokenTtl: at('tokens.refreshTokenTtl'),
    },
    network: { allowedCidrs: at('network.allowedCidrs') },
    audit: { retentionDays: at('audit.retentionDays') },
    signup: at('signup'),
  }
}
