// OpenID Foundation's module lists of Basic OP, Config OP and RP-Initiated Logout OP, as black-box tests under the
// modules' own names. The relying party is openid-client where a module's road is a relying party's.
import { createHash, randomBytes } from 'node:crypto'
import {
  createRemoteJWKSet,
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  jwtVerify,
  SignJWT,
  UnsecuredJWT,
} from 'jose'
import * as oidc from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  authorizationUrl,
  Browser,
  introspect,
  obtainCode,
  obtainTokens,
  post,
  redeem,
  redirectUri,
  signIn,
} from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'
import {
  ageSignIns,
  askUserinfo,
  byQuery,
  client,
  noPkce,
  postingClient,
  type RelyingParty,
  redeemPosting,
  relyingParty,
  requestModules,
  requestObjectModules,
  scopeModules,
  signingClient,
  userinfoModules,
} from './relying-party.ts'

let server: TestServer
let config: oidc.Configuration
let flow: RelyingParty['flow']
let errorOf: RelyingParty['errorOf']
beforeAll(async () => {
  // One connection: whatever asks for a second while it holds one would wait for itself.
  server = await startServer('postgres', { poolSize: 1 })
  ;({ config, flow, errorOf } = await relyingParty(server, byQuery))
})
afterAll(() => server.close())

