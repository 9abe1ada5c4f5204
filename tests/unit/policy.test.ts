// Organisation policy by its table: every field's order cell by cell, every floor at its limit and one past it, and what
// is explained in the cases that people will ask about.
import { describe, expect, it } from 'vitest'
import { explainPolicy } from '../../src/organizations/explain.ts'
import { isAddressAllowed } from '../../src/organizations/network.ts'
import {
  effectivePolicy,
  type Platform,
  type PolicyInput,
  policyBreaches,
  policyFor,
  policySchema,
} from '../../src/organizations/policy.ts'
import { comparePolicies, isTightening, stricterPolicy } from '../../src/organizations/policy-order.ts'
import { canonicalRanges, commonRanges } from '../../src/organizations/policy-ranges.ts'
import {
  type FieldName,
  type FieldRule,
  fieldNames,
  type PolicyFields,
  policyTable,
} from '../../src/organizations/strictness.ts'

const platform: Platform = {
  hipaaMode: true,
  requireMfa: false,
  sessionTimeoutSeconds: 1_800,
  sessionUpdateAgeSeconds: 300,
  auditRetentionDays: 2_555,
  enable: { password: true, magicLinks: true, secondFactor: true, signup: true },
}
const relaxed = { ...platform, hipaaMode: false }

/** Values of each field from the loosest to the strictest. */
const ladders: { readonly [K in FieldName]: readonly PolicyFields[K][] } = {
  'session.idleTimeout': [3_600, 900, 1],
  'session.absoluteLifetime': [86_400, 43_200, 1],
  'session.updateAge': [300, 60, 1],
  'session.extendOnActivity': [true, false],
  'session.maxConcurrent': [null, 1_000, 1],
  mfa: ['off', 'optional', 'required'],
  loginMethods: [['password', 'magic_link'], ['password'], []],
  'password.profile': ['nist-800-63b-4', 'custom', 'hipaa', 'pci-4.0.1'],
  'password.minLength': [8, 12, 256],
  'password.requireComplexity': [false, true],
  'password.historyCount': [0, 12, 24],
  'password.maxAgeDays': [null, 365, 90],
  'tokens.accessTokenTtl': [3_600, 900, 1],
  'tokens.refreshTokenTtl': [7_776_000, 1],
  'network.allowedCidrs': [
    null,
    ['0.0.0.0/0', '::/0'],
    ['10.0.0.0/8'],
    ['10.1.0.0/16', '10.3.0.0/16'],
    ['10.1.0.0/24'],
    [],
  ],
  'audit.retentionDays': [2_190, 2_555, 36_500],
  signup: ['open', 'invite', 'closed'],
}

describe('the table', () => {
  it('has a row for each field of a policy, and for nothing else', () => {
    expect(Object.keys(policyTable)).toEqual(fieldNames)
    const written = Object.entries(policySchema.shape).flatMap(([group, schema]) => {
      const inner = schema.unwrap()
      return 'shape' in inner ? Object.keys(inner.shape).map((field) => `${group}.${field}`) : [group]
    })
    expect(written).toEqual(fieldNames)
  })

  it.each(fieldNames)('%s is stricter in one direction', (name) => climb(name))

  function climb<K extends FieldName>(name: K): void {
    const rule: FieldRule<PolicyFields[K]> = policyTable[name]
    const ladder: readonly PolicyFields[K][] = ladders[name]
    for (const [i, a] of ladder.entries())
      for (const [j, b] of ladder.entries()) {
        expect(rule.isAtLeastAsStrict(a, b), `${a} against ${b}`).toBe(i >= j)
        expect(rule.stricter(a, b), `${a} and ${b}`).toEqual(i >= j ? a : b)
      }
  }

  it('says of values that are merely different that neither is stricter, and combines them', () => {
    const methods = policyTable.loginMethods
    expect(methods.isAtLeastAsStrict(['password'], ['magic_link'])).toBe(false)
    expect(methods.isAtLeastAsStrict(['magic_link'], ['password'])).toBe(false)
    expect(methods.stricter(['password'], ['magic_link'])).toEqual([])
    const networks = policyTable['network.allowedCidrs']
    expect(networks.isAtLeastAsStrict(['10.0.0.0/8'], ['192.0.2.0/24'])).toBe(false)
    expect(networks.stricter(['10.0.0.0/8'], ['192.0.2.0/24'])).toEqual([])
  })
})

