// FAPI 2.0 Security Profile: the modules of `fapi2-security-profile-final-test-plan` (private_key_jwt, DPoP, plain request)
// that are about the client, its requests and where they lead. What it does with a code is in fapi2-tokens.test.ts.
import { exportJWK, generateKeyPair } from 'jose'
import * as oidc from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Browser, introspect, redirectUri, signIn } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createProofKey, type Fapi2Client, now, openFapi2Client, proofFor, refusalOf } from './fapi2-client.ts'

let server: TestServer
let client: Fapi2Client
let second: Fapi2Client
let config: oidc.Configuration
beforeAll(async () => {
  // One connection: whatever asks for a second while it holds one would wait for itself.
  server = await startServer('postgres', { poolSize: 1 })
  client = await openFapi2Client(server, 'high')
  // Its redirect URI has a query, as that of the suite's second client.
  second = await openFapi2Client(server, 'second', `${redirectUri}?dummy1=lorem&dummy2=ipsum`)
  config = client.config
})
afterAll(() => server.close())

/** A sign-in through openid-client, which checks state, issuer, nonce, signature, audience and times. */
async function flow() {
  const DPoP = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
  const pkceCodeVerifier = oidc.randomPKCECodeVerifier()
  const parameters = {
    redirect_uri: redirectUri,
    scope: 'openid profile',
    state: 'a-state',
    nonce: 'a-nonce',
    code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
  }
  const url = await oidc.buildAuthorizationUrlWithPAR(config, parameters, { DPoP })
  const landing = new URL((await signIn(new Browser(server), { url: url.href, verifier: '' })).url)
  const checks = { pkceCodeVerifier, expectedState: 'a-state', expectedNonce: 'a-nonce', idTokenExpected: true }
  return { DPoP, url, landing, checks, parameters }
}
const requestUri = async (extra: Record<string, string | undefined> = {}, by = client) => {
  const pushed = await by.push(extra)
  expect(pushed.status).toBe(201)
  return pushed.body['request_uri']
}
const idTokenOf = (tokens: { readonly body: Record<string, unknown> }) =>
  JSON.parse(Buffer.from(String(tokens.body['id_token']).split('.')[1] ?? '', 'base64url').toString())

/** The client's own key, for another algorithm. */
async function rs256Key() {
  const jwk = { ...(await exportJWK(client.keys.privateKey)), alg: 'RS256' }
  return crypto.subtle.importKey('jwk', jwk, { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }, false, ['sign'])
}