describe('Basic OP', () => {
  it('oidcc-server', async () => {
    const { tokens, claims } = await flow()
    expect(tokens.expires_in).toBeGreaterThan(0)
    expect(Object.keys(claims)).not.toContain('name')
    const { code } = await obtainCode(server, client, noPkce)
    expect(code.length * 6).toBeGreaterThanOrEqual(128)
  })
  it('oidcc-response-type-missing', async () => {
    const answer = await new Browser(server).request(
      authorizationUrl(server, client, { ...noPkce, response_type: undefined }).url,
    )
    const error = new URL(answer.headers.get('location') ?? 'http://none/').searchParams.get('error')
    expect(answer.status === 400 || error === 'invalid_request' || error === 'unsupported_response_type').toBe(true)
  })
  it('oidcc-idtoken-signature', async () => {
    const { tokens } = await flow()
    expect(decodeProtectedHeader(tokens.id_token ?? '')).toMatchObject({ alg: 'RS256', kid: expect.any(String) })
    await jwtVerify(tokens.id_token ?? '', createRemoteJWKSet(new URL(`${server.issuer}/oauth/jwks`)), {
      issuer: server.issuer,
      audience: client,
    })
  })
  it('oidcc-idtoken-unsigned', async () => {
    expect(config.serverMetadata().id_token_signing_alg_values_supported).not.toContain('none')
  })
  it.each(userinfoModules)('%s', async (_name, method, where) => {
    const { tokens, claims } = await flow()
    const answer = await askUserinfo(server, method, where, tokens.access_token)
    expect(answer.status).toBe(200)
    expect(await answer.json()).toMatchObject({ sub: claims.sub })
  })
  it('oidcc-ensure-request-without-nonce-succeeds-for-code-flow', async () => {
    const { code } = await obtainCode(server, client, { ...noPkce, nonce: undefined })
    expect((await redeem(server, client, code, undefined)).status).toBe(200)
  })
  it.each(scopeModules)('%s', async (_name, scope, expected) => {
    const { tokens, claims } = await flow({ scope })
    expect(await oidc.fetchUserInfo(config, tokens.access_token, claims.sub)).toMatchObject(expected)
  })
  it.each(requestModules)('%s', async (_name, extra) => {
    expect((await flow(extra)).claims.acr).toBe('urn:mlpipes:acr:password')
  })
  it('oidcc-login-hint fills in the e-mail', async () => {
    const browser = new Browser(server)
    const page = await browser.follow(
      await browser.request(authorizationUrl(server, client, { ...noPkce, login_hint: 'lee@mercy.example' }).url),
    )
    expect(page.text).toContain('value="lee@mercy.example"')
  })
  it('oidcc-prompt-login', async () => {
    const first = await flow()
    await ageSignIns(server, 2)
    const second = await flow({ prompt: 'login' }, first.browser)
    expect(Number(second.claims.auth_time)).toBeGreaterThanOrEqual(Number(first.claims.auth_time))
  })
  it('oidcc-prompt-none-not-logged-in', async () => {
    expect(await errorOf({ prompt: 'none' })).toBe('login_required')
  })
  it('oidcc-prompt-none-logged-in, oidcc-id-token-hint', async () => {
    const first = await flow()
    for (const extra of [{ prompt: 'none' }, { prompt: 'none', id_token_hint: first.tokens.id_token ?? '' }]) {
      const second = await flow(extra, first.browser)
      expect(second.claims).toMatchObject({ sub: first.claims.sub, auth_time: first.claims.auth_time })
    }
  })
  it('oidcc-max-age-1', async () => {
    const first = await flow()
    await ageSignIns(server, 3)
    const second = await flow({ max_age: '1' }, first.browser, { maxAge: 1 })
    expect(Number(second.claims.auth_time)).toBeGreaterThanOrEqual(Number(first.claims.auth_time))
  })
  it('oidcc-max-age-10000', async () => {
    const first = await flow()
    const second = await flow({ max_age: '10000', prompt: 'none' }, first.browser, { maxAge: 10_000 })
    expect(second.claims.auth_time).toBe(first.claims.auth_time)
  })
  it('oidcc-codereuse, oidcc-codereuse-30seconds', async () => {
    const { code } = await obtainCode(server, client, noPkce)
    const first = await redeem(server, client, code, undefined)
    expect(first.status).toBe(200)
    expect((await redeem(server, client, code, undefined)).body['error']).toBe('invalid_grant')
    const userinfo = await fetch(`${server.issuer}/oauth/userinfo`, {
      headers: { authorization: `Bearer ${String(first.body['access_token'])}` },
    })
    expect(userinfo.status).toBe(401)
  })
  it('oidcc-ensure-registered-redirect-uri', async () => {
    const answer = await new Browser(server).request(
      authorizationUrl(server, client, { ...noPkce, redirect_uri: 'https://unregistered.example/' }).url,
    )
    expect([answer.status, answer.headers.get('location')]).toEqual([400, null])
  })
  it('oidcc-ensure-post-request-succeeds', async () => {
    const browser = new Browser(server)
    const parameters = Object.fromEntries(new URL(authorizationUrl(server, client, noPkce).url).searchParams)
    let page = await browser.follow(await browser.request('/oauth/authorize', { form: parameters }))
    page = await browser.submit(page, '/password', { email: 'lee@mercy.example', password: 'Correct-Horse-9-Battery' })
    expect(new URL(page.url).searchParams.get('code')).toBeTruthy()
    expect(new URL(page.url).searchParams.get('state')).toBe(parameters['state'])
  })
  it('oidcc-server-client-secret-post', async () => {
    await server.apply({ clients: [postingClient] })
    const { code } = await obtainCode(server, postingClient.client_id, noPkce)
    expect((await redeemPosting(server, code)).status).toBe(200)
  })
  it.each(requestObjectModules)('%s', async (_name, extra, expected) => {
    expect(await errorOf(extra)).toBe(expected)
  })
  it('oidcc-refresh-token', async () => {
    const { tokens, claims } = await flow({ scope: 'openid offline_access', prompt: 'consent' })
    const refreshed = await oidc.refreshTokenGrant(config, tokens.refresh_token ?? '')
    expect(refreshed.token_type).toBe('bearer')
    expect(refreshed.access_token).not.toBe(tokens.access_token)
    expect(refreshed.claims()).toMatchObject({ iss: server.issuer, sub: claims.sub, aud: client })
    const stolen = await post(server, '/oauth/token', 'first', {
      grant_type: 'refresh_token',
      refresh_token: refreshed.refresh_token ?? '',
    })
    expect([stolen.status, stolen.body['error']]).toEqual([400, 'invalid_grant'])
  })
  it('oidcc-ensure-request-with-valid-pkce-succeeds', async () => {
    const { code, verifier } = await obtainCode(server, client)
    expect((await redeem(server, client, code, verifier)).status).toBe(200)
  })
})

