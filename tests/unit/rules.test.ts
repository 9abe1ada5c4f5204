// Pure rules, over everything they can be asked: policy floors, the sign-in flow, redirect URIs, sealing.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { normalizeEmail } from '../../src/accounts/accounts.ts'
import { isClientId, isRedirectUri } from '../../src/clients/clients.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { effectivePolicy, type Platform, policySchema } from '../../src/organizations/policy.ts'

const platform: Platform = {
  hipaaMode: true,
  requireMfa: false,
  sessionTimeoutSeconds: 1_800,
  sessionUpdateAgeSeconds: 300,
  auditRetentionDays: 2_555,
  enable: { password: true, magicLinks: true, secondFactor: true, signup: true },
}

const policies = fc.record(
  {
    session: fc.record(
      {
        idleTimeout: fc.integer({ min: 1, max: 31_536_000 }),
        absoluteLifetime: fc.integer({ min: 1, max: 31_536_000 }),
      },
      { requiredKeys: [] },
    ),
    mfa: fc.constantFrom('off' as const, 'optional' as const, 'required' as const),
    audit: fc.record({ retentionDays: fc.integer({ min: 1, max: 36_500 }) }),
  },
  { requiredKeys: [] },
)

describe('effectivePolicy', () => {
  it('is never weaker than the floor', () => {
    fc.assert(
      fc.property(policies, fc.boolean(), (input, requireMfa) => {
        const policy = effectivePolicy(policySchema.parse(input), { ...platform, requireMfa })
        expect(policy.session.idleTimeout).toBeLessThanOrEqual(3_600)
        expect(policy.session.absoluteLifetime).toBeLessThanOrEqual(86_400)
        expect(policy.audit.retentionDays).toBeGreaterThanOrEqual(2_190)
        if (requireMfa) expect(policy.mfa).toBe('required')
      }),
    )
  })
})

describe('normalizeEmail', () => {
  it('is idempotent', () => {
    fc.assert(
      fc.property(fc.emailAddress(), (email) => {
        expect(normalizeEmail(normalizeEmail(email))).toBe(normalizeEmail(email))
      }),
    )
  })
})

describe('isRedirectUri', () => {
  it.each([
    'https://ehr.example/callback',
    'http://localhost:3002/callback',
    'http://127.0.0.1/cb',
    'http://[::1]:1/cb',
    "https://ehr.example/a-b_c~d/%20?x=1&y=$!'()+,;:@",
  ])('takes %s', (uri) => expect(isRedirectUri(uri)).toBe(true))
  it.each([
    'http://ehr.example/cb',
    'https://*.example/cb',
    'https://u@x.example/',
    'https://x.example/#f',
    'https://x.example/#',
    'https://x.example\\@y.example/',
    'https:x.example/',
    'https:///x.example/',
    'https://x.example/"',
    'javascript:alert(1)',
    'data:,x',
    'x',
    '',
  ])('refuses %s', (uri) => expect(isRedirectUri(uri)).toBe(false))
})

describe('isClientId', () => {
  it.each(['ehr', 'demo-ehr', 'a'.repeat(128)])('takes %s', (id) => expect(isClientId(id)).toBe(true))
  // One that looks like a subject, the client of our own pages, a NUL, one character too many.
  it.each(['acc_x', 'mlpipes-account', 'a\0', 'a'.repeat(129), ''])('refuses %j', (id) =>
    expect(isClientId(id)).toBe(false),
  )
})

describe('secrets', () => {
  const [before, now] = [createSecrets('a'.repeat(32)), createSecrets('b'.repeat(32), 'a'.repeat(32))]
  it('opens what it sealed, and what the previous secret sealed, in the same context only', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        for (const from of [before, now]) {
          expect(now.open(from.seal(text, 'x'), 'x')).toBe(text)
          expect(() => now.open(from.seal(text, 'x'), 'y')).toThrow()
        }
      }),
    )
    expect(() => before.open(now.seal('x', 'x'), 'x')).toThrow('unknown secret')
  })
  it('matches client secrets across a rotation', () => {
    expect(now.matchesClientSecret('s3cret', before.digestClientSecret('s3cret'))).toBe(true)
    expect(now.matchesClientSecret('other', before.digestClientSecret('s3cret'))).toBe(false)
  })
})
