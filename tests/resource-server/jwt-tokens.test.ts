// Access tokens that an API reads itself (RFC 9068): only for apps that ask for them, short, and what they are not good for.
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import * as oauth from 'oauth4webapi'
import * as oidc from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { clientMembers, memberProblems } from '../../src/clients/clients.ts'
import { sha256 } from '../../src/crypto/secrets.ts'
import { maxJwtSeconds } from '../../src/oidc/lifetimes.ts'
import { readMetadata } from '../../src/registration/metadata.ts'
import { templateSchema } from '../../src/registration/template.ts'
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
import { people, secretOf, startServer, type TestServer } from '../support/server.ts'
import { serviceToken } from './seed.ts'

const app = (client_id: string, extra: object = {}) => ({
  client_id,
  client_secret: secretOf(client_id),
  client_name: `App ${client_id}`,
  organization: 'mercy',
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid profile email offline_access admin:read',
  first_party: true,
  access_token_format: 'jwt' as const,
  ...extra,
})
const clients = [
  app('reading'),
  app('elliptic', { id_token_signed_response_alg: 'ES256' }),
  app('asking', { first_party: false }),
  app('changing', { access_token_format: 'opaque', introspection: 'own' }),
  app('machine', { redirect_uris: [], grant_types: ['client_credentials'], scope: 'openid profile' }),
]

let server: TestServer
let keys: ReturnType<typeof createRemoteJWKSet>
let mercy: string
let audience: string
beforeAll(async () => {
  server = await startServer('postgres', {
    poolSize: 1,
    seed: { ...people, clients: [...(people.clients ?? []), ...clients] },
  })
  keys = createRemoteJWKSet(new URL('/oauth/jwks', server.issuer))
  const [row] = await server.database.run(`select id from mlpipes_auth.organizations where slug = 'mercy'`, [])
  mercy = String(row?.['id'])
  audience = `${server.issuer}/organizations/${mercy}`
})
afterAll(() => server.close())

const verify = (token: string) => jwtVerify(token, keys, { issuer: server.issuer, audience, typ: 'at+jwt' })
const secondsOf = ({ iat = 0, exp = 0 }: { iat?: number; exp?: number }) => exp - iat
const refresh = (clientId: string, refreshToken = '') =>
  post(server, '/oauth/token', clientId, { grant_type: 'refresh_token', refresh_token: refreshToken })

