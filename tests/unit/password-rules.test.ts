// What a new password has to be: every profile at its limit and one below, the floors over every policy, the blocklist,
// and F38 and F39 as far as they need no database.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createContext, runInContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { blockReason } from '../../src/credentials/blocklist.ts'
import {
  checkNewPassword,
  describePasswordRules,
  effectivePasswordRules,
  isPasswordExpired,
  type PasswordRules,
  passwordExpired,
} from '../../src/credentials/password-rules.ts'
import { createViews } from '../../src/http/views.ts'
import {
  effectivePolicy,
  type Platform,
  type PolicyInput,
  policyBreaches,
  policySchema,
} from '../../src/organizations/policy.ts'

const platform: Platform = {
  hipaaMode: true,
  requireMfa: false,
  sessionTimeoutSeconds: 1_800,
  sessionUpdateAgeSeconds: 300,
  auditRetentionDays: 2_555,
  enable: { password: true, magicLinks: true, secondFactor: true, signup: true },
}
const relaxed = { ...platform, hipaaMode: false }
const context = { email: 'dr.lee1985@mercy.example', name: 'Ada Moreno', organizationName: 'Mercy Hospital' }
const rulesOf = (input: PolicyInput, on: Platform = platform) => effectivePasswordRules(effectivePolicy(input, on))
const codes = (password: string, rules: PasswordRules = rulesOf({})) => {
  const verdict = checkNewPassword(password, rules, context)
  return verdict.ok ? [] : verdict.problems.map((problem) => problem.code)
}
const nist: PolicyInput = { password: { profile: 'nist-800-63b-4' } }
const pci: PolicyInput = { password: { profile: 'pci-4.0.1' } }
const custom = (fields: object): PolicyInput => policySchema.parse({ password: { profile: 'custom', ...fields } })

// What no list holds, cut to a length: lower-case letters, with other classes put in front.
const letters = 'vqzkoruwehtxjmygbnpdlsfacireuo'
const ofLength = (length: number, start = '') => (start + letters.repeat(9)).slice(0, length)

