// Tokens that are bound to a key (RFC 9449), shown to an API with proofs as a client makes them, and as a thief would.
import { createHash, randomUUID } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, type JWTHeaderParameters, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkProof, createReplayMemory, proofAlgorithms } from '../../packages/resource-server/src/dpop.ts'
import { createVerifier, requireAcr, requireScope, type Verifier } from '../../packages/resource-server/src/index.ts'
import { secretOf, startServer, type TestServer } from '../support/server.ts'
import { personTokens, seed, serviceToken } from './seed.ts'

const origin = 'https://api.example'
const url = `${origin}/patients`
const ath = (token: string) => createHash('sha256').update(token).digest('base64url')
const now = () => Math.floor(Date.now() / 1000)

type Pair = Awaited<ReturnType<typeof generateKeyPair>>

interface Wishes {
  readonly payload?: Record<string, unknown>
  readonly header?: Record<string, unknown>
}

async function proofOf(pair: Pair, token: string, { payload, header }: Wishes = {}, alg = 'ES256'): Promise<string> {
  const claims = { htm: 'GET', htu: url, ath: ath(token), jti: randomUUID(), iat: now(), ...payload }
  const protectedHeader = { alg, typ: 'dpop+jwt', jwk: await exportJWK(pair.publicKey), ...header }
  return new SignJWT(claims).setProtectedHeader(protectedHeader as JWTHeaderParameters).sign(pair.privateKey)
}

let server: TestServer
let verifier: Verifier
let pair: Pair
let other: Pair
let token: string
beforeAll(async () => {
  pair = await generateKeyPair('ES256', { extractable: true })
  other = await generateKeyPair('ES256')
  server = await startServer('postgres', { seed: seed({ ...(await exportJWK(pair.publicKey)), alg: 'ES256' }) })
  verifier = createVerifier({
    issuer: server.issuer,
    clientId: 'api',
    clientSecret: secretOf('api'),
    dpop: { origin, algorithms: ['ES256', 'Ed25519'] },
  })
  // A service's token, bound by the proof that came with the request for it.
  const claims = { htm: 'POST', htu: `${server.issuer}/oauth/token`, jti: randomUUID(), iat: now() }
  const dpop = await new SignJWT(claims)
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: await exportJWK(pair.publicKey) })
    .sign(pair.privateKey)
  token = await serviceToken(server, 'reader', { scope: 'introspect' }, { dpop })
})
afterAll(async () => {
  verifier.close()
  await server.close()
})

async function show(headers: Record<string, string>, path = '/patients?page=2', by = verifier) {
  const verdict = await by.verify({ method: 'GET', url: path, headers })
  return verdict.ok ? 'ok' : verdict.reason
}
const withProof = async (wishes: Wishes = {}, path?: string) =>
  show({ authorization: `DPoP ${token}`, dpop: await proofOf(pair, token, wishes) }, path)

describe('a bound token', () => {
  it('opens with a proof, each of which works once, also at the same moment', async () => {
    const proof = await proofOf(pair, token)
    const headers = { authorization: `DPoP ${token}`, dpop: proof }
    const all = await Promise.all(Array.from({ length: 20 }, () => show(headers)))
    expect(all.filter((one) => one === 'ok')).toHaveLength(1)
    expect(new Set(all)).toEqual(new Set(['ok', 'replayed_proof']))
    expect(await show(headers)).toBe('replayed_proof')
    expect(await withProof()).toBe('ok')
  })

  it('is no bearer token, and is nothing where nobody checks proofs', async () => {
    const refused = await verifier.verify({ method: 'GET', url: '/', headers: { authorization: `Bearer ${token}` } })
    expect(refused).toMatchObject({
      status: 401,
      reason: 'proof_required',
      wwwAuthenticate: 'DPoP error="invalid_token", algs="ES256 Ed25519"',
    })
    expect(await show({ authorization: `DPoP ${token}` })).toBe('proof_required')
    // With a good proof beside it, the scheme still says bearer.
    expect(await show({ authorization: `Bearer ${token}`, dpop: await proofOf(pair, token) })).toBe('proof_required')
    const plain = createVerifier({ issuer: server.issuer, clientId: 'api', clientSecret: secretOf('api') })
    const headers = { authorization: `DPoP ${token}`, dpop: await proofOf(pair, token) }
    expect(await show(headers, undefined, plain)).toBe('dpop_not_offered')
    plain.close()
  })

  it('is not made of a bearer token by adding a proof', async () => {
    const { access_token: bearer } = await personTokens(server)
    expect(await show({ authorization: `DPoP ${bearer}`, dpop: await proofOf(pair, bearer) })).toBe('not_bound')
    expect(await show({ authorization: `Bearer ${bearer}` })).toBe('ok')
  })

  it('cannot be used to ask the issuer', async () => {
    const answer = await fetch(new URL('/oauth/introspect', server.issuer), {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      body: new URLSearchParams({ token }),
    })
    expect(answer.status).toBe(401)
  })

  it('tells who shows nothing that proofs are taken', async () => {
    const refused = await verifier.verify({ method: 'GET', url: '/', headers: {} })
    expect(refused).toMatchObject({ wwwAuthenticate: 'Bearer realm="api", DPoP algs="ES256 Ed25519"' })
  })
})