describe('a signed request object (RFC 9101), pushed', () => {
  const signing = 'certification-signing'
  const verifier = randomBytes(32).toString('base64url')
  const keys: Record<string, Awaited<ReturnType<typeof generateKeyPair>>> = {}
  beforeAll(async () => {
    const jwks = []
    for (const alg of ['PS256', 'ES256']) {
      keys[alg] = await generateKeyPair(alg)
      jwks.push({ ...(await exportJWK(keys[alg].publicKey)), kid: alg, alg })
    }
    await server.apply({ clients: [signingClient(jwks)] })
  })
  /** As it should be, but for what is changed. */
  const claimsOf = (changed: Record<string, unknown>) => ({
    iss: signing,
    aud: server.issuer,
    exp: Math.floor(Date.now() / 1000) + 60,
    client_id: signing,
    response_type: 'code',
    redirect_uri: redirectUri,
    scope: 'openid profile',
    state: 'inside',
    nonce: 'inside',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...changed,
  })
  const sign = (changed: Record<string, unknown> = {}, alg = 'PS256', { privateKey } = keys[alg] ?? expect.fail(alg)) =>
    new SignJWT(claimsOf(changed)).setProtectedHeader({ alg, kid: alg, typ: 'oauth-authz-req+jwt' }).sign(privateKey)
  const push = (request: string, beside: Record<string, string> = {}) =>
    post(server, '/oauth/par', signing, { client_id: signing, request, ...beside })

  it.each(['PS256', 'ES256'])('%s: what it says is asked, and nothing beside it', async (alg) => {
    const beside = { state: 'outside', nonce: 'outside', scope: 'openid', redirect_uri: 'https://elsewhere.example/' }
    const pushed = await push(await sign({}, alg), beside)
    expect(pushed.status).toBe(201)
    const query = new URLSearchParams({ client_id: signing, request_uri: String(pushed.body['request_uri']) })
    const url = `${server.issuer}/oauth/authorize?${query}`
    const landing = new URL((await signIn(new Browser(server), { url, verifier })).url)
    expect(landing.href.startsWith(`${redirectUri}?`)).toBe(true)
    expect(landing.searchParams.get('state')).toBe('inside')
    const tokens = await redeem(server, signing, landing.searchParams.get('code') ?? '', verifier)
    expect(tokens).toMatchObject({ status: 200, body: { scope: 'openid profile' } })
    expect(decodeJwt(String(tokens.body['id_token']))).toMatchObject({ nonce: 'inside', aud: signing })
  })

  it.each([
    ['ensure-matching-key-in-authorization-request', async () => sign({}, 'PS256', await generateKeyPair('PS256'))],
    ['ensure-request-object-with-bad-aud-fails', () => sign({ aud: 'https://elsewhere.example' })],
    ['ensure-expired-request-object-fails', () => sign({ exp: Math.floor(Date.now() / 1000) - 60 })],
    ['ensure-request-object-signature-algorithm-is-not-none', async () => new UnsecuredJWT(claimsOf({})).encode()],
    [
      'ensure-request-object-with-invalid-signature-fails',
      async () =>
        `${(await sign()).split('.').slice(0, 2).join('.')}.${(await sign({ state: 'other' })).split('.')[2]}`,
    ],
    ['par-authorization-request-containing-request_uri', () => sign({ request_uri: 'urn:x' })],
    ['ensure-matching-key-in-authorization-request: for another client', () => sign({ client_id: client })],
    ['ensure-matching-key-in-authorization-request: by another issuer', () => sign({ iss: client })],
  ])('fapi2-security-profile-final-%s', async (_name, make) => {
    expect(await push(await make())).toMatchObject({ status: 400, body: { error: 'invalid_request_object' } })
  })
})

describe('Config OP', () => {
  it('oidcc-discovery-endpoint-verification', async () => {
    for (const path of ['openid-configuration', 'oauth-authorization-server']) {
      const answer = await fetch(`${server.issuer}/.well-known/${path}`)
      expect(answer.headers.get('content-type')).toContain('application/json')
      expect(answer.headers.get('access-control-allow-origin')).toBe('*')
      const metadata = (await answer.json()) as Record<string, unknown>
      expect(metadata).toMatchObject({
        issuer: server.issuer,
        authorization_endpoint: `${server.issuer}/oauth/authorize`,
        token_endpoint: `${server.issuer}/oauth/token`,
        userinfo_endpoint: `${server.issuer}/oauth/userinfo`,
        jwks_uri: `${server.issuer}/oauth/jwks`,
        introspection_endpoint: `${server.issuer}/oauth/introspect`,
        revocation_endpoint: `${server.issuer}/oauth/revoke`,
        end_session_endpoint: `${server.issuer}/oauth/logout`,
        response_types_supported: ['code'],
        subject_types_supported: ['public'],
        code_challenge_methods_supported: ['S256'],
      })
      expect(metadata['id_token_signing_alg_values_supported']).toContain('RS256')
      expect(metadata['scopes_supported']).toContain('openid')
      expect(metadata['claims_supported']).toEqual(
        expect.arrayContaining([
          'sub',
          'org_id',
          'org_slug',
          'roles',
          'acr',
          'amr',
          'auth_time',
          'sid',
          'name',
          'email',
        ]),
      )
    }
  })
  it('JWKS holds public keys with kids of their own: RS256 of 3072 bits, and ES256', async () => {
    const { keys } = (await (await fetch(`${server.issuer}/oauth/jwks`)).json()) as { keys: Record<string, string>[] }
    expect(new Set(keys.map((key) => key['kid'])).size).toBe(keys.length)
    expect(keys.map((key) => key['alg']).sort()).toEqual(['ES256', 'RS256'])
    for (const key of keys)
      for (const secret of ['d', 'p', 'q', 'dp', 'dq', 'qi']) expect(key).not.toHaveProperty(secret)
    const rsa = keys.find((key) => key['kty'] === 'RSA')
    expect(Buffer.from(rsa?.['n'] ?? '', 'base64url')).toHaveLength(384)
  })
})