describe('profiles', () => {
  const table: [string, PolicyInput, Platform, Partial<PasswordRules>][] = [
    ['hipaa by default', {}, platform, { minLength: 12, minClasses: 3, historyCount: 12, maxAgeDays: null }],
    ['nist alone', nist, platform, { minLength: 15, minClasses: 0, historyCount: 0, maxAgeDays: null }],
    ['nist with mfa', { ...nist, mfa: 'required' }, platform, { minLength: 8, minClasses: 0 }],
    ['nist with mfa of the platform', nist, { ...platform, requireMfa: true }, { minLength: 8 }],
    ['nist with optional mfa', { ...nist, mfa: 'optional' }, platform, { minLength: 15 }],
    ['pci alone', pci, platform, { minLength: 12, lettersAndDigits: true, historyCount: 4, maxAgeDays: 90 }],
    ['pci with mfa', { ...pci, mfa: 'required' }, platform, { minLength: 12, maxAgeDays: null, minClasses: 0 }],
    ['custom as given', custom({ minLength: 8, requireComplexity: false, historyCount: 0 }), relaxed, { minLength: 8 }],
    ['custom in HIPAA mode', custom({ minLength: 8 }), platform, { minLength: 12 }],
    ['custom without fields', custom({}), relaxed, { minLength: 12, minClasses: 3, historyCount: 12 }],
    ['custom may leave complexity out', custom({ requireComplexity: false }), platform, { minClasses: 0 }],
    ['hipaa tightened', { password: { minLength: 20, maxAgeDays: 60 } }, platform, { minLength: 20, maxAgeDays: 60 }],
    [
      'hipaa not loosened',
      { password: { minLength: 8, requireComplexity: false, historyCount: 1 } },
      relaxed,
      { minLength: 12, minClasses: 3, historyCount: 12 },
    ],
    [
      'nist keeps composition and age out',
      { password: { profile: 'nist-800-63b-4', requireComplexity: true, maxAgeDays: 30, historyCount: 5 } },
      platform,
      { minClasses: 0, maxAgeDays: null, historyCount: 5 },
    ],
    [
      'pci tightened',
      { password: { profile: 'pci-4.0.1', requireComplexity: true, maxAgeDays: 30 } },
      platform,
      { minClasses: 3, lettersAndDigits: true, maxAgeDays: 30 },
    ],
    [
      'pci not loosened',
      { password: { profile: 'pci-4.0.1', maxAgeDays: 365, historyCount: 0 } },
      platform,
      { maxAgeDays: 90, historyCount: 4 },
    ],
  ]
  it.each(table)('%s', (_, input, on, expected) => expect(rulesOf(input, on)).toMatchObject(expected))

  it.each([
    ['hipaa', {}, 12, 'Vq1'],
    ['nist alone', nist, 15, ''],
    ['nist with mfa', { ...nist, mfa: 'required' }, 8, ''],
    ['pci', pci, 12, '1'],
    ['custom', custom({ minLength: 17 }), 17, 'Vq1'],
  ] as [string, PolicyInput, number, string][])(
    '%s takes its limit and refuses one below',
    (_, input, limit, start) => {
      expect(codes(ofLength(limit, start), rulesOf(input))).toEqual([])
      expect(codes(ofLength(limit - 1, start), rulesOf(input))).toEqual(['too_short'])
    },
  )

  const passwordInputs = fc.record(
    {
      profile: fc.constantFrom('hipaa' as const, 'nist-800-63b-4' as const, 'pci-4.0.1' as const, 'custom' as const),
      minLength: fc.integer({ min: 8, max: 256 }),
      requireComplexity: fc.boolean(),
      historyCount: fc.integer({ min: 0, max: 24 }),
      maxAgeDays: fc.option(fc.integer({ min: 1, max: 3_650 })),
    },
    { requiredKeys: [] },
  )
  const policies = fc.record(
    { password: passwordInputs, mfa: fc.constantFrom('off' as const, 'optional' as const, 'required' as const) },
    { requiredKeys: [] },
  )

  it('never falls below a floor or a profile, whatever is written', () => {
    fc.assert(
      fc.property(policies, fc.boolean(), fc.boolean(), (input, hipaaMode, requireMfa) => {
        const { password, mfa } = effectivePolicy(input, { ...platform, hipaaMode, requireMfa })
        expect(password.minLength).toBeGreaterThanOrEqual(8)
        if (hipaaMode && !(password.profile === 'nist-800-63b-4' && mfa === 'required'))
          expect(password.minLength).toBeGreaterThanOrEqual(12)
        if (password.profile === 'hipaa') expect(password.requireComplexity).toBe(true)
        if (password.profile === 'nist-800-63b-4')
          expect(password).toMatchObject({ requireComplexity: false, maxAgeDays: null })
        if (password.profile === 'pci-4.0.1' && mfa !== 'required') expect(password.maxAgeDays).toBeLessThanOrEqual(90)
        if (password.profile !== 'nist-800-63b-4')
          expect(password.minLength).toBeGreaterThanOrEqual(input.password?.minLength ?? 0)
        expect(password.historyCount).toBeGreaterThanOrEqual(input.password?.historyCount ?? 0)
      }),
    )
  })

  it('says of a policy exactly what would not take effect', () => {
    fc.assert(
      fc.property(policies, fc.boolean(), fc.boolean(), (input, hipaaMode, requireMfa) => {
        const on = { ...platform, hipaaMode, requireMfa }
        const effective: Record<string, unknown> = effectivePolicy(input, on).password
        const ignored = Object.entries(input.password ?? {}).filter(([key, value]) => effective[key] !== value)
        const breaches = policyBreaches(input, on)
        expect(breaches).toHaveLength(ignored.length)
        for (const [key] of ignored) expect(breaches.join('\n')).toContain(`password.${key} must be`)
      }),
    )
  })
})

