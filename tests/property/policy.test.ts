// Organisation policy over every policy that can be written and every setting of the platform: never below a floor,
// monotone, total; policies combine as a lattice; networks as sets of addresses; what is explained is what is in effect.
import { BlockList, isIP } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { explainPolicy, type PolicySource } from '../../src/organizations/explain.ts'
import { isAddressAllowed } from '../../src/organizations/network.ts'
import {
  effectivePolicy,
  type Platform,
  type Policy,
  type PolicyInput,
  policyBreaches,
  policyFor,
  policySchema,
} from '../../src/organizations/policy.ts'
import { decidePolicy } from '../../src/organizations/policy-decisions.ts'
import {
  comparePolicies,
  fieldsOf,
  isAtLeastAsStrict,
  isTightening,
  policyOf,
  stricterPolicy,
} from '../../src/organizations/policy-order.ts'
import { canonicalRanges } from '../../src/organizations/policy-ranges.ts'
import { type FieldName, fieldNames, policyTable } from '../../src/organizations/strictness.ts'

const runs = { numRuns: 400 }
const partial = { requiredKeys: [] }

/** Any whole number that may be written, often one at or next to a floor, a default or another policy's. */
const whole = (min: number, max: number, ...near: number[]) =>
  fc.oneof(
    fc.integer({ min, max }),
    fc
      .constantFrom(...[min, max, ...near].flatMap((value) => [value - 1, value, value + 1]))
      .filter((value) => value >= min && value <= max),
  )

// Few networks, so that two policies often share some: nested, next to each other, in both families and both spellings.
const cidr = fc
  .oneof(
    fc.tuple(
      fc.constantFrom('10.0.0.0', '10.0.0.129', '10.1.2.3', '192.0.2.1', '0.0.0.0'),
      fc.integer({ min: 0, max: 32 }),
    ),
    fc.tuple(fc.constantFrom('2001:db8::', '2001:DB8:0:1::7', 'fd00::1', '::'), fc.integer({ min: 0, max: 128 })),
    fc.tuple(fc.constantFrom('::ffff:10.0.0.0', '::ffff:a01:203'), fc.integer({ min: 96, max: 128 })),
  )
  .map(([address, prefix]) => `${address}/${prefix}`)
const cidrs = fc.array(cidr, { maxLength: 6 })
const address = fc.oneof(
  fc.constantFrom('10.0.0.1', '10.0.0.130', '10.1.2.3', '10.255.255.255', '11.0.0.0', '192.0.2.1', '::ffff:10.0.0.1'),
  fc.constantFrom('2001:db8::1', '2001:db8:0:1::7', '2001:db8:0:2::', 'fd00::1', '::', '::1', 'fe80::1%eth0'),
  fc.ipV4(),
  fc.ipV6(),
)

const inputs: fc.Arbitrary<PolicyInput> = fc.record(
  {
    session: fc.record(
      {
        idleTimeout: whole(1, 31_536_000, 900, 1_800, 3_600),
        absoluteLifetime: whole(1, 31_536_000, 43_200, 86_400),
        updateAge: whole(1, 86_400, 300),
        extendOnActivity: fc.boolean(),
        maxConcurrent: fc.option(whole(1, 1_000)),
      },
      partial,
    ),
    mfa: fc.constantFrom('off' as const, 'optional' as const, 'required' as const),
    loginMethods: fc.array(fc.constantFrom('password' as const, 'magic_link' as const), { minLength: 1, maxLength: 2 }),
    password: fc.record(
      {
        profile: fc.constantFrom('hipaa' as const, 'nist-800-63b-4' as const, 'pci-4.0.1' as const, 'custom' as const),
        minLength: whole(8, 256, 12, 15),
        requireComplexity: fc.boolean(),
        historyCount: whole(0, 24, 4, 12),
        maxAgeDays: fc.option(whole(1, 3_650, 90)),
      },
      partial,
    ),
    tokens: fc.record(
      { accessTokenTtl: whole(1, 3_600, 900), refreshTokenTtl: whole(1, 31_536_000, 7_776_000) },
      partial,
    ),
    network: fc.record({ allowedCidrs: cidrs }, partial),
    audit: fc.record({ retentionDays: whole(1, 36_500, 2_190, 2_555) }, partial),
    signup: fc.constantFrom('closed' as const, 'invite' as const, 'open' as const),
  },
  partial,
)