describe('floors', () => {
  it.each([
    [{ session: { idleTimeout: 3_600 } }, undefined],
    [{ session: { idleTimeout: 3_601 } }, 'session.idleTimeout must be at most 3600 (HIPAA mode)'],
    [{ session: { absoluteLifetime: 86_400 } }, undefined],
    [{ session: { absoluteLifetime: 86_401 } }, 'session.absoluteLifetime must be at most 86400 (HIPAA mode)'],
    [{ audit: { retentionDays: 2_190 } }, undefined],
    [{ audit: { retentionDays: 2_189 } }, 'audit.retentionDays must be at least 2190 (HIPAA mode)'],
    [{ password: { profile: 'custom', minLength: 12 } }, undefined],
    [{ password: { profile: 'custom', minLength: 11 } }, 'password.minLength must be at least 12 (HIPAA mode)'],
  ] as [PolicyInput, string | undefined][])('%j: %s', (input, breach) => {
    expect(policyBreaches(input, platform)).toEqual(breach === undefined ? [] : [breach])
    expect(policyBreaches(input, relaxed)).toEqual([])
  })

  it('of the profile NIST are said in its own words', () => {
    const password = { profile: 'nist-800-63b-4' as const, requireComplexity: true, maxAgeDays: 90 }
    expect(policyBreaches({ password }, platform)).toEqual([
      'password.requireComplexity must be false (profile nist-800-63b-4 has no composition rules)',
      'password.maxAgeDays must be null (profile nist-800-63b-4 has no periodic changes)',
    ])
  })

  it('that are switches of the platform narrow without refusing', () => {
    const off = { ...platform, requireMfa: true, enable: { ...platform.enable, magicLinks: false, signup: false } }
    const input: PolicyInput = { mfa: 'off', loginMethods: ['magic_link'], signup: 'open' }
    expect(policyBreaches(input, off)).toEqual([])
    expect(effectivePolicy(input, off)).toMatchObject({ mfa: 'required', loginMethods: [], signup: 'closed' })
  })

  it('of an administrator: a second factor may always be set up', () => {
    const mfaOf = (mfa: 'off' | 'optional' | 'required', isAdministrator: boolean) =>
      policyFor(effectivePolicy({ mfa }, platform), { isAdministrator }).mfa
    expect([mfaOf('off', true), mfaOf('optional', true), mfaOf('required', true)]).toEqual([
      'optional',
      'optional',
      'required',
    ])
    expect([mfaOf('off', false), mfaOf('optional', false)]).toEqual(['off', 'optional'])
  })
})

describe('address ranges', () => {
  it.each([
    [['10.9.8.7/8'], ['10.0.0.0/8']],
    [['10.0.0.128/25', '10.0.0.0/25'], ['10.0.0.0/24']],
    [
      ['10.0.1.0/24', '10.0.2.0/24'],
      ['10.0.1.0/24', '10.0.2.0/24'],
    ],
    [['10.0.0.0/26', '10.0.0.64/26', '10.0.0.128/25'], ['10.0.0.0/24']],
    [['10.0.0.0/8', '10.1.0.0/16', '10.0.0.0/8'], ['10.0.0.0/8']],
    [['::ffff:10.1.2.3/104'], ['10.0.0.0/8']],
    [['2001:0DB8:0::/32'], ['2001:db8::/32']],
    [
      ['2001:db8::1/128', '192.0.2.1/32'],
      ['192.0.2.1/32', '2001:db8::1/128'],
    ],
    [
      ['::/1', '8000::/1', '0.0.0.0/1', '128.0.0.0/1'],
      ['0.0.0.0/0', '::/0'],
    ],
    [['10.0.0.0/33', '10.0.0.0', 'x/8', '10.0.0.256/8', '::1/129', '[::1]/64', ''], []],
  ])('%j are %j', (texts, ranges) => expect(canonicalRanges(texts)).toEqual(ranges))

  it.each([
    [['10.0.0.0/8'], ['10.1.0.0/16', '11.0.0.0/8'], ['10.1.0.0/16']],
    [['10.1.0.0/16', '10.3.0.0/16'], ['10.0.0.0/14'], ['10.1.0.0/16', '10.3.0.0/16']],
    [['10.0.0.0/8', '2001:db8::/32'], ['::/0'], ['2001:db8::/32']],
    [['10.0.0.0/8'], ['192.0.2.0/24'], []],
    [['10.0.0.0/8'], [], []],
  ])('%j and %j share %j', (a, b, common) => {
    expect(commonRanges(a, b)).toEqual(common)
    expect(commonRanges(b, a)).toEqual(common)
  })

  const of = (...allowedCidrs: string[]) => effectivePolicy({ network: { allowedCidrs } }, platform)
  it.each([
    [of(), '203.0.113.9', true],
    [of(), undefined, true],
    [of('10.0.0.0/8'), '10.255.255.255', true],
    [of('10.0.0.0/8'), '11.0.0.0', false],
    [of('10.0.0.0/8'), '::ffff:10.0.0.1', true],
    [of('10.0.0.0/8'), '::ffff:a00:1', true],
    [of('10.0.0.0/8'), undefined, false],
    [of('10.0.0.0/8'), '', false],
    [of('10.0.0.0/8'), '10.0.0.1, 10.0.0.2', false],
    [of('10.0.0.0/8'), '2001:db8::1', false],
    [of('::ffff:10.0.0.0/104'), '10.0.0.1', true],
    // All of IPv6 is not all of IPv4, though Node's list would say so.
    [of('::/0'), '10.0.0.1', false],
    [of('::/0'), '2001:db8::1', true],
    [of('2001:db8::/32'), '2001:db8:ffff::1%eth0', true],
    [stricterPolicy(of('10.0.0.0/8'), of('192.0.2.0/24')), '10.0.0.1', false],
    [stricterPolicy(of('10.0.0.0/8'), of('192.0.2.0/24')), undefined, false],
    [stricterPolicy(of('10.0.0.0/8'), of()), '10.0.0.1', true],
  ] as const)('%j %s: %s', (policy, ip, isAllowed) => expect(isAddressAllowed(policy, ip)).toBe(isAllowed))
})