describe('composition', () => {
  it.each([
    ['vqzkoruwehtx', ['needs_classes']],
    ['vqzkoruwehtX', ['needs_classes']],
    ['vqzkoruweht1', ['needs_classes']],
    ['Vqzkoruweht1', []],
    ['Vqzkoruweh tx', []],
    ['vqzkoruweh-1', []],
    ['VQZKORUWEH-1', []],
    // Letters without case are a class of their own.
    ['ñéüøåπλω1漢字仮', []],
  ] as [string, string[]][])('hipaa: %s', (password, expected) => expect(codes(password)).toEqual(expected))
  it.each([
    ['vqzkoruwehtx', ['needs_letters_and_digits']],
    ['493-610-275-8', ['needs_letters_and_digits']],
    ['vqzkoruweht1', []],
  ] as [string, string[]][])('pci: %s', (password, expected) => expect(codes(password, rulesOf(pci))).toEqual(expected))
  it('says everything at once, and how to meet it', () => {
    const verdict = checkNewPassword('moreno', rulesOf({}), context)
    expect(verdict).toEqual({
      ok: false,
      problems: [
        { code: 'too_short', text: 'Use at least 12 characters; this has 6.' },
        {
          code: 'needs_classes',
          text: 'Mix at least three kinds of characters: add two of an upper-case letter, a digit or another character, such as a space or a sign.',
        },
        { code: 'name', text: expect.stringContaining('your name') },
      ],
    })
  })
})

describe('F38: length and characters', () => {
  const long = rulesOf({ ...nist, mfa: 'required' })
  it('counts code points after NFC', () => {
    expect(codes('é'.normalize('NFD').repeat(3), long)).toContain('too_short')
    const verdict = checkNewPassword('q7'.concat('é'.normalize('NFD')), long, context)
    expect(verdict).toMatchObject({ problems: [{ text: 'Use at least 8 characters; this has 3.' }] })
    expect(codes('🐎🔋📎🏥🩺🧬🦠', long)).toEqual(['too_short'])
    expect(codes('🐎🔋📎🏥🩺🧬🦠🪡', long)).toEqual([])
  })
  it.each([
    [1, ['too_short']],
    [8, []],
    [64, []],
    [73, []],
    [256, []],
    [257, ['too_long']],
    [1_000_000, ['too_long']],
  ] as [number, string[]][])('%i characters', (length, expected) => {
    const password = letters.repeat(Math.ceil(length / letters.length)).slice(0, length - 1)
    expect(codes(`${password}é`.normalize('NFD'), long)).toEqual(expected)
  })
  it('refuses what is no text', () => {
    expect(codes('')).toEqual(['empty'])
    expect(codes('Vqzkoruweht1\0')).toEqual(['unusable'])
    expect(codes('Vqzkoruweht1\ud800')).toEqual(['unusable'])
  })
  it('counts spaces, at the ends too', () => expect(codes('  Vqzkoruwe  ')).not.toContain('too_short'))
})