const platforms: fc.Arbitrary<Platform> = fc.record({
  hipaaMode: fc.boolean(),
  requireMfa: fc.boolean(),
  sessionTimeoutSeconds: whole(60, 2_592_000, 1_800, 3_600),
  sessionUpdateAgeSeconds: whole(1, 86_400, 300),
  auditRetentionDays: whole(1, 36_500, 2_190, 2_555),
  enable: fc.record({
    password: fc.boolean(),
    magicLinks: fc.boolean(),
    secondFactor: fc.boolean(),
    signup: fc.boolean(),
  }),
})
const policies = fc.tuple(inputs, platforms).map(([input, platform]) => effectivePolicy(input, platform))

describe('an effective policy', () => {
  it('is made of everything that may be written', () => {
    fc.assert(
      fc.property(inputs, (input) => {
        expect(policySchema.parse(input)).toEqual(input)
      }),
      runs,
    )
  })

  // The floors once more, out of the contract and not out of the table.
  it('is never below a floor', () => {
    fc.assert(
      fc.property(inputs, platforms, (input, platform) => {
        const policy = effectivePolicy(input, platform)
        const { enable } = platform
        if (platform.hipaaMode) {
          expect(policy.session.idleTimeout).toBeLessThanOrEqual(3_600)
          expect(policy.session.absoluteLifetime).toBeLessThanOrEqual(86_400)
          expect(policy.audit.retentionDays).toBeGreaterThanOrEqual(2_190)
          const isNistWithMfa = policy.password.profile === 'nist-800-63b-4' && policy.mfa === 'required'
          expect(policy.password.minLength).toBeGreaterThanOrEqual(isNistWithMfa ? 8 : 12)
        }
        expect(policy.password.minLength).toBeGreaterThanOrEqual(8)
        if (platform.requireMfa) expect(policy.mfa).toBe('required')
        if (!enable.password) expect(policy.loginMethods).not.toContain('password')
        if (!enable.magicLinks) expect(policy.loginMethods).not.toContain('magic_link')
        if (!enable.signup) expect(policy.signup).toBe('closed')
      }),
      runs,
    )
  })

  it('has a value in every field, and is as strict as what was written but for what a profile fixes', () => {
    fc.assert(
      fc.property(inputs, platforms, (input, platform) => {
        const decisions = decidePolicy(input, platform)
        for (const name of fieldNames) {
          const { value, written } = decisions[name]
          expect(value, name).not.toBeUndefined()
          // The NIST profile forbids composition rules and periodic changes, so here what was written does not act.
          const isFixed = name === 'password.requireComplexity' || name === 'password.maxAgeDays'
          if (isFixed && decisions['password.profile'].value === 'nist-800-63b-4') continue
          if (written !== undefined) expect(isFieldStrict(name, value, written), name).toBe(true)
        }
      }),
      runs,
    )
  })

  it('gives an administrator a second factor that is never off, and nobody anything looser', () => {
    fc.assert(
      fc.property(policies, fc.boolean(), (policy, isAdministrator) => {
        const own = policyFor(policy, { isAdministrator })
        expect(isAtLeastAsStrict(own, policy)).toBe(true)
        if (isAdministrator) expect(own.mfa).not.toBe('off')
        expect({ ...own, mfa: policy.mfa }).toEqual(policy)
        if (!isAdministrator || policy.mfa !== 'off') expect(own).toEqual(policy)
      }),
      runs,
    )
  })
})