describe('FAPI 2.0: a client that does as it should', () => {
  it('fapi2-security-profile-final-discovery-end-point-verification', () => {
    const metadata = config.serverMetadata()
    expect(metadata).toMatchObject({
      issuer: server.issuer,
      authorization_response_iss_parameter_supported: true,
      pushed_authorization_request_endpoint: `${server.issuer}/oauth/par`,
    })
    expect(metadata.code_challenge_methods_supported).toEqual(['S256'])
    expect(metadata.dpop_signing_alg_values_supported).toEqual(expect.arrayContaining(['ES256']))
    expect(metadata.token_endpoint_auth_methods_supported).toContain('private_key_jwt')
  })

  it('fapi2-security-profile-final-happy-flow, -par-without-duplicate-parameters', async () => {
    const { DPoP, url, landing, checks } = await flow()
    expect([...url.searchParams.keys()].sort()).toEqual(['client_id', 'request_uri'])
    expect(landing.searchParams.get('iss')).toBe(server.issuer)
    const tokens = await oidc.authorizationCodeGrant(config, landing, checks, undefined, { DPoP })
    expect(tokens.token_type).toBe('dpop')
    expect(await introspect(server, tokens.access_token)).toMatchObject({
      active: true,
      cnf: { jkt: expect.any(String) },
    })
  })

  it.each([
    ['without-state-success', { state: undefined }],
    ['without-nonce-success', { nonce: undefined }],
    ['with-64-char-nonce-success', { nonce: 'n'.repeat(64) }],
    ['with-64-char-nonce-success: as many for state', { state: 's'.repeat(64) }],
    ['with-long-nonce', { nonce: 'n'.repeat(384) }],
    ['with-long-state', { state: 's'.repeat(1_000) }],
  ])('fapi2-security-profile-final-ensure-authorization-request-%s', async (_name, extra) => {
    const sent = { state: 'a-state', nonce: 'a-nonce', ...extra }
    const landing = await client.land(extra)
    expect(landing.parameters.get('state') ?? undefined).toBe(sent.state)
    const tokens = await client.redeem(landing)
    expect(tokens.status).toBe(200)
    expect(idTokenOf(tokens).nonce).toBe(sent.nonce)
  })

  it('fapi2-security-profile-final-ensure-other-scope-order-succeeds', async () => {
    const tokens = await client.redeem(await client.land({ scope: 'profile openid' }))
    expect(String(tokens.body['scope']).split(' ').sort()).toEqual(['openid', 'profile'])
  })

  it('fapi2-security-profile-final-test-claims-parameter-identity-claims', async () => {
    const claims = JSON.stringify({ id_token: { name: { essential: true }, 'x-unknown': null } })
    const tokens = await client.redeem(await client.land({ claims }))
    expect(idTokenOf(tokens)).toMatchObject({ name: 'Dr Lee' })
    expect(idTokenOf(tokens)).not.toHaveProperty('x-unknown')
  })

  it.each([
    ['high', redirectUri],
    ['second', `${redirectUri}?dummy1=lorem&dummy2=ipsum`],
  ])('fapi2-security-profile-final-user-rejects-authentication: back to client %s', async (clientId, returnTo) => {
    const by = clientId === 'high' ? client : second
    const state = 's'.repeat(128)
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(by.authorizationUrl(await requestUri({ state }, by))))
    const back = new URL((await browser.submit(page, '/cancel', {})).url)
    const { error_description, ...rest } = Object.fromEntries(back.searchParams)
    expect(error_description).toEqual(expect.any(String))
    const own = Object.fromEntries(new URL(returnTo).searchParams)
    expect(rest).toEqual({ ...own, error: 'access_denied', state, iss: server.issuer })
  })
})