describe('F39: what is guessed first', () => {
  it.each([
    ['password', 'common'],
    ['PassWord2026!', 'common'],
    ['!!12password34', 'common'],
    ['P@ssw0rd2026', 'common'],
    ['1qaz2wsx3edc4rfv', 'common'],
    ['passwordpassword', 'common'],
    ['professionally', 'common'],
    ['Müllermüller', 'common'],
    ['aaaaaaaaaaaa', 'simple'],
    ['abcdefghijkl', 'simple'],
    ['123456789012', 'simple'],
    ['109876543210', 'simple'],
    ['zyxwvutsrqpo', 'simple'],
    ['abcabcabcabc', 'simple'],
    ['aaaabbbbcccc', 'simple'],
    ['Abcdefghijkl1!', 'simple'],
    ['dr.lee1985@mercy.example', 'email'],
    ['DR.LEE1985@mercy.example1', 'email'],
    ['dr.lee1985', 'email'],
    ['DrLee1985-2026', 'email'],
    ['mercy.example', 'email'],
    ['Ada Moreno 2026', 'name'],
    ['onerom12345!', 'name'],
    ['m0r3n0m0r3n0', 'name'],
    ['Mercy-Hospital-1', 'organization'],
    ['M3rcyH0spital99', 'organization'],
    ['MLPipes-2026', 'product'],
    ['qwer12342026!', 'common'],
    ['Abcdefghijkl-7', 'simple'],
    ['sepiplm-2026', 'product'],
    ['mlp1pesmlp1pes', 'product'],
  ] as const)('%s is %s', (password, reason) => expect(blockReason(password, context)).toBe(reason))

  it.each([
    'Correct-Horse-9-Battery',
    'correct horse battery staple',
    // The entire password is compared, not its parts.
    'my password is Elephant',
    'Mercy-Kitchen-42',
    'moreno likes purple tea',
    'lee73920174651029384',
    'qW7#zz91Lp0!',
  ])('%s is none of that', (password) => expect(blockReason(password, context)).toBeUndefined())

  it('names no word of a context that is empty or short', () => {
    const bare = { email: 'a@b.co', name: '', organizationName: 'X' }
    expect(blockReason('a1234567b', bare)).toBeUndefined()
    expect(blockReason('Xy-9-qzvkw', bare)).toBeUndefined()
  })

  it('takes what a generator makes', () => {
    const characters = [...'abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789-_!?']
    const generated = fc.array(fc.constantFrom(...characters), { minLength: 16, maxLength: 16 })
    fc.assert(
      fc.property(fc.noShrink(generated), (points) => {
        // The property test's own favourites are simple on purpose; a generator's are not.
        fc.pre(new Set(points).size >= 10)
        expect(blockReason(points.join(''), context)).toBeUndefined()
      }),
    )
  })

  it('reads its lists as what they are: plain entries in lower case, thousands for every length asked', () => {
    const { resolve } = createRequire(import.meta.url)
    const files = ['common/src/passwords', 'en/src/commonWords', 'en/src/wikipedia']
    const texts = files.map((file) => readFileSync(resolve(`@zxcvbn-ts/language-${file}.json`), 'utf8'))
    for (const text of texts) expect(text).not.toMatch(/\\|[A-Z]/)
    const [passwords = [], ...words] = texts.map((text): string[] => JSON.parse(text))
    const atLeast = (length: number) => new Set([passwords, ...words].flat().filter((entry) => entry.length >= length))
    expect(passwords.filter((entry) => entry.length >= 8).length).toBeGreaterThan(15_000)
    expect(atLeast(12).size).toBeGreaterThan(3_000)
    // The 3,000 most common of the passwords that could meet the shortest rule are refused, each of them.
    const top = passwords.filter((entry) => entry.length >= 8).slice(0, 3_000)
    expect(top.filter((entry) => blockReason(entry, context) === undefined)).toEqual([])
    // Made long enough for any rule, they still are.
    expect(top.filter((entry) => blockReason(`${entry.toUpperCase()}2026!`, context) === undefined)).toEqual([])
  }, 60_000)
})

describe('expiry', () => {
  const now = new Date('2026-06-01T00:00:00Z')
  const daysAgo = (days: number, ms = 0) => new Date(now.getTime() - days * 86_400_000 + ms)
  it.each([
    [{ changedAt: daysAgo(90), mustChange: false }, 90, true],
    [{ changedAt: daysAgo(90, 1), mustChange: false }, 90, false],
    [{ changedAt: daysAgo(9_000), mustChange: false }, null, false],
    [{ changedAt: now, mustChange: true }, null, true],
    [{ changedAt: undefined, mustChange: false }, 1, false],
    [{ changedAt: undefined, mustChange: true }, 1, false],
  ])('%o at %s days: %s', (state, maxAgeDays, expected) => {
    expect(passwordExpired(state, { maxAgeDays }, now)).toBe(expected)
    const account = { passwordChangedAt: state.changedAt, passwordMustChange: state.mustChange }
    const { password } = effectivePolicy({}, platform)
    expect(isPasswordExpired({ ...account, policy: { password: { ...password, maxAgeDays } } }, now)).toBe(expected)
  })
})