describe('writing something stricter', () => {
  /** `input` with every field of `more` that is stricter than what is in effect in its place. */
  const tightened = (input: PolicyInput, more: PolicyInput, platform: Platform): PolicyInput => {
    const [own, other] = [decidePolicy(input, platform), decidePolicy(more, platform)]
    const stricterOf = <K extends FieldName>(name: K, before: unknown, asked: unknown): unknown => {
      if (other[name].written === undefined) return before
      return isFieldStrict(name, other[name].written, own[name].written ?? own[name].value) ? asked : before
    }
    const { session, password, tokens, network, audit } = input
    const merged = {
      session: {
        idleTimeout: stricterOf('session.idleTimeout', session?.idleTimeout, more.session?.idleTimeout),
        absoluteLifetime: stricterOf(
          'session.absoluteLifetime',
          session?.absoluteLifetime,
          more.session?.absoluteLifetime,
        ),
        updateAge: stricterOf('session.updateAge', session?.updateAge, more.session?.updateAge),
        extendOnActivity: stricterOf(
          'session.extendOnActivity',
          session?.extendOnActivity,
          more.session?.extendOnActivity,
        ),
        maxConcurrent: stricterOf('session.maxConcurrent', session?.maxConcurrent, more.session?.maxConcurrent),
      },
      mfa: stricterOf('mfa', input.mfa, more.mfa),
      loginMethods: stricterOf('loginMethods', input.loginMethods, more.loginMethods),
      // The profile stays: another one is other rules, not stricter ones.
      password: {
        profile: password?.profile,
        minLength: stricterOf('password.minLength', password?.minLength, more.password?.minLength),
        requireComplexity: stricterOf(
          'password.requireComplexity',
          password?.requireComplexity,
          more.password?.requireComplexity,
        ),
        historyCount: stricterOf('password.historyCount', password?.historyCount, more.password?.historyCount),
        maxAgeDays: stricterOf('password.maxAgeDays', password?.maxAgeDays, more.password?.maxAgeDays),
      },
      tokens: {
        accessTokenTtl: stricterOf('tokens.accessTokenTtl', tokens?.accessTokenTtl, more.tokens?.accessTokenTtl),
        refreshTokenTtl: stricterOf('tokens.refreshTokenTtl', tokens?.refreshTokenTtl, more.tokens?.refreshTokenTtl),
      },
      network: {
        allowedCidrs: stricterOf('network.allowedCidrs', network?.allowedCidrs, more.network?.allowedCidrs),
      },
      audit: { retentionDays: stricterOf('audit.retentionDays', audit?.retentionDays, more.audit?.retentionDays) },
      signup: stricterOf('signup', input.signup, more.signup),
    }
    return policySchema.parse(merged)
  }

  // Two profiles ask less of a password that is only one of two factors: NIST's length and PCI's age.
  const loosenedByMfa = ['password.minLength', 'password.maxAgeDays']

  it('gives a stricter policy, but for what a profile gives back when a second factor becomes required', () => {
    let changes = 0
    fc.assert(
      fc.property(inputs, inputs, platforms, (input, more, platform) => {
        const before = effectivePolicy(input, platform)
        const after = effectivePolicy(tightened(input, more, platform), platform)
        const { looser, stricter } = comparePolicies(before, after)
        changes += stricter.length
        const becameRequired = before.mfa !== 'required' && after.mfa === 'required'
        const isProfileWithMfa = ['nist-800-63b-4', 'pci-4.0.1'].includes(after.password.profile)
        if (becameRequired && isProfileWithMfa) expect(loosenedByMfa).toEqual(expect.arrayContaining([...looser]))
        else expect(looser).toEqual([])
      }),
      runs,
    )
    expect(changes, 'some fields became stricter, or nothing was tested').toBeGreaterThan(100)
  })

  it('of the platform gives a stricter policy in the same way', () => {
    fc.assert(
      fc.property(inputs, platforms, (input, platform) => {
        const hipaa = effectivePolicy(input, { ...platform, hipaaMode: true })
        expect(isAtLeastAsStrict(hipaa, effectivePolicy(input, { ...platform, hipaaMode: false }))).toBe(true)
        const shut = { password: false, magicLinks: false, secondFactor: false, signup: false }
        const closed = effectivePolicy(input, { ...platform, enable: shut })
        expect(isAtLeastAsStrict(closed, effectivePolicy(input, platform))).toBe(true)
        const mfa = effectivePolicy(input, { ...platform, requireMfa: true })
        const { looser } = comparePolicies(effectivePolicy(input, platform), mfa)
        expect(loosenedByMfa).toEqual(expect.arrayContaining([...looser]))
      }),
      runs,
    )
  })
})