describe('a person’s token as a JWT', () => {
  it('is signed with a published key and says what introspection would', async () => {
    const { code, verifier } = await obtainCode(server, 'reading')
    const { body: tokens } = await redeem(server, 'reading', code, verifier)
    expect(tokens).toMatchObject({ token_type: 'Bearer', scope: 'openid profile email', expires_in: maxJwtSeconds })
    const token = String(tokens['access_token'])
    const { payload, protectedHeader } = await verify(token)
    expect(protectedHeader).toMatchObject({ alg: 'RS256', typ: 'at+jwt', kid: expect.any(String) })
    const claims = decodeJwt(String(tokens['id_token']))
    expect(payload).toEqual({
      iss: server.issuer,
      aud: audience,
      sub: claims.sub,
      client_id: 'reading',
      jti: expect.any(String),
      iat: expect.any(Number),
      exp: expect.any(Number),
      scope: 'openid profile email',
      org_id: mercy,
      org_slug: 'mercy',
      roles: ['member', 'physician'],
      acr: 'urn:mlpipes:acr:password',
      amr: ['pwd'],
      auth_time: claims['auth_time'],
      sid: claims['sid'],
    })
    expect(secondsOf(payload)).toBe(maxJwtSeconds)
    // There is no userinfo for it, so the ID token says what the scopes stand for.
    expect(claims).toMatchObject({ name: 'Dr Lee', email: 'lee@mercy.example' })
    const issued = (await server.audit('token.issued')).filter(({ clientId }) => clientId === 'reading')
    expect(issued.map(({ details }) => details)).toContainEqual({
      kind: 'AccessToken',
      grantType: 'authorization_code',
      scope: 'openid profile email',
      tokenHash: sha256(String(payload.jti)),
    })
    const request = new Request('https://api.example/', { headers: { authorization: `Bearer ${token}` } })
    const as = { issuer: server.issuer, jwks_uri: `${server.issuer}/oauth/jwks` }
    const checked = await oauth.validateJwtAccessToken(as, request, audience, { [oauth.allowInsecureRequests]: true })
    expect(checked.client_id).toBe('reading')
  })

  it('is nothing that this server takes: not at userinfo, introspection, revocation or its own API', async () => {
    const { access_token: token } = await obtainTokens(server, 'reading')
    const authorization = `Bearer ${token}`
    const at = (path: string) => fetch(new URL(path, server.issuer), { headers: { authorization } })
    expect((await at('/oauth/userinfo')).status).toBe(401)
    expect((await at('/api/admin/me')).status).toBe(401)
    const { jti } = decodeJwt(token)
    for (const path of ['/oauth/introspect', '/oauth/revoke']) {
      const answer = await post(server, path, 'api', { token })
      expect({ path, status: answer.status, error: answer.body['error'] }).toEqual({
        path,
        status: 400,
        error: 'unsupported_token_type',
      })
    }
    expect(await introspect(server, String(jti)), 'its name is no token either').toEqual({ active: false })
  })

  it('comes with every refresh, and with none once the session is over', async () => {
    const tokens = await obtainTokens(server, 'reading')
    const next = await refresh('reading', tokens.refresh_token)
    const { payload } = await verify(String(next.body['access_token']))
    expect(payload).toMatchObject({ acr: 'urn:mlpipes:acr:password', sid: decodeJwt(tokens.id_token)['sid'] })
    await server.database.run(
      `update mlpipes_auth.sessions set ended_at = now(), end_reason = 'sign_out' where ended_at is null`,
      [],
    )
    expect((await refresh('reading', String(next.body['refresh_token']))).body['error']).toBe('invalid_grant')
  })

  it('is bound to a key and signed in another way where the client says so', async () => {
    const client = oidc.ClientSecretBasic(secretOf('elliptic'))
    const execute = [oidc.allowInsecureRequests]
    const config = await oidc.discovery(new URL(server.issuer), 'elliptic', undefined, client, { execute })
    const DPoP = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
    const authorization = authorizationUrl(server, 'elliptic', { state: 's', nonce: undefined })
    const landing = await signIn(new Browser(server), authorization)
    const checks = { pkceCodeVerifier: authorization.verifier, expectedState: 's' }
    const tokens = await oidc.authorizationCodeGrant(config, new URL(landing.url), checks, undefined, { DPoP })
    expect(tokens.token_type).toBe('dpop')
    expect(decodeProtectedHeader(tokens.access_token).alg).toBe('ES256')
    const thumbprint = await DPoP.calculateThumbprint()
    expect((await verify(tokens.access_token)).payload['cnf']).toEqual({ jkt: thumbprint })
  })

  it('asks for consent once, and not for the form of a token', async () => {
    const browser = new Browser(server)
    const authorize = async (clientId: string) =>
      browser.follow(await browser.request(authorizationUrl(server, clientId).url))
    await obtainTokens(server, 'asking', {}, browser)
    expect((await authorize('asking')).url).toContain('code=')
    const fresh = new Browser(server)
    expect((await signIn(fresh, authorizationUrl(server, 'asking'))).url).toContain('code=')

    const before = await obtainTokens(server, 'changing', {}, browser)
    expect(before.access_token).toMatch(/^[\w-]{43}$/)
    await server.apply({ clients: [app('changing')] })
    const after = await obtainTokens(server, 'changing', {}, browser)
    await verify(after.access_token)
    await server.apply({ clients: [app('changing', { access_token_format: 'opaque', introspection: 'own' })] })
    const refreshed = await refresh('changing', after.refresh_token)
    const facts = await introspect(server, String(refreshed.body['access_token']), 'changing')
    expect(facts).toMatchObject({ active: true, aud: audience, scope: 'openid profile email' })
  })

  it('is for nobody else: our own API has its opaque token, and a stranger’s address none', async () => {
    const tokens = await obtainTokens(server, 'reading', { scope: 'openid admin:read' })
    expect(tokens.access_token).toMatch(/^[\w-]{43}$/)
    const browser = new Browser(server)
    for (const [clientId, resource] of [
      ['reading', 'https://api.elsewhere.example'],
      ['reading', `${server.issuer}/organizations/org_other`],
    ] as const) {
      const answer = await browser.request(authorizationUrl(server, clientId, { resource }).url)
      expect(answer.headers.get('location'), resource).toContain('error=invalid_target')
    }
  })
})

