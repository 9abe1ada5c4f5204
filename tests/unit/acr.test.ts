// What requests ask of a sign-in: examples by section of the standards, and properties over every combination.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type AcrName, acrs, reportedAcr, requiredAcr, satisfies } from '../../src/oidc/acr.ts'

const [link, password, mfa] = acrs
const ask = (acrValues: string | undefined, acr?: unknown) =>
  requiredAcr({ acrValues, claims: acr === undefined ? undefined : JSON.stringify({ id_token: { acr } }) })
const voluntary = (least: AcrName | undefined) => ({ ok: true, least, oneOf: undefined })

describe('order', () => {
  it.each([
    [link, link, true],
    [link, password, false],
    [link, mfa, false],
    [password, link, true],
    [password, password, true],
    [password, mfa, false],
    [mfa, link, true],
    [mfa, password, true],
    [mfa, mfa, true],
    [undefined, link, false],
    ['urn:other', link, false],
    ['', link, false],
  ])('%s satisfies %s: %s', (acr, required, expected) => expect(satisfies(acr, required)).toBe(expected))
})

describe('acr_values (OpenID Connect Core §3.1.2.1, RFC 9470 §5)', () => {
  it.each([
    [undefined, undefined],
    ['', undefined],
    ['urn:other', undefined],
    [mfa, mfa],
    [`${mfa} ${password}`, password],
    [`${password} ${mfa}`, password],
    [`urn:other ${mfa}`, mfa],
    [`  ${mfa}  ${mfa} `, mfa],
    [mfa.toUpperCase(), undefined],
    [`${mfa}x`, undefined],
  ])('%j asks for %s', (values, least) => expect(ask(values)).toEqual(voluntary(least)))
})

describe('claims.id_token.acr (§5.5.1.1)', () => {
  it.each([
    [null, voluntary(undefined)],
    [{}, voluntary(undefined)],
    [{ essential: true }, voluntary(undefined)],
    [{ value: mfa }, voluntary(mfa)],
    [{ values: [mfa, password] }, voluntary(password)],
    [{ essential: false, values: ['urn:other'] }, voluntary(undefined)],
    [
      { essential: true, value: password },
      { ok: true, least: password, oneOf: [password] },
    ],
    [
      { essential: true, values: [mfa, 'urn:other', password] },
      { ok: true, least: password, oneOf: [password, mfa] },
    ],
    [
      { essential: true, value: mfa, values: [password, mfa] },
      { ok: true, least: mfa, oneOf: [mfa] },
    ],
    [
      { essential: true, value: 'urn:other' },
      { ok: false, reason: 'unknown' },
    ],
    [
      { essential: true, value: '' },
      { ok: false, reason: 'unknown' },
    ],
    [
      { essential: true, values: [] },
      { ok: false, reason: 'unknown' },
    ],
    [
      { essential: true, value: mfa, values: [password] },
      { ok: false, reason: 'unknown' },
    ],
    [
      { essential: 'yes', value: mfa },
      { ok: false, reason: 'malformed' },
    ],
    [
      { essential: true, values: mfa },
      { ok: false, reason: 'malformed' },
    ],
    [
      { essential: true, values: [mfa, 1] },
      { ok: false, reason: 'malformed' },
    ],
    [
      { essential: true, value: null },
      { ok: false, reason: 'malformed' },
    ],
    [mfa, { ok: false, reason: 'malformed' }],
    [[mfa], { ok: false, reason: 'malformed' }],
  ])('%j', (acr, expected) => expect(ask(undefined, acr)).toEqual(expected))

  it('both ways at once: both must be met, whichever is the stronger', () => {
    expect(ask(password, { essential: true, value: mfa })).toEqual({ ok: true, least: mfa, oneOf: [mfa] })
    expect(ask(mfa, { essential: true, value: password })).toEqual({ ok: true, least: mfa, oneOf: [password] })
    expect(ask(mfa, { essential: true, value: 'urn:other' })).toEqual({ ok: false, reason: 'unknown' })
  })

  it.each(['', '{', '[]', 'null', '{"id_token":[]}'])('%j as a whole is malformed', (claims) =>
    expect(requiredAcr({ acrValues: undefined, claims })).toEqual({ ok: false, reason: 'malformed' }),
  )
})

describe('what is reported', () => {
  it.each([
    [mfa, { value: password }, mfa],
    [mfa, { essential: true, value: password }, password],
    [mfa, { essential: true, values: [link, password] }, password],
    [mfa, { essential: true, values: [password, mfa] }, mfa],
    [password, { essential: true, values: [link, mfa] }, link],
    [mfa, { essential: true }, mfa],
  ])('a session of %s, asked for %j, is told as %s', (acr, claim, expected) =>
    expect(reportedAcr(acr, ask(undefined, claim))).toBe(expected),
  )
})

describe('over every request', () => {
  const name = fc.constantFrom(...acrs, 'urn:other', '')
  const claim = fc.option(
    fc.record({ essential: fc.boolean(), value: name, values: fc.array(name, { maxLength: 4 }) }, { requiredKeys: [] }),
    { nil: null },
  )
  const values = fc.option(
    fc.array(name, { maxLength: 4 }).map((names) => names.join(' ')),
    { nil: undefined },
  )
  const sessionAcr = fc.constantFrom(...acrs)

  it('a session that satisfies it is told an acr that an essential claim named, and that the session reaches', () => {
    fc.assert(
      fc.property(values, claim, sessionAcr, (acrValues, acr, session) => {
        const request = ask(acrValues, acr)
        if (!request.ok || (request.least !== undefined && !satisfies(session, request.least))) return
        const told = reportedAcr(session, request)
        expect(acrs.some((known) => known === told && satisfies(session, known))).toBe(true)
        const essential = acr?.essential === true
        if (!essential) expect(told).toBe(session)
        if (essential && acr.value !== undefined) expect(told).toBe(acr.value)
        if (essential && acr.values !== undefined) expect(acr.values).toContain(told)
      }),
    )
  })

  it('acr_values alone: the least is listed, and nothing weaker is', () => {
    fc.assert(
      fc.property(values, (acrValues) => {
        const request = ask(acrValues)
        const listed = acrs.filter((known) => acrValues?.split(' ').includes(known))
        expect(request).toEqual(voluntary(listed[0]))
      }),
    )
  })

  it('a claim never weakens what acr_values ask, and only an essential one is refused', () => {
    fc.assert(
      fc.property(values, claim, (acrValues, acr) => {
        const [alone, both] = [ask(acrValues), ask(acrValues, acr)]
        if (!both.ok) expect(acr?.essential).toBe(true)
        else if (alone.ok && alone.least !== undefined) expect(satisfies(both.least, alone.least)).toBe(true)
      }),
    )
  })

  it('a stronger session never fares worse', () => {
    fc.assert(
      fc.property(values, claim, sessionAcr, sessionAcr, (acrValues, acr, one, other) => {
        const request = ask(acrValues, acr)
        if (!request.ok || request.least === undefined || !satisfies(one, other)) return
        if (satisfies(other, request.least)) expect(satisfies(one, request.least)).toBe(true)
      }),
    )
  })

  it('no text breaks it', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (claims) => {
        const request = requiredAcr({ acrValues: claims, claims })
        expect(request.ok || request.reason === 'malformed' || request.reason === 'unknown').toBe(true)
      }),
    )
  })
})