describe('a proof', () => {
  it.each<[string, Wishes]>([
    ['for another method', { payload: { htm: 'POST' } }],
    ['for a method in another case', { payload: { htm: 'get' } }],
    ['for another path', { payload: { htu: `${origin}/orders` } }],
    ['for another host', { payload: { htu: 'https://evil.example/patients' } }],
    ['for a relative address', { payload: { htu: '/patients' } }],
    ['for another token', { payload: { ath: ath('another') } }],
    ['for no token', { payload: { ath: undefined } }],
    ['of the past', { payload: { iat: now() - 90 } }],
    ['of the future', { payload: { iat: now() + 90 } }],
    ['of no time', { payload: { iat: 'now' } }],
    ['without a name', { payload: { jti: undefined } }],
    ['with an empty name', { payload: { jti: '' } }],
    ['with a name past the limit', { payload: { jti: 'a'.repeat(257) } }],
    ['of another type', { header: { typ: 'jwt' } }],
    ['without a key', { header: { jwk: undefined } }],
    ['that says more than is understood', { header: { crit: ['b64'], b64: true } }],
  ])('%s proves nothing', async (_name, wishes) => {
    expect(await withProof(wishes)).toBe('invalid_proof')
  })

  it('is taken at its limits, however its address is written', async () => {
    expect(await withProof({ payload: { jti: 'a'.repeat(256) } })).toBe('ok')
    expect(await withProof({ payload: { iat: now() - 55 } })).toBe('ok')
    expect(await withProof({ payload: { htu: 'HTTPS://API.example:443/patients?page=9#x' } })).toBe('ok')
    expect(await withProof({}, `http://internal:8080/patients`)).toBe('ok')
    expect(await withProof({}, '//api.example/patients')).toBe('invalid_proof')
  })

  it('by another key, with another key in it, or with a key given away proves nothing', async () => {
    const dpop = async (by: Pair, header?: Record<string, unknown>) =>
      show({ authorization: `DPoP ${token}`, dpop: await proofOf(by, token, header ? { header } : {}) })
    expect(await dpop(other)).toBe('invalid_proof')
    expect(await dpop(other, { jwk: await exportJWK(pair.publicKey) })).toBe('invalid_proof')
    expect(await dpop(pair, { jwk: await exportJWK(pair.privateKey) })).toBe('invalid_proof')
    const hmac = await new SignJWT({ htm: 'GET', htu: url, ath: ath(token), jti: 'x', iat: now() })
      .setProtectedHeader({ alg: 'HS256', typ: 'dpop+jwt', jwk: { kty: 'oct', k: 'AA' } } as never)
      .sign(new Uint8Array(32))
    const none = `${Buffer.from('{"alg":"none","typ":"dpop+jwt"}').toString('base64url')}.e30.`
    for (const text of [hmac, none, 'a.b.c', '', 'x'.repeat(9_000), `${await proofOf(pair, token)}, x`])
      expect(await show({ authorization: `DPoP ${token}`, dpop: text }), text.slice(0, 20)).not.toBe('ok')
  })

  it.each(proofAlgorithms)('is checked by %s, and not by what is not allowed', async (alg) => {
    // Nobody generates the old name of Ed25519 any more, but clients send it.
    const keys = await generateKeyPair(alg === 'EdDSA' ? 'Ed25519' : alg)
    const proof = await proofOf(keys, 'a-token', {}, alg)
    const jkt = await calculateJwkThumbprint(await exportJWK(keys.publicKey))
    const subject = { method: 'GET', url: new URL(url), accessToken: 'a-token', jkt }
    expect(checkProof(proof, subject, { algorithms: [alg], windowSeconds: 60 })).toBeDefined()
    const others = proofAlgorithms.filter((name) => name !== alg)
    expect(checkProof(proof, subject, { algorithms: others, windowSeconds: 60 })).toBeUndefined()
    const [head, body, signature = ''] = proof.split('.')
    const flipped = `${head}.${body}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`
    expect(checkProof(flipped, subject, { algorithms: [alg], windowSeconds: 60 })).toBeUndefined()
  })
})