describe('policies combined', () => {
  const combined = (a: PolicyInput, b: PolicyInput) =>
    stricterPolicy(effectivePolicy(a, platform), effectivePolicy(b, platform))
  it('keep the profile whose rules still hold', () => {
    const nist: PolicyInput = { password: { profile: 'nist-800-63b-4' } }
    const pci: PolicyInput = { password: { profile: 'pci-4.0.1' } }
    expect(combined(nist, nist).password).toMatchObject({ profile: 'nist-800-63b-4', minLength: 15 })
    expect(combined(nist, {}).password).toEqual({
      profile: 'hipaa',
      minLength: 15,
      requireComplexity: true,
      historyCount: 12,
      maxAgeDays: null,
    })
    // Letters and digits are asked for by the name of the profile.
    expect(combined(pci, {}).password).toMatchObject({ profile: 'pci-4.0.1', requireComplexity: true, maxAgeDays: 90 })
  })

  it('may let nobody in', () => {
    expect(combined({ loginMethods: ['password'] }, { loginMethods: ['magic_link'] }).loginMethods).toEqual([])
  })
})

describe('a change', () => {
  it('says which fields become stricter and which looser', () => {
    const before = effectivePolicy({ session: { idleTimeout: 900 }, loginMethods: ['password'] }, platform)
    const after = effectivePolicy(
      {
        session: { idleTimeout: 600 },
        mfa: 'required',
        loginMethods: ['magic_link'],
        tokens: { accessTokenTtl: 1_800 },
      },
      platform,
    )
    expect(comparePolicies(before, after)).toEqual({
      stricter: ['session.idleTimeout', 'mfa', 'loginMethods'],
      looser: ['loginMethods', 'tokens.accessTokenTtl'],
    })
    expect(isTightening(before, after)).toBe(true)
    const looser = effectivePolicy({ session: { idleTimeout: 1_200 }, loginMethods: ['password'] }, platform)
    expect(isTightening(before, looser)).toBe(false)
    expect(isTightening(before, before)).toBe(false)
  })
})

describe('an explanation', () => {
  const own: PolicyInput = {
    session: { idleTimeout: 7_200 },
    mfa: 'optional',
    loginMethods: ['magic_link', 'password'],
    password: { profile: 'hipaa', minLength: 8, historyCount: 24 },
    network: { allowedCidrs: ['10.0.0.0/8'] },
  }
  const on = { ...platform, requireMfa: true }

  it('names the floor, the default, the organisation or the profile', () => {
    const explanation = explainPolicy(own, on)
    expect(explanation['session.idleTimeout']).toEqual({
      value: 3_600,
      rule: 'floor',
      because: 'HIPAA mode',
      decidedBy: [],
      written: 7_200,
    })
    expect(explanation.mfa).toMatchObject({ value: 'required', rule: 'floor', because: 'REQUIRE_MFA' })
    expect(explanation['session.updateAge']).toMatchObject({ value: 300, rule: 'platform default', written: undefined })
    expect(explanation.loginMethods).toMatchObject({ value: ['password', 'magic_link'], rule: 'organisation' })
    expect(explanation['password.minLength']).toMatchObject({ value: 12, rule: 'profile', written: 8 })
    expect(explanation['password.historyCount']).toMatchObject({ value: 24, rule: 'organisation' })
    expect(explanation['password.requireComplexity']).toMatchObject({
      value: true,
      rule: 'profile',
      written: undefined,
    })
  })

  it('names whose policy was stricter, and each of them where none says it alone', () => {
    const explanation = explainPolicy(own, on, [
      {
        rule: 'other membership',
        organizationSlug: 'hope',
        input: { session: { idleTimeout: 900 }, network: { allowedCidrs: ['10.1.0.0/16', '192.0.2.0/24'] } },
      },
      {
        rule: 'client organisation',
        organizationSlug: 'grace',
        input: { session: { idleTimeout: 300 }, network: { allowedCidrs: ['10.0.0.0/12'] } },
      },
    ])
    expect(explanation['session.idleTimeout']).toEqual({
      value: 300,
      rule: 'client organisation',
      because: undefined,
      decidedBy: ['grace'],
      written: 7_200,
    })
    expect(explanation['network.allowedCidrs']).toMatchObject({
      value: ['10.1.0.0/16'],
      rule: 'other membership',
      decidedBy: ['hope'],
    })
    expect(explanation['password.historyCount']).toMatchObject({ rule: 'organisation', decidedBy: [] })
  })
})