describe('two policies combined', () => {
  it('are a semilattice whose order is strictness', () => {
    fc.assert(
      fc.property(policies, policies, policies, (a, b, c) => {
        const both = stricterPolicy(a, b)
        expect(both).toEqual(stricterPolicy(b, a))
        expect(stricterPolicy(both, c)).toEqual(stricterPolicy(a, stricterPolicy(b, c)))
        expect(stricterPolicy(a, a)).toEqual(a)
        expect(isAtLeastAsStrict(both, a) && isAtLeastAsStrict(both, b)).toBe(true)
        expect(isAtLeastAsStrict(a, b)).toBe(isDeepEqual(both, a))
      }),
      runs,
    )
  })

  it('are no stricter than both ask for, in each field', () => {
    fc.assert(
      fc.property(policies, policies, policies, (a, b, c) => {
        const [both, left, right, other] = [stricterPolicy(a, b), a, b, c].map(fieldsOf)
        if (!both || !left || !right || !other) throw new Error('four policies')
        for (const name of fieldNames) {
          const isBelowBoth =
            isFieldStrict(name, other[name], left[name]) && isFieldStrict(name, other[name], right[name])
          if (isBelowBoth) expect(isFieldStrict(name, other[name], both[name]), name).toBe(true)
        }
      }),
      runs,
    )
  })

  it('are compared field by field', () => {
    fc.assert(
      fc.property(policies, policies, (a, b) => {
        const there = comparePolicies(a, b)
        const back = comparePolicies(b, a)
        expect(there).toEqual({ stricter: back.looser, looser: back.stricter })
        expect(there.looser.length === 0).toBe(isAtLeastAsStrict(b, a))
        expect(there.stricter.length > 0).toBe(isTightening(a, b))
        expect(comparePolicies(a, a)).toEqual({ stricter: [], looser: [] })
        expect(policyOf((name) => fieldsOf(a)[name])).toEqual(a)
      }),
      runs,
    )
  })
})