describe('FAPI 2.0: requests', () => {
  it('fapi2-security-profile-final-ensure-unsigned-authorization-request-without-using-par-fails: requests come pushed', async () => {
    const { parameters } = await flow()
    const plain = await new Browser(server).request(oidc.buildAuthorizationUrl(config, parameters).href)
    const location = plain.headers.get('location')
    expect(location === null ? plain.status : new URL(location).searchParams.get('error')).toBe('invalid_request')
  })

  it.each([
    [
      'par-authorization-request-containing-request_uri-form-param',
      { request_uri: 'urn:x' },
      'request_uri_not_supported',
    ],
    ['par-plain-pkce-rejected', { code_challenge_method: 'plain' }, 'invalid_request'],
    ['par-ensure-pkce-required', { code_challenge: undefined, code_challenge_method: undefined }, 'invalid_request'],
    ['ensure-redirect-uri-in-authorization-request', { redirect_uri: undefined }, 'invalid_request'],
    ['ensure-registered-redirect-uri', { redirect_uri: 'https://elsewhere.example/' }, 'invalid_request'],
    ['ensure-response-type-code-idtoken-fails', { response_type: 'code id_token' }, 'unsupported_response_type'],
    ['ensure-response-type-token-fails', { response_type: 'token' }, 'unsupported_response_type'],
  ])('fapi2-security-profile-final-%s', async (_name, extra, error) => {
    expect(await client.push(extra)).toMatchObject({ status: 400, body: { error } })
  })

  it('a parameter that is pushed twice, with one value or with two, is refused', async () => {
    const challenge = ['code_challenge', 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'] as const
    const once = [
      ['client_id', client.clientId],
      ['response_type', 'code'],
      ['redirect_uri', redirectUri],
      ['scope', 'openid'],
      ['code_challenge_method', 'S256'],
      challenge,
    ] as const
    expect((await client.post('/oauth/par', once)).status).toBe(201)
    for (const again of [['scope', 'openid'], ['scope', 'profile'], ['client_id', 'second'], challenge] as const) {
      const answer = await client.post('/oauth/par', [...once, again])
      expect(answer, again[0]).toMatchObject({ status: 400, body: { error: 'invalid_request' } })
    }
  })

  it.each(['GET', 'PUT'])('fapi2-security-profile-final-par-attempt-invalid-http-method: %s', async (method) => {
    const query = new URLSearchParams({
      client_id: client.clientId,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: await client.assertion(),
      response_type: 'code',
      redirect_uri: redirectUri,
      scope: 'openid',
      code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
      code_challenge_method: 'S256',
    })
    const answer =
      method === 'GET'
        ? await fetch(`${server.issuer}/oauth/par?${query}`)
        : await fetch(`${server.issuer}/oauth/par`, { method, body: query })
    // RFC 9126 §2.3; the module takes any refusal.
    expect(answer.status).toBe(405)
    expect(answer.headers.get('allow')).toBe('POST')
    expect(await answer.text()).not.toContain('urn:ietf:params:oauth:request_uri')
  })
})

describe('FAPI 2.0: a pushed request', () => {
  it('fapi2-security-profile-final-par-ensure-reused-request-uri-prior-to-auth-completion-succeeds, -par-attempt-reuse-request_uri', async () => {
    const url = client.authorizationUrl(await requestUri())
    const first = new Browser(server)
    const page = await first.follow(await first.request(url))
    expect(page.text).toContain('/password"')
    const landing = await signIn(new Browser(server), { url, verifier: '' })
    expect(new URL(landing.url).searchParams.get('code')).toBeTruthy()
    expect(await refusalOf(server, url)).toEqual({ status: 400, error: 'invalid_request_uri' })
  })

  it('fapi2-security-profile-final-par-attempt-to-use-expired-request_uri', async () => {
    const pushed = await client.push()
    const seconds = Number(pushed.body['expires_in'])
    expect(seconds).toBeLessThan(600)
    await server.database.run(
      `update mlpipes_auth.oidc_payloads set expires_at = expires_at - make_interval(secs => $1)
        where model = 'PushedAuthorizationRequest'`,
      [seconds],
    )
    const url = client.authorizationUrl(pushed.body['request_uri'])
    expect(await refusalOf(server, url)).toEqual({ status: 400, error: 'invalid_request_uri' })
  })

  it('fapi2-security-profile-final-par-attempt-to-use-request_uri-for-different-client', async () => {
    const uri = await requestUri()
    const refused = await refusalOf(server, second.authorizationUrl(uri))
    expect(refused).toEqual({ status: 400, error: 'invalid_request_object' })
    const landing = await signIn(new Browser(server), { url: client.authorizationUrl(uri), verifier: '' })
    expect(new URL(landing.url).searchParams.get('code')).toBeTruthy()
  })

  it.each([
    ['ensure-different-state-inside-and-outside-request-object', { state: 'inside' }, 'inside'],
    ['state-only-outside-request-object-not-used', { state: undefined }, null],
  ])('fapi2-security-profile-final-%s', async (_name, extra, expected) => {
    const landing = await client.land(extra, undefined, { state: 'outside' })
    expect(landing.parameters.get('state')).toBe(expected)
  })

  it('fapi2-security-profile-final-ensure-different-nonce-inside-and-outside-request-object', async () => {
    const landing = await client.land({ nonce: 'inside' }, undefined, { nonce: 'outside' })
    expect(idTokenOf(await client.redeem(landing)).nonce).toBe('inside')
  })

  it('fapi2-security-profile-final-ensure-mismatched-dpop-jkt-fails', async () => {
    const [key, other] = [await createProofKey(), await createProofKey()]
    const push = async (dpop_jkt: string) =>
      client.push({ dpop_jkt }, { proof: await proofFor(key, `${server.issuer}/oauth/par`) })
    expect(await push(other.thumbprint)).toMatchObject({ status: 400, body: { error: 'invalid_request' } })
    expect((await push(key.thumbprint)).status).toBe(201)
  })
})

describe('FAPI 2.0: a client assertion', () => {
  it.each([
    ['par-test-par-endpoint-url-as-audience-fails', () => ({ aud: `${server.issuer}/oauth/par` })],
    ['par-test-token-endpoint-url-as-audience-fails', () => ({ aud: `${server.issuer}/oauth/token` })],
    ['par-test-array-as-audience-fails', () => ({ aud: [server.issuer, 'https://elsewhere.example'] })],
    ['par-test-array-as-audience-fails: the issuer alone', () => ({ aud: [server.issuer] })],
    ['ensure-client-assertion-with-wrong-aud-fails', () => ({ aud: 'https://elsewhere.example' })],
    ['ensure-client-assertion-with-no-sub-fails', () => ({ sub: undefined })],
    ['ensure-client-assertion-with-exp-is-5-minutes-in-past-fails', () => ({ exp: now() - 300 })],
    [
      'par-ensure-jwt-client-assertions-nbf-over-60-seconds-in-the-future-fails',
      () => ({ iat: now() + 62, nbf: now() + 62, exp: now() + 122 }),
    ],
    ['ensure-client-id-in-token-endpoint: an issuer that is another client', () => ({ iss: 'second' })],
  ])('fapi2-security-profile-final-%s', async (_name, claims) => {
    const refused = { status: 401, body: { error: 'invalid_client' } }
    expect(await client.push({}, { assertion: await client.assertion(claims()) })).toMatchObject(refused)
    const form = { client_id: client.clientId, grant_type: 'refresh_token', refresh_token: 'any' }
    const atToken = await client.post('/oauth/token', form, { assertion: await client.assertion(claims()) })
    expect(atToken).toMatchObject(refused)
  })

  it.each([0, 8])(
    'fapi2-security-profile-final-par-ensure-jwt-client-assertions-nbf-8-seconds-in-the-future-is-accepted: %i',
    async (ahead) => {
      const assertion = await client.assertion({ iat: now() + ahead, nbf: now() + ahead })
      expect((await client.push({}, { assertion })).status).toBe(201)
    },
  )

  it('fapi2-security-profile-final-ensure-signed-client-assertion-with-RS256-fails, and one by a wrong key', async () => {
    const refused = { status: 401, body: { error: 'invalid_client' } }
    const other = await generateKeyPair('PS256')
    const byOther = await client.assertion({}, 'PS256', other.privateKey)
    expect(await client.push({}, { assertion: byOther })).toMatchObject(refused)
    expect(await client.push({}, { assertion: await client.assertion({}, 'RS256', await rs256Key()) })).toMatchObject(
      refused,
    )
  })

  it('works once', async () => {
    const assertion = await client.assertion()
    expect((await client.push({}, { assertion })).status).toBe(201)
    expect(await client.push({}, { assertion })).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
  })
})

// Of `fapi2-message-signing-final-test-plan`; what holds for every profile is in basic-op.test.ts.
describe('FAPI 2.0 Message Signing: a request object', () => {
  const push = async (request: string) => client.post('/oauth/par', { client_id: client.clientId, request })

  it.each([
    ['multiple-aud-succeeds', () => ({ aud: [server.issuer, 'https://elsewhere.example'] })],
    ['nbf-8-seconds-in-the-future-is-accepted', () => ({ nbf: now() + 8 })],
  ])('fapi2-security-profile-final-ensure-request-object-with-%s', async (_name, claims) => {
    const pushed = await push(await client.requestObject(claims()))
    expect(pushed.status).toBe(201)
    const url = client.authorizationUrl(pushed.body['request_uri'])
    const landing = await signIn(new Browser(server), { url, verifier: '' })
    expect(new URL(landing.url).searchParams.get('code')).toBeTruthy()
  })

  it.each([
    ['request-object-without-exp-fails', () => client.requestObject({ exp: undefined })],
    ['request-object-without-nbf-fails', () => client.requestObject({ nbf: undefined })],
    ['request-object-with-exp-over-60-fails', () => client.requestObject({ exp: now() + 4_200 })],
    ['request-object-with-nbf-over-60-fails', () => client.requestObject({ nbf: now() - 4_200 })],
    ['request-object-with-iat-62-seconds-in-future-fails', () => client.requestObject({ iat: now() + 62 })],
    ['signed-request-object-with-RS256-fails', async () => client.requestObject({}, 'RS256', await rs256Key())],
    ['matching-key-in-authorization-request', () => client.requestObject({}, 'PS256', second.keys.privateKey)],
  ])('fapi2-security-profile-final-ensure-%s', async (_name, make) => {
    expect(await push(await make())).toMatchObject({ status: 400, body: { error: 'invalid_request_object' } })
  })
})
