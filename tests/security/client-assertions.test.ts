// What a client may sign with and for how long (RFC 7523, SMART App Launch 2.2, FAPI 2.0 Security Profile), and that what it
// gets for it is kept by nobody on the way.
import { exportJWK, generateKeyPair, type JWTHeaderParameters, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { basic, obtainTokens, post, redirectUri } from '../support/client.ts'
import { people, startServer, type TestServer } from '../support/server.ts'

const jwksUri = 'https://keys.vendor.example/jwks'
type Key = Parameters<SignJWT['sign']>[0]
let server: TestServer
/** By algorithm. The RSA key is one for all of them and says of itself for which it is: nothing. */
const keys: Record<string, Key> = {}

beforeAll(async () => {
  const jwks = []
  for (const alg of ['ES256', 'ES384', 'Ed25519'] as const) {
    const { privateKey, publicKey } = await generateKeyPair(alg)
    keys[alg] = privateKey
    jwks.push({ ...(await exportJWK(publicKey)), kid: alg })
  }
  const rsa = await generateKeyPair('PS256', { extractable: true })
  const { alg: _, ...privateJwk } = await crypto.subtle.exportKey('jwk', rsa.privateKey as never)
  for (const [alg, name, hash] of [
    ['RS256', 'RSASSA-PKCS1-v1_5', 'SHA-256'],
    ['RS384', 'RSASSA-PKCS1-v1_5', 'SHA-384'],
    ['PS256', 'RSA-PSS', 'SHA-256'],
  ] as const)
    keys[alg] = await crypto.subtle.importKey('jwk', { ...privateJwk, key_ops: ['sign'] }, { name, hash }, false, [
      'sign',
    ])
  jwks.push({ ...(await exportJWK(rsa.publicKey)), kid: 'rsa' })
  const common = {
    organization: 'mercy',
    token_endpoint_auth_method: 'private_key_jwt' as const,
    jwks: { keys: jwks } as never,
    scope: 'openid',
  }
  server = await startServer('postgres', {
    seed: {
      ...people,
      clients: [
        ...(people.clients ?? []),
        { ...common, client_id: 'standard', client_name: 'Standard', grant_types: ['client_credentials' as const] },
        {
          ...common,
          client_id: 'asking',
          client_name: 'Asks by request object',
          grant_types: ['authorization_code' as const],
          redirect_uris: [redirectUri],
        },
        {
          ...common,
          client_id: 'high',
          client_name: 'High assurance',
          grant_types: ['authorization_code' as const],
          redirect_uris: [redirectUri],
          profile: 'fapi2' as const,
        },
      ],
    },
  })
})
afterAll(() => server.close())

const nowSeconds = () => Math.floor(Date.now() / 1_000)
function sign(alg: string, claims: Record<string, unknown>, header: Partial<JWTHeaderParameters> = {}) {
  const kid = /^[RP]S/.test(alg) ? 'rsa' : alg
  return new SignJWT({ exp: nowSeconds() + 60, ...claims })
    .setProtectedHeader({ alg, kid, typ: 'JWT', ...header })
    .sign(keys[alg] ?? expect.fail(alg))
}

const assertion = (clientId: string, alg: string, claims: Record<string, unknown> = {}, header = {}) =>
  sign(alg, { iss: clientId, sub: clientId, aud: server.issuer, jti: crypto.randomUUID(), ...claims }, header)

async function send(path: string, form: Record<string, string>) {
  const response = await fetch(new URL(path, server.issuer), { method: 'POST', body: new URLSearchParams(form) })
  const body: unknown = await response.json()
  return { status: response.status, headers: response.headers, body: Object(body) as Record<string, unknown> }
}

const asserted = (client_assertion: string) => ({
  client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
  client_assertion,
})
const ask = (client_assertion: string) =>
  send('/oauth/token', { grant_type: 'client_credentials', ...asserted(client_assertion) })
const request = {
  response_type: 'code',
  redirect_uri: redirectUri,
  scope: 'openid',
  code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
  code_challenge_method: 'S256',
}
const push = (clientId: string, client_assertion: string, form: Record<string, string> = request) =>
  send('/oauth/par', { client_id: clientId, ...form, ...asserted(client_assertion) })

/** The words say what every bad assertion is told, and no more. */
const refused = {
  status: 401,
  body: { error: 'invalid_client', error_description: 'client authentication failed' },
}

describe('a client assertion is signed', () => {
  it.each(['RS256', 'RS384', 'PS256', 'ES256', 'ES384', 'Ed25519'])('with %s by a standard client', async (alg) => {
    expect(await ask(await assertion('standard', alg))).toMatchObject({ status: 200 })
  })
  it.each(['PS256', 'ES256', 'Ed25519'])('with %s by one of the profile fapi2', async (alg) => {
    expect(await push('high', await assertion('high', alg))).toMatchObject({ status: 201 })
  })
  // It was taken: the provider goes by the algorithm of the key, and this one names none.
  it.each(['RS256', 'RS384', 'ES384'])('not with %s by one of the profile fapi2', async (alg) => {
    expect(await push('high', await assertion('high', alg))).toMatchObject(refused)
  })
  it('for the issuer alone, in the profile fapi2', async () => {
    for (const aud of [`${server.issuer}/oauth/par`, `${server.issuer}/oauth/token`, [server.issuer]])
      expect(await push('high', await assertion('high', 'PS256', { aud }))).toMatchObject(refused)
  })
  it('at a moment that has been, in the profile fapi2', async () => {
    const at = async (seconds: number) =>
      push('high', await assertion('high', 'PS256', { iat: nowSeconds() + seconds, exp: nowSeconds() + 200 }))
    expect(await at(9)).toMatchObject({ status: 201 })
    expect(await at(70)).toMatchObject(refused)
  })
})

describe('a client assertion', () => {
  it('lasts five minutes at most (SMART App Launch)', async () => {
    const ahead = async (seconds: number) => ask(await assertion('standard', 'ES384', { exp: nowSeconds() + seconds }))
    expect(await ahead(300)).toMatchObject({ status: 200 })
    // Clocks may differ by ten seconds.
    expect(await ahead(309)).toMatchObject({ status: 200 })
    expect(await ahead(313)).toMatchObject(refused)
    expect(await ahead(86_400)).toMatchObject(refused)
    expect(await push('high', await assertion('high', 'PS256', { exp: nowSeconds() + 313 }))).toMatchObject(refused)
  })

  it.each([
    ['jku', jwksUri],
    ['jku of another kind', null],
    ['jwk', {}],
    ['x5u', 'https://keys.vendor.example/x5u'],
    ['x5c', []],
  ])('F10: does not say by which key it is to be read: %s', async (name, value) => {
    const header = { [name.split(' ')[0] ?? '']: value }
    expect(await ask(await assertion('standard', 'ES256', {}, header))).toMatchObject(refused)
    expect(await push('high', await assertion('high', 'ES256', {}, header))).toMatchObject(refused)
  })

  it('F10: may not bring its own key', async () => {
    const own = await generateKeyPair('ES256')
    const jwk = await exportJWK(own.publicKey)
    const forged = await new SignJWT({ iss: 'standard', sub: 'standard', aud: server.issuer, jti: crypto.randomUUID() })
      .setProtectedHeader({ alg: 'ES256', jwk })
      .setExpirationTime('1m')
      .sign(own.privateKey)
    expect(await ask(forged)).toMatchObject(refused)
  })
})

describe('a request object', () => {
  const object = (clientId: string, alg: string, claims: Record<string, unknown> = {}) =>
    sign(alg, {
      iss: clientId,
      client_id: clientId,
      aud: server.issuer,
      nbf: nowSeconds(),
      exp: nowSeconds() + 300,
      ...request,
      ...claims,
    })
  const pushObject = async (clientId: string, alg: string, claims: Record<string, unknown> = {}) =>
    push(clientId, await assertion(clientId, 'PS256'), { request: await object(clientId, alg, claims) })

  it.each(['PS256', 'ES256'])('is signed with %s in the profile fapi2', async (alg) => {
    expect(await pushObject('high', alg)).toMatchObject({ status: 201 })
  })
  it('is not signed with RS256 in the profile fapi2, and is elsewhere', async () => {
    expect(await pushObject('high', 'RS256')).toMatchObject({ status: 400, body: { error: 'invalid_request_object' } })
    expect(await pushObject('asking', 'RS256')).toMatchObject({ status: 201 })
  })
  it.each([
    ['no nbf', { nbf: undefined }],
    ['no exp', { exp: undefined }],
    ['more than an hour', { nbf: nowSeconds() - 60, exp: nowSeconds() + 3_600 }],
  ])('has its times in the profile fapi2: not with %s', async (_name, claims) => {
    expect(await pushObject('high', 'PS256', claims)).toMatchObject({
      status: 400,
      body: { error: 'invalid_request_object' },
    })
    expect((await pushObject('asking', 'PS256', claims)).status).toBe(201)
  })
})

describe('RFC 6749 §5.1: what must be kept by nobody says so', () => {
  const headersOf = (headers: Headers) => [headers.get('cache-control'), headers.get('pragma')]
  const uncached = ['no-store', 'no-cache']

  it('for a service, in either way to authenticate', async () => {
    const bySecret = await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })
    expect(bySecret.status).toBe(200)
    expect(headersOf(bySecret.headers)).toEqual(uncached)
    expect(headersOf((await ask(await assertion('standard', 'RS384'))).headers)).toEqual(uncached)
  })
  it('for a refreshed token, for what is refused, and for what is said about it', async () => {
    const { refresh_token = '' } = await obtainTokens(server, 'ehr', {
      scope: 'openid profile email offline_access',
      prompt: 'consent',
    })
    const refreshed = await post(server, '/oauth/token', 'ehr', { grant_type: 'refresh_token', refresh_token })
    expect(refreshed.status).toBe(200)
    expect(headersOf(refreshed.headers)).toEqual(uncached)
    const unknown = await post(server, '/oauth/token', 'ehr', { grant_type: 'refresh_token', refresh_token: 'x' })
    expect(unknown.status).toBe(400)
    expect(headersOf(unknown.headers)).toEqual(uncached)

    const token = String(refreshed.body['access_token'])
    // The usual way, one that the provider answers, and one that it refuses.
    for (const form of [{ token }, { token, client_id: 'api' }, { token, client_id: 'ehr' }]) {
      const answer = await fetch(new URL('/oauth/introspect', server.issuer), {
        method: 'POST',
        headers: { authorization: basic('api') },
        body: new URLSearchParams(form),
      })
      expect([answer.status, ...headersOf(answer.headers)]).toEqual([form.client_id === 'ehr' ? 400 : 200, ...uncached])
    }
  })
})
