// FAPI 2.0 Security Profile: the modules of `fapi2-security-profile-final-test-plan` (private_key_jwt, DPoP, plain request)
// that a black box can be asked, under their names where they have one. The relying party is openid-client.
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose'
import * as oidc from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Browser, introspect, redirectUri, signIn } from '../support/client.ts'
import { people, startServer, type TestServer } from '../support/server.ts'

const clientId = 'high'
let server: TestServer
let config: oidc.Configuration
let keys: Awaited<ReturnType<typeof generateKeyPair>>
let jwk: JWK
beforeAll(async () => {
  keys = await generateKeyPair('PS256', { extractable: true })
  jwk = { ...(await exportJWK(keys.publicKey)), kid: 'one', alg: 'PS256', use: 'sig' }
  const high = {
    client_id: clientId,
    client_name: 'High Assurance',
    organization: 'mercy',
    redirect_uris: [redirectUri],
    grant_types: ['authorization_code' as const, 'refresh_token' as const],
    token_endpoint_auth_method: 'private_key_jwt' as const,
    jwks: { keys: [jwk] },
    scope: 'openid profile offline_access',
    first_party: true,
    introspection: 'own' as const,
    profile: 'fapi2' as const,
  }
  // One connection: whatever asks for a second while it holds one would wait for itself.
  server = await startServer('postgres', {
    poolSize: 1,
    seed: { ...people, clients: [...(people.clients ?? []), high] },
  })
  const key = { key: keys.privateKey, kid: 'one' }
  config = await oidc.discovery(new URL(server.issuer), clientId, undefined, oidc.PrivateKeyJwt(key), {
    execute: [oidc.allowInsecureRequests],
  })
})
afterAll(() => server.close())

async function flow(extra: Record<string, string> = {}) {
  const DPoP = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
  const pkceCodeVerifier = oidc.randomPKCECodeVerifier()
  const parameters = {
    redirect_uri: redirectUri,
    scope: 'openid profile',
    state: 'a-state',
    nonce: 'a-nonce',
    code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    ...extra,
  }
  const url = await oidc.buildAuthorizationUrlWithPAR(config, parameters, { DPoP })
  const landing = new URL((await signIn(new Browser(server), { url: url.href, verifier: '' })).url)
  const checks = { pkceCodeVerifier, expectedState: 'a-state', expectedNonce: 'a-nonce', idTokenExpected: true }
  return { DPoP, url, landing, checks, parameters }
}
const tokensOf = async ({ DPoP, landing, checks }: Awaited<ReturnType<typeof flow>>) =>
  oidc.authorizationCodeGrant(config, landing, checks, undefined, { DPoP })

/** A client assertion as this client would make it, but for what is changed. */
const assertion = (claims: Record<string, unknown> = {}, alg = 'PS256', key = keys.privateKey) =>
  new SignJWT({ iss: clientId, sub: clientId, aud: server.issuer, jti: crypto.randomUUID(), ...claims })
    .setProtectedHeader({ alg, kid: 'one' })
    .setIssuedAt()
    .setExpirationTime('1m')
    .sign(key)
const push = async (client_assertion: string, form: Record<string, string> = {}) => {
  const response = await fetch(new URL('/oauth/par', server.issuer), {
    method: 'POST',
    body: new URLSearchParams({
      client_id: clientId,
      client_assertion,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      response_type: 'code',
      redirect_uri: redirectUri,
      scope: 'openid',
      code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
      code_challenge_method: 'S256',
      ...form,
    }),
  })
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

describe('FAPI 2.0', () => {
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

  it('fapi2-security-profile-final-happy-flow', async () => {
    const done = await flow()
    expect(done.landing.searchParams.get('iss')).toBe(server.issuer)
    const tokens = await tokensOf(done)
    expect(tokens.token_type).toBe('dpop')
    expect(await introspect(server, tokens.access_token)).toMatchObject({
      active: true,
      cnf: { jkt: expect.any(String) },
    })
  })

  it('fapi2-security-profile-final-refresh-token: no rotation', async () => {
    const done = await flow()
    const tokens = await tokensOf(done)
    const refresh = tokens.refresh_token ?? ''
    for (let time = 0; time < 2; time += 1) {
      const renewed = await oidc.refreshTokenGrant(config, refresh, undefined, { DPoP: done.DPoP })
      expect(renewed.access_token).not.toBe(tokens.access_token)
      expect(renewed.refresh_token ?? refresh).toBe(refresh)
    }
  })

  it('fapi2-security-profile-final-par-authorization-request-containing-request_uri and -par-without-duplicate-parameters', async () => {
    expect((await push(await assertion(), { request_uri: 'urn:x' })).status).toBe(400)
  })

  it('fapi2-security-profile-final-ensure-unsigned-authorization-request-without-using-par-fails: requests come pushed', async () => {
    const { parameters } = await flow()
    const plain = await new Browser(server).request(oidc.buildAuthorizationUrl(config, parameters).href)
    const location = plain.headers.get('location')
    expect(location === null ? plain.status : new URL(location).searchParams.get('error')).toBe('invalid_request')
  })

  it('fapi2-security-profile-final-par-plain-pkce-rejected and -par-ensure-pkce-required', async () => {
    expect((await push(await assertion(), { code_challenge_method: 'plain' })).status).toBe(400)
    expect((await push(await assertion(), { code_challenge: '', code_challenge_method: '' })).status).toBe(400)
  })

  it.each([
    ['the token endpoint as audience', { aud: 'token' }],
    ['a list of audiences', { aud: 'list' }],
    ['another issuer', { iss: 'other' }],
    ['an expiry of the past', { exp: 1 }],
  ])('takes no client assertion with %s', async (_name, claims) => {
    const aud = { token: `${server.issuer}/oauth/token`, list: [server.issuer, 'https://elsewhere.example'] }
    const given = 'aud' in claims ? { aud: claims.aud === 'token' ? aud.token : aud.list } : claims
    const signed = new SignJWT({ iss: clientId, sub: clientId, aud: server.issuer, jti: crypto.randomUUID(), ...given })
      .setProtectedHeader({ alg: 'PS256', kid: 'one' })
      .setIssuedAt()
    const answer = await push(await ('exp' in given ? signed : signed.setExpirationTime('1m')).sign(keys.privateKey))
    expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
  })

  it('fapi2-security-profile-final-ensure-signed-client-assertion-with-RS256-fails, and one by a wrong key', async () => {
    const other = await generateKeyPair('PS256')
    expect((await push(await assertion({}, 'PS256', other.privateKey))).status).toBe(401)
    const rsa = await crypto.subtle.exportKey('jwk', keys.privateKey)
    const asRs256 = await crypto.subtle.importKey(
      'jwk',
      { ...rsa, alg: 'RS256' },
      { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
      false,
      ['sign'],
    )
    expect((await push(await assertion({}, 'RS256', asRs256))).status).toBe(401)
  })

  it('a client assertion works once', async () => {
    const once = await assertion()
    expect((await push(once)).status).toBe(201)
    expect((await push(once)).status).toBe(401)
  })

  it('fapi2-security-profile-final-ensure-authorization-code-is-bound-to-client and to its key', async () => {
    const done = await flow()
    const other = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
    const refused = oidc.authorizationCodeGrant(config, done.landing, done.checks, undefined, { DPoP: other })
    await expect(refused).rejects.toThrow()
  })

  it('no token without a proof', async () => {
    const { landing, checks } = await flow()
    await expect(oidc.authorizationCodeGrant(config, landing, checks)).rejects.toThrow()
  })
})
