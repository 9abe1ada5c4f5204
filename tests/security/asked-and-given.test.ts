// What a request names is given by what the app is registered for and the person allowed, and what is refused costs nothing:
// claims by name, scopes of services, a wrong resource, text that the database cannot hold.
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  authorizationUrl,
  Browser,
  introspect,
  obtainCode,
  obtainTokens,
  post,
  redeem,
  signIn,
} from '../support/client.ts'
import { people, startServer, type TestServer } from '../support/server.ts'

const app = (client_id: string, scope: string) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: client_id,
  organization: 'mercy',
  redirect_uris: ['http://localhost:9/callback'],
  grant_types: ['authorization_code' as const, 'refresh_token' as const, 'client_credentials' as const],
  scope,
})
const device = {
  ...app('device', 'openid'),
  grant_types: ['urn:ietf:params:oauth:grant-type:device_code' as const],
  redirect_uris: [],
}
let server: TestServer
beforeAll(async () => {
  const clients = [...(people.clients ?? []), app('narrow', 'openid'), app('wide', 'openid profile email'), device]
  server = await startServer('postgres', { seed: { ...people, clients } })
})
afterAll(() => server.close())

describe('claims that are asked for by name (OpenID Connect Core §5.5)', () => {
  const claims = JSON.stringify({ id_token: { email: null, name: { essential: true } }, userinfo: { email: null } })
  const told = async (tokens: { id_token: string; access_token: string }) => {
    const headers = { authorization: `Bearer ${tokens.access_token}` }
    const info = Object(await (await fetch(`${server.issuer}/oauth/userinfo`, { headers })).json())
    const has = (from: object) => ['name', 'email'].filter((claim) => claim in from)
    return { idToken: has(decodeJwt(tokens.id_token)), userinfo: has(info) }
  }

  it('are not given to an app that is not registered for their scopes, and nobody is asked about them', async () => {
    const tokens = await obtainTokens(server, 'narrow', { scope: 'openid', claims })
    expect(await told(tokens)).toEqual({ idToken: [], userinfo: [] })
    const again = await obtainTokens(server, 'narrow', { scope: 'openid', claims, prompt: 'none' }, tokens.browser)
    expect(await told(again)).toEqual({ idToken: [], userinfo: [] })
  })

  it('are asked for as their scopes, and given when they are allowed', async () => {
    const plain = await obtainTokens(server, 'wide', { scope: 'openid' })
    const url = authorizationUrl(server, 'wide', { scope: 'openid', claims })
    const page = await plain.browser.follow(await plain.browser.request(url.url))
    expect(page.text).toContain('See your name')
    expect(page.text).toContain('See your e-mail address')
    const refused = await plain.browser.submit(page, '/consent', { decision: 'deny' })
    expect(refused.url).toContain('error=access_denied')
    const tokens = await obtainTokens(server, 'wide', { scope: 'openid', claims }, plain.browser)
    expect(await told(tokens)).toEqual({ idToken: ['name', 'email'], userinfo: ['email'] })
    expect(tokens.scope).toBe('openid')
  })

  it('are given to a first party without asking, by what it is registered for', async () => {
    const tokens = await obtainTokens(server, 'first', { scope: 'openid', claims })
    expect(await told(tokens)).toEqual({ idToken: ['name', 'email'], userinfo: ['email'] })
  })
})

describe('scopes of a service (RFC 6749 §4.4)', () => {
  it.each(['openid patients:write', 'system/*.cruds', 'openid email', 'admin:read', 'a"b'])(
    'that it was not registered with are refused: %s',
    async (scope) => {
      const answer = await post(server, '/oauth/token', 'narrow', { grant_type: 'client_credentials', scope })
      expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_scope' } })
    },
  )

  it('are refused beside a resource too', async () => {
    const resource = `${server.issuer}/apis/api`
    const form = { grant_type: 'client_credentials', resource }
    const wrong = await post(server, '/oauth/token', 'narrow', { ...form, scope: 'openid patients:write' })
    expect(wrong).toMatchObject({ status: 400, body: { error: 'invalid_scope' } })
    expect(await post(server, '/oauth/token', 'narrow', { ...form, scope: 'openid' })).toMatchObject({ status: 200 })
  })

  it('are unknown to an app of people, and dropped', async () => {
    expect((await obtainTokens(server, 'first', { scope: 'openid patients:write' })).scope).toBe('openid')
  })
})