describe('allowed networks', () => {
  const allow = (texts: readonly string[]): Pick<Policy, 'network'> => ({ network: { allowedCidrs: texts } })

  /** Node's own lists over what was written, a list for each family. */
  const isListed = (texts: readonly string[], ip: string): boolean => {
    const lists = { ipv4: new BlockList(), ipv6: new BlockList() }
    for (const text of texts) {
      const [base = '', prefix] = text.split('/')
      const mapped = /^::ffff:/i.test(base) && Number(prefix) >= 96
      // A list of mapped ranges is asked with mapped addresses, which Node takes for IPv4.
      if (mapped) lists.ipv4.addSubnet(base, Number(prefix), 'ipv6')
      else lists[isIP(base) === 4 ? 'ipv4' : 'ipv6'].addSubnet(base, Number(prefix), isIP(base) === 4 ? 'ipv4' : 'ipv6')
    }
    const [plain = ''] = ip.replace(/^::ffff:(?=\d+\.)/i, '').split('%')
    return isIP(plain) === 4 ? lists.ipv4.check(plain, 'ipv4') : lists.ipv6.check(plain, 'ipv6')
  }

  it('keep their addresses in their one spelling', () => {
    fc.assert(
      fc.property(cidrs, address, (texts, ip) => {
        const ranges = canonicalRanges(texts)
        expect(isAddressAllowed(allow(ranges), ip)).toBe(isListed(texts, ip))
        expect(canonicalRanges(ranges)).toEqual(ranges)
        expect(canonicalRanges([...texts, ...ranges].reverse())).toEqual(ranges)
        expect(policySchema.safeParse({ network: { allowedCidrs: ranges } }).success).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  })

  it('of two policies are the addresses that both allow', () => {
    const seen = { in: 0, out: 0 }
    fc.assert(
      fc.property(policies, policies, fc.option(address, { nil: undefined }), (a, b, ip) => {
        const isAllowed = isAddressAllowed(stricterPolicy(a, b), ip)
        expect(isAllowed).toBe(isAddressAllowed(a, ip) && isAddressAllowed(b, ip))
        seen[isAllowed ? 'in' : 'out'] += 1
      }),
      { numRuns: 2_000 },
    )
    expect(Math.min(seen.in, seen.out)).toBeGreaterThan(100)
  })

  it('take any text for an address, and refuse what is none wherever there is a list', () => {
    fc.assert(
      fc.property(cidrs, fc.string(), (texts, text) => {
        if (isIP(text.split('%')[0] ?? '') !== 0) return
        expect(isAddressAllowed(allow(canonicalRanges(texts)), text)).toBe(false)
        expect(canonicalRanges([text, `${text}/8`])).toEqual([])
      }),
      runs,
    )
  })
})

describe('an explanation', () => {
  const sources: fc.Arbitrary<PolicySource> = fc.record({
    rule: fc.constantFrom('other membership' as const, 'client organisation' as const),
    organizationSlug: fc.constantFrom('hope', 'grace', 'charity'),
    input: inputs,
  })

  it('says what is in effect, and who decided it', () => {
    fc.assert(
      fc.property(inputs, platforms, fc.array(sources, { maxLength: 3 }), (input, platform, others) => {
        const own = effectivePolicy(input, platform)
        const rivals = others.map((other) => effectivePolicy(other.input, platform))
        const explanation = explainPolicy(input, platform, others)
        const combined = fieldsOf(rivals.reduce(stricterPolicy, own))
        for (const name of fieldNames) {
          const { value, decidedBy, rule, because, written } = explanation[name]
          expect(value, name).toEqual(combined[name])
          const isOwn = isFieldSame(name, combined[name], fieldsOf(own)[name])
          expect(decidedBy.length === 0, name).toBe(isOwn)
          const isForeign = rule === 'other membership' || rule === 'client organisation'
          expect(isForeign, name).toBe(!isOwn)
          if (rule === 'organisation') expect(isFieldSame(name, value, written), name).toBe(true)
          if (rule === 'platform default') expect(written, name).toBeUndefined()
          expect(because !== undefined, name).toBe(rule === 'floor' || rule === 'profile')
          // Whoever is named has a hand in it: together with the own policy they make the value.
          const named = rivals.filter((_, index) => decidedBy.includes(others[index]?.organizationSlug ?? ''))
          expect(isFieldSame(name, fieldsOf(named.reduce(stricterPolicy, own))[name], value), name).toBe(true)
        }
      }),
      runs,
    )
  })

  it('has no breach exactly when all that was written acts, as far as the platform’s switches let it', () => {
    const switches: readonly FieldName[] = ['mfa', 'loginMethods', 'signup']
    fc.assert(
      fc.property(inputs, platforms, (input, platform) => {
        const decisions = decidePolicy(input, platform)
        const ignored = fieldNames.filter((name) => {
          const { written, value } = decisions[name]
          return written !== undefined && !isFieldSame(name, written, value)
        })
        const breaches = policyBreaches(input, platform)
        const refused = ignored.filter((name) => !switches.includes(name))
        expect(breaches.map((sentence) => sentence.split(' ')[0])).toEqual(refused)
        const isWideOpen = !platform.requireMfa && Object.values(platform.enable).every(Boolean)
        if (isWideOpen) expect(breaches.length === 0).toBe(ignored.length === 0)
      }),
      runs,
    )
  })
})

// The table's rows have types of their own; here, where any row meets any value, they are asked without them.
function isFieldStrict(name: FieldName, a: unknown, b: unknown): boolean {
  const { isAtLeastAsStrict: holds } = policyTable[name]
  return Reflect.apply(holds, undefined, [a, b])
}
const isFieldSame = (name: FieldName, a: unknown, b: unknown) => isFieldStrict(name, a, b) && isFieldStrict(name, b, a)
const isDeepEqual = (a: Policy, b: Policy) => JSON.stringify(a) === JSON.stringify(b)