describe('RP-Initiated Logout OP', () => {
  const postLogout = 'http://localhost:9/'
  async function logout(query: Record<string, string>) {
    const tokens = await obtainTokens(server, client, noPkce)
    const { browser } = tokens
    const given = Object.fromEntries(
      Object.entries(query).map(([name, value]) => [name, value.replace('ID_TOKEN', tokens.id_token)]),
    )
    const page = await browser.follow(await browser.request(`/oauth/logout?${new URLSearchParams(given)}`))
    const landing = page.text.includes('/oauth/logout/confirm')
      ? await browser.submit(page, '/oauth/logout/confirm', {})
      : page
    return { landing, browser, tokens }
  }
  it('oidcc-rp-initiated-logout-discovery-endpoint-verification', () => {
    expect(config.serverMetadata().end_session_endpoint).toBe(`${server.issuer}/oauth/logout`)
  })
  it('oidcc-rp-initiated-logout', async () => {
    const state = 's'.repeat(128)
    const { landing, browser, tokens } = await logout({
      id_token_hint: 'ID_TOKEN',
      post_logout_redirect_uri: postLogout,
      state,
    })
    expect(landing.url).toBe(`${postLogout}?state=${state}`)
    expect(await errorOf({ prompt: 'none' }, browser)).toBe('login_required')
    expect(await introspect(server, tokens.access_token)).toEqual({ active: false })
  })
  it('oidcc-rp-initiated-logout-no-state', async () => {
    expect((await logout({ id_token_hint: 'ID_TOKEN', post_logout_redirect_uri: postLogout })).landing.url).toBe(
      postLogout,
    )
  })
  it('oidcc-rp-initiated-logout-bad-id-token-hint, -modified-id-token-hint', async () => {
    const { privateKey, publicKey } = await generateKeyPair('RS256')
    expect(await exportJWK(publicKey)).toBeTruthy()
    const claims = { sub: 'x', aud: client, iss: server.issuer }
    const foreign = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'RS256' })
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(privateKey)
    for (const hint of [foreign, new UnsecuredJWT(claims).encode(), 'garbage']) {
      const { landing } = await logout({ id_token_hint: hint, post_logout_redirect_uri: postLogout })
      expect(landing.url.startsWith(server.issuer)).toBe(true)
      expect(landing.status).toBe(400)
    }
  })
  it.each([
    [
      'oidcc-rp-initiated-logout-bad-post-logout-redirect-uri',
      { id_token_hint: 'ID_TOKEN', post_logout_redirect_uri: 'https://evil.example/' },
    ],
    [
      'oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri',
      { id_token_hint: 'ID_TOKEN', post_logout_redirect_uri: `${postLogout}?foo=bar` },
    ],
    ['oidcc-rp-initiated-logout-no-id-token-hint', { post_logout_redirect_uri: postLogout }],
    ['oidcc-rp-initiated-logout-no-params', {}],
    ['oidcc-rp-initiated-logout-no-post-logout-redirect-uri', { id_token_hint: 'ID_TOKEN' }],
    ['oidcc-rp-initiated-logout-only-state', { state: 'x' }],
  ])('%s does not redirect away', async (_name, query) => {
    const { landing } = await logout(query as Record<string, string>)
    expect(landing.url.startsWith(server.issuer)).toBe(true)
    expect(landing.text).toMatch(/You are signed out|Request id/)
  })
})