describe('the algorithms of proofs', () => {
  // The package offered ES384, PS256 and RS256, by which the issuer binds no token: who chose one of them got none.
  it('are those by which the issuer binds tokens, and the challenge says no others', async () => {
    const discovery = await (await fetch(`${server.issuer}/.well-known/openid-configuration`)).json()
    const algs = (discovery as Record<string, unknown>)['dpop_signing_alg_values_supported']
    expect(proofAlgorithms).toEqual(algs)
    const usual = createVerifier({
      issuer: server.issuer,
      clientId: 'api',
      clientSecret: secretOf('api'),
      dpop: { origin },
    })
    const refused = await usual.verify({ method: 'GET', url: '/', headers: {} })
    usual.close()
    const offered = `Bearer realm="api", DPoP algs="${proofAlgorithms.join(' ')}"`
    expect(refused).toMatchObject({ wwwAuthenticate: offered })
  })
})

describe('the memory of used proofs', () => {
  it('says when it is full, and forgets only what is too old to be shown again', () => {
    const memory = createReplayMemory(2)
    const soon = Date.now() + 60_000
    expect([memory.claim('a', Date.now() - 1), memory.claim('b', soon), memory.claim('b', soon)]).toEqual([
      true,
      true,
      false,
    ])
    expect(memory.claim('c', soon)).toBe(true)
    expect([memory.claim('d', soon), memory.claim('b', soon)]).toEqual(['full', false])
  })

  it('refuses for now what it could not remember', async () => {
    const dpop = { origin, replayMemory: { claim: async () => 'full' as const } }
    const full = createVerifier({ issuer: server.issuer, clientId: 'api', clientSecret: secretOf('api'), dpop })
    const headers = { authorization: `DPoP ${token}`, dpop: await proofOf(pair, token) }
    expect(await full.verify({ method: 'GET', url: '/patients', headers })).toMatchObject({ ok: false, status: 503 })
    full.close()
  })
})

describe('requirements', () => {
  const some = { client_id: 'a', exp: 1, token_type: 'Bearer', scope: 'openid orders', acr: 'mfa', auth_time: 1_000 }

  it('are met by every scope, one of the acr values and a recent proof', () => {
    expect(requireScope(some, 'orders openid')).toBeUndefined()
    expect(requireScope(some, 'order')).toMatchObject({ status: 403 })
    const acr = { acrValues: ['password', 'mfa'], maxAgeSeconds: 300 }
    expect(requireAcr(some, acr, 1_300_000)).toBeUndefined()
    expect(requireAcr(some, acr, 1_300_001)).toMatchObject({ status: 401 })
    expect(requireAcr({ ...some, acr: 'link' }, acr, 1_300_000)).toMatchObject({ status: 401 })
  })

  it('are not met by a token that does not say', () => {
    const { acr: _acr, auth_time: _time, ...silent } = some
    expect(requireAcr(silent, { acrValues: ['mfa'] })).toMatchObject({ reason: 'insufficient_user_authentication' })
    expect(requireAcr(silent, { maxAgeSeconds: 300 })).toMatchObject({ reason: 'insufficient_user_authentication' })
  })

  it('are said in the scheme of the token', () => {
    const refused = requireScope({ ...some, cnf: { jkt: 'x' } }, 'more')
    expect(refused?.wwwAuthenticate).toBe('DPoP error="insufficient_scope", scope="more"')
  })
})
