// A policy that got stricter, at every use of what is out already: how old tokens may get, and from where a public client
// uses its own. Nothing of it ends a session, so that no ending has a part in what is seen here.
import { exportJWK, generateKeyPair } from 'jose'
import * as oidc from 'openid-client'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { isOutlived } from '../../src/oidc/token-age.ts'
import {
  type Answer,
  Browser,
  introspectBothWays,
  obtainCode,
  post,
  redeem,
  redirectUri,
  signIn,
} from '../support/client.ts'
import { people, startServer, type TestServer } from '../support/server.ts'

const daySeconds = 86_400
const app = {
  organization: 'mercy',
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  first_party: true,
  introspection: 'own' as const,
}
const scope = 'openid profile offline_access admin:read'
const seed = {
  ...people,
  clients: [
    ...(people.clients ?? []).filter((client) => client.client_id !== 'spa'),
    { ...app, client_id: 'app', client_secret: 'app-secret-0123456789', client_name: 'App', scope },
    // Its organisation has a say in what people of another one do with it.
    {
      ...app,
      client_id: 'guestbook',
      client_secret: 'guestbook-secret-0123456789',
      client_name: 'Guestbook',
      organization: 'hope',
      scope,
      introspection: 'organization' as const,
    },
    {
      ...app,
      client_id: 'spa',
      client_name: 'Spa',
      token_endpoint_auth_method: 'none' as const,
      scope,
      introspection: 'none' as const,
    },
  ],
}

const administrator = 'ada@mercy.example'
const userinfo = async (server: TestServer, token: string, headers: Record<string, string> = {}) =>
  (
    await fetch(new URL('/oauth/userinfo', server.issuer), {
      headers: { authorization: `Bearer ${token}`, ...headers },
    })
  ).status
const adminApi = async (server: TestServer, token: string, headers: Record<string, string> = {}) =>
  (await fetch(new URL('/api/admin/me', server.issuer), { headers: { authorization: `Bearer ${token}`, ...headers } }))
    .status
const liveSessions = async (server: TestServer) =>
  (await server.database.run('select uid from mlpipes_auth.sessions where ended_at is null', [])).length