describe('a wrong resource at the token endpoint (RFC 8707 §2.2)', () => {
  const wrong = ['https://nope.example/', 'not a uri']
  const known = () => [...wrong, `${server.issuer}/apis/api`]

  it('does not spend a refresh token', async () => {
    const { refresh_token = '', access_token } = await obtainTokens(server, 'first')
    const form = { grant_type: 'refresh_token', refresh_token }
    for (const resource of known())
      expect(await post(server, '/oauth/token', 'first', { ...form, resource })).toMatchObject({
        status: 400,
        body: { error: 'invalid_target' },
      })
    expect(await post(server, '/oauth/token', 'first', form)).toMatchObject({ status: 200 })
    expect(await introspect(server, access_token)).toMatchObject({ active: true })
  })

  it('does not spend a code', async () => {
    const { code, verifier } = await obtainCode(server, 'first')
    const form = { grant_type: 'authorization_code', code, redirect_uri: 'http://localhost:9/callback' }
    for (const resource of known())
      expect(
        await post(server, '/oauth/token', 'first', { ...form, code_verifier: verifier ?? '', resource }),
      ).toMatchObject({ status: 400, body: { error: 'invalid_target' } })
    expect(await redeem(server, 'first', code, verifier)).toMatchObject({ status: 200 })
    expect(await redeem(server, 'first', code, verifier)).toMatchObject({ status: 400 })
  })
})

describe('text that the database cannot hold', () => {
  const pushed = (extra: Record<string, string>) =>
    post(server, '/oauth/par', 'spa', {
      ...Object.fromEntries(new URL(authorizationUrl(server, 'spa', { scope: 'openid' }).url).searchParams),
      ...extra,
    })

  const texts = ['dpop_jkt', 'login_hint', 'acr_values', 'organization', 'ui_locales', 'display', 'nonce', 'state']

  it.each(texts)('is refused in %s, pushed or not, and fails no write of others at the same moment', async (name) => {
    const attack = async () => {
      const { status, body } = await pushed({ [name]: 'a\0b' })
      if (status !== 201) return [status]
      const { url } = authorizationUrl(server, 'spa', { request_uri: String(body['request_uri']) })
      const answer = await fetch(url, { redirect: 'manual' })
      return [status, answer.status, new URL(answer.headers.get('location') ?? url).searchParams.get('error')]
    }
    const sound = async () => {
      const landing = await signIn(new Browser(server), authorizationUrl(server, 'first'))
      return new URL(landing.url).searchParams.has('code')
    }
    const [attacks, others] = await Promise.all([
      Promise.all(Array.from({ length: 40 }, attack)),
      Promise.all(Array.from({ length: 5 }, sound)),
    ])
    const refused = name === 'dpop_jkt' ? [400] : [201, 303, 'invalid_request']
    for (const one of attacks) expect(one).toEqual(refused)
    expect(others).toEqual([true, true, true, true, true])
  })

  it.each(texts)('is refused in %s by a device', async (name) => {
    const answer = await post(server, '/oauth/device', 'device', { scope: 'openid', [name]: 'a\0b' })
    expect([200, 400]).toContain(answer.status)
  })

  it.each(['{"id_token":{"a\\u0000":null}}', '{"userinfo":{"a\\ud800":null}}'])(
    'is refused inside of claims: %s',
    async (claims) => {
      const browser = new Browser(server)
      const landing = await signIn(browser, authorizationUrl(server, 'first', { claims }))
      expect(landing.status).toBeLessThan(500)
      expect(landing.url).toContain('error=invalid_request')
    },
  )

  it('is told from text that spells its escape', async () => {
    expect(await pushed({ login_hint: 'a\\u0000b\\\\ud800' })).toMatchObject({ status: 201 })
  })
})