describe('the page', () => {
  const views = createViews({ cache: false })
  const rules = describePasswordRules(rulesOf(pci))
  const render = (newPassword: object) => views.render('partials/new-password', { newPassword }, 'r')
  it('shows the rules before the field and ties them to it', () => {
    const html = render({ rules })
    expect(html).toMatch(/At least 12 characters[\s\S]*Both letters and digits[\s\S]*last 4 passwords[\s\S]*<input/)
    expect(html).toContain('aria-describedby="new-password-rules"')
    expect(html).toMatch(/name="newPassword" type="password" autocomplete="new-password"/)
    expect(html).not.toMatch(/maxlength|role="alert"|style=/)
  })
  it('lists what is wrong in an alert that describes the field', () => {
    const verdict = checkNewPassword('moreno', rulesOf({}), { ...context, name: '<b>Moreno' })
    const html = render({ rules, id: 'p1', name: 'password', problems: verdict.ok ? [] : verdict.problems })
    expect(html).toMatch(/role="alert" id="p1-problems"[\s\S]*at least 12 characters; this has 6\./)
    expect(html).toContain('aria-describedby="p1-rules p1-problems" aria-invalid="true"')
    expect(html).toContain('<label for="p1">New password</label>')
  })
})

describe('public/strength.js', () => {
  const sandbox = createContext({ document: { querySelectorAll: () => [] } })
  runInContext(readFileSync('public/strength.js', 'utf8'), sandbox)
  const evaluate = (expression: string, value: unknown): unknown => {
    sandbox['value'] = value
    return runInContext(expression, sandbox)
  }
  it('meets a rule exactly when the server says so', () => {
    const texts = fc.string({
      unit: fc.constantFrom('a', 'Z', '5', ' ', '-', 'é', 'e\u0301', '漢', '🐎', 'ǅ', '٣'),
      maxLength: 20,
    })
    const kinds = { length: 'too_short', classes: 'needs_classes', 'letters-and-digits': 'needs_letters_and_digits' }
    const rules = { ...rulesOf({ password: { profile: 'pci-4.0.1', requireComplexity: true } }), minLength: 8 }
    fc.assert(
      fc.property(texts, (text) => {
        fc.pre(text !== '')
        const found = codes(text, rules)
        for (const { check } of describePasswordRules(rules)) {
          if (!check) continue
          const met = evaluate('meetsRule(passwordFacts(value.text), value.kind, value.atLeast)', { text, ...check })
          expect(met, `${text} ${check.kind}`).toBe(!found.some((code) => code === kinds[check.kind]))
        }
      }),
    )
  })
  it('says in words where it stands', () => {
    const words = (text: string, level: number, met: number) =>
      evaluate('passwordWords(passwordFacts(value.text), value.level, value.met, 2)', { text, level, met })
    expect(words('', 0, 0)).toBe('')
    expect(words('a', 1, 0)).toBe('1 character. 0 of 2 rules met so far.')
    expect(words('Vqzkoruweht1', 2, 2)).toContain('12 characters. Length and characters are right.')
    const level = (text: string) => evaluate('passwordLevel(passwordFacts(value), true, 12)', text)
    expect(['', 'Aa1!Aa1!Aa1!Aa1!', 'Vqzkoruweht1', 'Vqzkoruweht1-xjm', 'Vqzkoruweht1-xjmygbn'].map(level)).toEqual([
      0, 1, 2, 3, 4,
    ])
  })
})