it('a service’s token names the service, and is in the log', async () => {
  const { payload } = await verify(await serviceToken(server, 'machine', { scope: 'profile' }))
  expect(payload).toMatchObject({ sub: 'machine', client_id: 'machine', org_id: mercy, scope: 'profile' })
  expect(secondsOf(payload)).toBe(maxJwtSeconds)
  const [issued] = await server.audit('token.issued')
  expect(issued).toMatchObject({ clientId: 'machine', details: { tokenHash: sha256(String(payload.jti)) } })
})

it('lasts for less where the policy or the session says less', async () => {
  const { code, verifier } = await obtainCode(server, 'reading')
  await server.database.run(
    `update mlpipes_auth.sessions set idle_expires_at = now() + interval '100 seconds' where ended_at is null`,
    [],
  )
  const short = await redeem(server, 'reading', code, verifier)
  expect(Number(short.body['expires_in'])).toBeLessThanOrEqual(100)
  expect(secondsOf((await verify(String(short.body['access_token']))).payload)).toBe(short.body['expires_in'])
  const policy = { tokens: { accessTokenTtl: 120 } }
  await server.apply({ organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy }] })
  const tokens = await obtainTokens(server, 'reading')
  expect(secondsOf((await verify(tokens.access_token)).payload)).toBe(120)
})

describe('who may ask for it', () => {
  const asked = { client_name: 'Vendor', redirect_uris: ['https://app.vendor.example/'], access_token_format: 'jwt' }
  const read = (accessTokenFormats: ('opaque' | 'jwt')[] | undefined, body: object = asked) => {
    const redirectHosts = ['app.vendor.example']
    return readMetadata(body, {
      template: templateSchema.parse({ redirectHosts, accessTokenFormats }),
      allowsLoopback: false,
    })
  }

  it('an app that registers itself, where its token says so', () => {
    const only = 'may hold under this registration token only: opaque'
    expect(read(undefined)).toEqual({ ok: false, problems: [{ path: 'access_token_format', message: only }] })
    expect(read(['opaque', 'jwt'])).toMatchObject({ ok: true, members: { access_token_format: 'jwt' } })
    const { access_token_format: _format, ...silent } = asked
    expect(read(['opaque', 'jwt'], silent)).toMatchObject({ ok: true, members: { access_token_format: 'opaque' } })
    expect(read(['jwt'], silent)).toMatchObject({ ok: true, members: { access_token_format: 'jwt' } })
  })

  it('not who uses its tokens here', () => {
    const parse = ([name, schema]: (typeof fields)[number], given: Record<string, unknown>) => [
      name,
      schema.parse(given[name]),
    ]
    const fields = Object.entries(clientMembers)
    const members = (given: Record<string, unknown>) =>
      Object.fromEntries(fields.map((field) => parse(field, given))) as Parameters<typeof memberProblems>[0]
    const caller = { client_name: 'Caller', grant_types: ['client_credentials'], access_token_format: 'jwt' }
    const problems = memberProblems(members({ ...caller, scope: 'introspect' }))
    expect(problems.map(({ path }) => path)).toEqual(['access_token_format'])
    expect(memberProblems(members({ ...caller, scope: 'openid' }))).toEqual([])
  })
})