describe('the age of tokens', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer('postgres', { seed })
  })
  afterAll(() => server.close())
  beforeEach(() => tokens({}))
  afterEach(() => vi.restoreAllMocks())

  const tokens = (mercy: object, hope: object = {}) =>
    server.apply({
      organizations: [
        { slug: 'mercy', name: 'Mercy Hospital', policy: { tokens: mercy } },
        { slug: 'hope', name: 'Hope Clinic', policy: { tokens: hope } },
      ],
    })
  /** The provider's clock, at the end of this second. */
  const at = (seconds: number) => vi.spyOn(Date, 'now').mockReturnValue(seconds * 1_000 + 999)
  async function open(extra: Record<string, string> = {}, client = 'app') {
    const asked = { scope: 'openid profile', ...extra }
    const { code, verifier } = await obtainCode(server, client, asked, new Browser(server), administrator)
    const { body } = await redeem(server, client, code, verifier)
    return { access_token: String(body['access_token']), refresh_token: String(body['refresh_token']) }
  }
  const payloadOf = async (model: string) => {
    const [row] = await server.database.run(
      'select payload from mlpipes_auth.oidc_payloads where model = $1 order by created_at desc limit 1',
      [model],
    )
    return Object(row?.['payload'])
  }
  const isActive = async (token: string, caller = 'app') => (await introspectBothWays(server, token, caller))['active']
  const refresh = async (token = '', client = 'app') =>
    (await post(server, '/oauth/token', client, { grant_type: 'refresh_token', refresh_token: token })).body

  it('of access: at userinfo, at introspection both ways and at our own API, from its last second on', async () => {
    await tokens({ accessTokenTtl: 3_600 })
    const [person, offline] = [await open(), await open({ scope: 'openid offline_access', prompt: 'consent' })]
    const administering = await open({ scope: 'openid admin:read' })
    const iat = Number((await payloadOf('AccessToken')).iat)
    await server.database.run(
      "update mlpipes_auth.oidc_payloads set payload = jsonb_set(payload, '{iat}', to_jsonb($1::bigint)) where model = 'AccessToken'",
      [iat],
    )
    const doors = async () => ({
      userinfo: await userinfo(server, person.access_token),
      introspection: await isActive(person.access_token),
      offline: await isActive(offline.access_token),
      offlineUserinfo: await userinfo(server, offline.access_token),
      api: await adminApi(server, administering.access_token),
    })
    const good = { userinfo: 200, introspection: true, offline: true, offlineUserinfo: 200, api: 200 }
    const dead = { userinfo: 401, introspection: false, offline: false, offlineUserinfo: 401, api: 401 }
    at(iat + 60)
    expect(await doors(), 'under the policy of then').toEqual(good)
    await tokens({ accessTokenTtl: 60 })
    at(iat + 59)
    expect(await doors(), 'its last second').toEqual(good)
    at(iat + 60)
    expect(await doors(), 'past it').toEqual(dead)
    const sessions = await liveSessions(server)
    at(iat + 3_600)
    await tokens({ accessTokenTtl: 3_600 })
    expect(await doors(), 'never past what it was promised').toEqual(dead)
    expect(await liveSessions(server)).toBe(sessions)
  })

  it('of access: also where only the app’s organisation asks for it', async () => {
    await tokens({ accessTokenTtl: 3_600 }, { accessTokenTtl: 3_600 })
    const { access_token } = await open({}, 'guestbook')
    const { iat } = await payloadOf('AccessToken')
    at(iat + 60)
    expect([await isActive(access_token, 'guestbook'), await userinfo(server, access_token)]).toEqual([true, 200])
    await tokens({ accessTokenTtl: 3_600 }, { accessTokenTtl: 60 })
    expect([await isActive(access_token, 'guestbook'), await userinfo(server, access_token)]).toEqual([false, 401])
    at(iat + 59)
    expect([await isActive(access_token, 'guestbook'), await userinfo(server, access_token)]).toEqual([true, 200])
  })

  it.each([
    ['that ends with its session', 300, {}],
    ['that outlives it', daySeconds, { scope: 'openid offline_access', prompt: 'consent' }],
  ])('of a family of refresh tokens %s, however often it was rotated', async (_name, unitSeconds, extra) => {
    const first = await open(extra)
    const { iiat } = await payloadOf('RefreshToken')
    at(iiat + 30 * unitSeconds)
    const second = await refresh(first.refresh_token)
    expect(second, 'under the policy of then').toMatchObject({ refresh_token: expect.any(String) })
    await tokens({ refreshTokenTtl: 31 * unitSeconds })
    at(iiat + 31 * unitSeconds - 1)
    expect(await isActive(String(second['refresh_token']))).toBe(true)
    const third = await refresh(String(second['refresh_token']))
    expect(third, 'its last second').toMatchObject({ refresh_token: expect.any(String) })
    const { exp, iat, iiat: still } = await payloadOf('RefreshToken')
    expect({ still, seconds: exp - iat }).toEqual({ still: iiat, seconds: 1 })
    await tokens({ refreshTokenTtl: unitSeconds })
    expect(await isActive(String(third['refresh_token']))).toBe(false)
    expect(await refresh(String(third['refresh_token']))).toMatchObject({ error: 'invalid_grant' })
    expect(await refresh(String(third['refresh_token'])), 'and again').toMatchObject({ error: 'invalid_grant' })
    await tokens({})
    // Nothing was taken from it: it only was too old for a while.
    expect(await refresh(String(third['refresh_token']))).toMatchObject({ refresh_token: expect.any(String) })
  })

  it('is not the age of codes, nor of what services get for themselves', async () => {
    const service = await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })
    const { code, verifier } = await obtainCode(server, 'app', { scope: 'openid' }, new Browser(server), administrator)
    const { iat } = await payloadOf('AuthorizationCode')
    await tokens({ accessTokenTtl: 1, refreshTokenTtl: 1 })
    at(iat + 30)
    expect(await isActive(String(service.body['access_token']), 'api')).toBe(true)
    const redeemed = await post(server, '/oauth/token', 'app', {
      grant_type: 'authorization_code',
      code,
      redirect_uri: redirectUri,
      code_verifier: verifier ?? '',
    })
    expect(redeemed.status).toBe(200)
  })

  it('of a refresh token that is not rotated', async () => {
    const { privateKey, publicKey } = await generateKeyPair('PS256', { extractable: true })
    const jwk = { ...(await exportJWK(publicKey)), kid: 'one', alg: 'PS256', use: 'sig' }
    const high = {
      ...app,
      client_id: 'high',
      client_name: 'High Assurance',
      scope: 'openid offline_access',
      token_endpoint_auth_method: 'private_key_jwt' as const,
      jwks: { keys: [jwk] },
      profile: 'fapi2' as const,
    }
    await server.apply({ clients: [high] })
    const key = oidc.PrivateKeyJwt({ key: privateKey, kid: 'one' })
    const config = await oidc.discovery(new URL(server.issuer), 'high', undefined, key, {
      execute: [oidc.allowInsecureRequests],
    })
    const DPoP = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
    const pkceCodeVerifier = oidc.randomPKCECodeVerifier()
    const url = await oidc.buildAuthorizationUrlWithPAR(
      config,
      {
        redirect_uri: redirectUri,
        scope: 'openid offline_access',
        prompt: 'consent',
        state: 'a-state',
        code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier),
        code_challenge_method: 'S256',
      },
      { DPoP },
    )
    const landed = await signIn(new Browser(server), { url: url.href, verifier: '' })
    const landing = new URL(landed.url)
    expect(landed.status, landed.text).toBe(303)
    const checks = { pkceCodeVerifier, expectedState: 'a-state', idTokenExpected: true }
    const first = await oidc.authorizationCodeGrant(config, landing, checks, undefined, { DPoP })
    const again = () => oidc.refreshTokenGrant(config, String(first.refresh_token), undefined, { DPoP })
    const { iiat } = await payloadOf('RefreshToken')
    at(iiat + daySeconds)
    expect(await again(), 'under the policy of then').toMatchObject({ refresh_token: first.refresh_token })
    await tokens({ refreshTokenTtl: daySeconds })
    await expect(again()).rejects.toMatchObject({ error: 'invalid_grant' })
    at(iiat + daySeconds - 1)
    expect(await again(), 'its last second').toMatchObject({ refresh_token: first.refresh_token })
  })

  it('is what an explanation names', async () => {
    const person = await open()
    const asker = await open({ scope: 'openid admin:read' })
    for (const [model, member] of [
      ['AccessToken', 'iat'],
      ['RefreshToken', 'iiat'],
    ])
      await server.database.run(
        `update mlpipes_auth.oidc_payloads
          set payload = jsonb_set(payload, array[$2::text], to_jsonb((payload ->> $2::text)::bigint - 100))
          where model = $1 and payload ->> 'scope' = 'openid profile'`,
        [model, member],
      )
    const standing = async (token: string) => {
      const answer = await fetch(new URL('/api/admin/explain', server.issuer), {
        method: 'POST',
        headers: { authorization: `Bearer ${asker.access_token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ token }),
      })
      return Object(await answer.json()).standing
    }
    const both = async () => [await standing(person.access_token), await standing(person.refresh_token)]
    expect(await both()).toEqual(Array(2).fill({ stands: true, reason: null }))
    await tokens({ accessTokenTtl: 100, refreshTokenTtl: 100 })
    expect(await both()).toEqual(Array(2).fill({ stands: false, reason: 'expired' }))
  })

  it.each([
    ['AccessToken', { iat: 1_000 }, 1_059, false],
    ['AccessToken', { iat: 1_000 }, 1_060, true],
    ['AccessToken', { iat: 1_000 }, 999, false],
    ['AccessToken', {}, 9_999, false],
    ['RefreshToken', { iat: 1_400, iiat: 1_000 }, 1_499, false],
    ['RefreshToken', { iat: 1_400, iiat: 1_000 }, 1_500, true],
    ['RefreshToken', { iat: 1_000 }, 1_500, true],
    ['AuthorizationCode', { iat: 1_000 }, 9_999, false],
    ['DeviceCode', { iat: 1_000 }, 9_999, false],
    ['ClientCredentials', { iat: 1_000 }, 9_999, false],
    [undefined, { iat: 1_000 }, 9_999, false],
  ])('of %s %o at %i: outlived %s', (kind, dates, now, expected) => {
    expect(isOutlived({ kind, ...dates }, { tokens: { accessTokenTtl: 60, refreshTokenTtl: 500 } }, now)).toBe(expected)
  })
})

describe('the network that a public client uses its tokens from', () => {
  const inside = { 'x-forwarded-for': '192.0.2.7' }
  const outside = { 'x-forwarded-for': '198.51.100.7' }
  class PlacedBrowser extends Browser {
    override request(path: string, init: Parameters<Browser['request']>[1] = {}): Promise<Answer> {
      return super.request(path, { ...init, headers: { ...inside, ...init.headers } })
    }
  }
  let server: TestServer
  beforeAll(async () => {
    const policy = { network: { allowedCidrs: ['192.0.2.0/24'] } }
    const organizations = [
      { slug: 'mercy', name: 'Mercy Hospital', policy },
      { slug: 'hope', name: 'Hope Clinic' },
    ]
    server = await startServer('postgres', {
      environment: { TRUSTED_PROXIES: '127.0.0.1' },
      seed: { ...seed, organizations },
    })
  })
  afterAll(() => server.close())

  async function open(client: string, scopes: string) {
    const browser = new PlacedBrowser(server)
    const { code, verifier } = await obtainCode(server, client, { scope: scopes }, browser, administrator)
    const form = { grant_type: 'authorization_code', code, redirect_uri: redirectUri, code_verifier: verifier ?? '' }
    const { body } = await post(server, '/oauth/token', client, form, inside)
    return { access: String(body['access_token']), refresh: String(body['refresh_token']) }
  }

  it.each([
    ['spa', 'is its person’s', { userinfo: 401, api: 401, refresh: 'invalid_grant' }],
    ['app', 'is a server’s, which may be anywhere', { userinfo: 200, api: 200, refresh: undefined }],
  ])('%s: its place %s', async (client, _name, elsewhere) => {
    const person = await open(client, 'openid profile')
    const administering = await open(client, 'openid admin:read')
    let { refresh } = person
    const doors = async (headers: Record<string, string>) => {
      const form = { grant_type: 'refresh_token', refresh_token: refresh }
      const { body } = await post(server, '/oauth/token', client, form, headers)
      refresh = String(body['refresh_token'] ?? refresh)
      return {
        userinfo: await userinfo(server, person.access, headers),
        api: await adminApi(server, administering.access, headers),
        refresh: body['error'],
      }
    }
    const good = { userinfo: 200, api: 200, refresh: undefined }
    const sessions = await liveSessions(server)
    expect(await doors(inside)).toEqual(good)
    expect(await doors(outside)).toEqual(elsewhere)
    expect(await doors(inside), 'the session lives on').toEqual(good)
    expect(await liveSessions(server)).toBe(sessions)
  })
})
