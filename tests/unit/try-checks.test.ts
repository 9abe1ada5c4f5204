// What `mlpipes-auth try` must not let pass: each claim of an ID token, wrong in each way.
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { checkClaims, checkSignature, decodeToken } from '../../src/cli/try-checks.ts'

const now = 1_800_000_000
const expected = { issuer: 'https://a.example', clientId: 'app', nonce: 'n', nowSeconds: now }
const good = { iss: 'https://a.example', aud: 'app', sub: 's', exp: now + 60, iat: now, nonce: 'n' }
const failedOf = (claims: Record<string, unknown>) =>
  checkClaims({ ...good, ...claims }, expected)
    .filter((check) => !check.ok)
    .map((check) => check.name)

describe('claims of an ID token', () => {
  it('pass when they are what was asked for', () => {
    expect(failedOf({})).toEqual([])
    expect(failedOf({ aud: ['app'] })).toEqual([])
    expect(failedOf({ aud: ['app', 'other'], azp: 'app' })).toEqual([])
    expect(failedOf({ exp: now - 9, iat: now + 10 }), 'clocks differ a little').toEqual([])
  })

  it.each([
    [{ iss: 'https://b.example' }, 'id_token iss'],
    [{ iss: 'https://a.example/' }, 'id_token iss'],
    [{ iss: undefined }, 'id_token iss'],
    [{ aud: 'other' }, 'id_token aud'],
    [{ aud: [] }, 'id_token aud'],
    [{ aud: undefined }, 'id_token aud'],
    [{ aud: ['app', 'other'] }, 'id_token aud'],
    [{ aud: ['app', 'other'], azp: 'other' }, 'id_token aud'],
    [{ exp: now - 10 }, 'id_token exp'],
    [{ exp: undefined }, 'id_token exp'],
    [{ exp: String(now + 60) }, 'id_token exp'],
    [{ iat: now + 11 }, 'id_token iat'],
    [{ iat: undefined }, 'id_token iat'],
    [{ sub: undefined }, 'id_token sub'],
    [{ sub: '' }, 'id_token sub'],
    [{ sub: 'x'.repeat(256) }, 'id_token sub'],
    [{ nonce: 'other' }, 'id_token nonce'],
    [{ nonce: undefined }, 'id_token nonce'],
  ])('%j fails %s alone', (claims, name) => expect(failedOf(claims)).toEqual([name]))
})

describe('the signature of an ID token', () => {
  it('is by a published key and an announced algorithm', async () => {
    const [own, other] = [await generateKeyPair('ES256'), await generateKeyPair('ES256')]
    const keys = { keys: [{ ...(await exportJWK(own.publicKey)), kid: 'k' }] }
    const sign = (key: typeof own.privateKey) =>
      new SignJWT(good).setProtectedHeader({ alg: 'ES256', kid: 'k' }).sign(key)
    const token = await sign(own.privateKey)
    expect(await checkSignature(token, keys, ['ES256'])).toMatchObject({ ok: true, detail: 'ES256 by key k' })
    expect((await checkSignature(token, keys, ['RS256'])).ok, 'not announced').toBe(false)
    expect((await checkSignature(await sign(other.privateKey), keys, ['ES256'])).ok, 'another key').toBe(false)
    const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${token.split('.')[1]}.`
    expect((await checkSignature(none, keys, ['none', 'ES256'])).ok, 'none').toBe(false)
    expect((await checkSignature('x', keys, ['ES256'])).ok).toBe(false)
  })

  it('is not in what is shown', () => {
    const token = `${Buffer.from('{"alg":"ES256"}').toString('base64url')}.${Buffer.from('{"sub":"s"}').toString('base64url')}.c2ln`
    expect(decodeToken(token)).toEqual({ format: 'jwt', header: { alg: 'ES256' }, claims: { sub: 's' } })
    expect(decodeToken('opaque-text')).toEqual({ format: 'opaque', characters: 11 })
  })
})
