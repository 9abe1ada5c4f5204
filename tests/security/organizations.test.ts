// One sign-in is for one organisation. Which one, what its policy asks of it, and that a sign-in under a weak policy gives
// nothing in an organisation with a strong one: at sign-in, at single sign-on, at refresh, at userinfo, at introspection.
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { PolicyInput } from '../../src/organizations/policy.ts'
import { ApiClient } from '../api/support.ts'
import {
  type Answer,
  authorizationUrl,
  Browser,
  introspect,
  introspectBothWays,
  obtainCode,
  obtainTokens,
  post,
  redeem,
  signIn,
} from '../support/client.ts'
import { databaseKinds, password, people, startServer, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'

const names: Readonly<Record<string, string>> = { mercy: 'Mercy Hospital', hope: 'Hope Clinic', vendor: 'Vendor Inc' }
const app = (client_id: string, organization: string, more = {}) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: `App ${client_id}`,
  organization,
  redirect_uris: ['http://localhost:9/callback'],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid profile email offline_access admin:read',
  first_party: true,
  introspection: 'organization' as const,
  ...more,
})
const seed = {
  organizations: [...(people.organizations ?? []), { slug: 'vendor', name: 'Vendor Inc' }],
  accounts: people.accounts ?? [],
  clients: [...(people.clients ?? []), app('chart', 'vendor'), app('hopeful', 'hope')],
}

describe.each(databaseKinds)('organisations on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
    await server.database.run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{visitor}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email in ('lee@mercy.example', 'totp@mercy.example') and o.slug = 'hope'`,
      [],
    )
  })
  afterAll(() => server.close())
  beforeEach(async () => {
    await policies({})
  })

  /** Every organisation's policy; those not named have none of their own. */
  const policies = (written: Readonly<Record<string, PolicyInput>>) =>
    server.apply({
      organizations: Object.entries(names).map(([slug, name]) => ({ slug, name, policy: written[slug] ?? {} })),
    })
  const start = async (browser: Browser, client: string, extra: Record<string, string | undefined> = {}) => {
    const authorization = authorizationUrl(server, client, extra)
    return { authorization, page: await browser.follow(await browser.request(authorization.url)) }
  }
  const enter = (browser: Browser, page: Answer, email = 'lee@mercy.example') =>
    browser.submit(page, '/password', { email, password })
  const choose = (browser: Browser, page: Answer, name: string) => {
    const id = new RegExp(`name="organization" value="([^"]+)"[^>]*>${name}<`).exec(page.text)?.[1]
    if (id === undefined) throw new Error(`${name} is not offered: ${page.text.slice(0, 2_000)}`)
    return browser.submit(page, '/organization', { organization: id })
  }
  const tokensOf = async (client: string, started: { authorization: { verifier: string } }, landing: Answer) => {
    const { body } = await redeem(
      server,
      client,
      new URL(landing.url).searchParams.get('code') ?? '',
      started.authorization.verifier,
    )
    return body as { access_token: string; refresh_token: string; id_token: string }
  }
  const errorOf = (answer: Answer) => new URL(answer.url).searchParams.get('error')
  const silent = async (browser: Browser, client: string, extra = {}) =>
    errorOf((await start(browser, client, { prompt: 'none', ...extra })).page)
  const isActive = async (token: string, caller: string) => (await introspectBothWays(server, token, caller))['active']

  it('asks somebody of several which one, by name, and its tokens are of that one', async () => {
    const browser = new Browser(server)
    const started = await start(browser, 'chart')
    const page = await enter(browser, started.page)
    expect(page.text).toContain('Choose your organisation')
    const landing = await choose(browser, page, 'Hope Clinic')
    const tokens = await tokensOf('chart', started, landing)
    expect(decodeJwt(tokens.id_token)).toMatchObject({ org_slug: 'hope', roles: ['visitor'] })
    expect(await introspect(server, tokens.access_token, 'chart')).toMatchObject({
      org_slug: 'hope',
      roles: ['visitor'],
    })
    const refreshed = await post(server, '/oauth/token', 'chart', {
      grant_type: 'refresh_token',
      refresh_token: tokens.refresh_token,
    })
    expect(decodeJwt(String(refreshed.body['id_token']))).toMatchObject({ org_slug: 'hope' })
    const info = await fetch(new URL('/oauth/userinfo', server.issuer), {
      headers: { authorization: `Bearer ${String(refreshed.body['access_token'])}` },
    })
    expect(await info.json()).toMatchObject({ org_slug: 'hope' })
    // The session is in it from now on, and nobody is asked again.
    const again = await start(browser, 'chart')
    expect(decodeJwt((await tokensOf('chart', again, again.page)).id_token)).toMatchObject({ org_slug: 'hope' })
  })

  it('does not ask who belongs to one, nor in an app of an organisation of theirs, nor when the app says which', async () => {
    const one = new Browser(server)
    const single = await start(one, 'chart')
    const done = await enter(one, single.page, 'hugo@hope.example')
    expect(decodeJwt((await tokensOf('chart', single, done)).id_token)).toMatchObject({ org_slug: 'hope' })
    for (const [client, extra, slug] of [
      ['hopeful', {}, 'hope'],
      ['first', {}, 'mercy'],
      ['chart', { organization: 'hope' }, 'hope'],
      ['chart', { organization: 'mercy' }, 'mercy'],
    ] as const) {
      const browser = new Browser(server)
      const started = await start(browser, client, extra)
      const landing = await enter(browser, started.page)
      expect(decodeJwt((await tokensOf(client, started, landing)).id_token), client).toMatchObject({ org_slug: slug })
    }
  })

  it('takes no choice that was not offered, and none before the person is known', async () => {
    const browser = new Browser(server)
    const { page } = await start(browser, 'chart')
    const form = page.text.replaceAll('/password"', '/organization"')
    const early = await browser.submit({ ...page, text: form }, '/organization', { organization: 'org_x' })
    expect(early.status).toBe(409)
    const offered = await enter(browser, await browser.follow(await browser.request(page.url)))
    const [vendor] = await server.database.run(`select id from mlpipes_auth.organizations where slug = 'vendor'`, [])
    const refused = await browser.submit(offered, '/organization', { organization: String(vendor?.['id']) })
    expect(refused.status).toBe(409)
    expect(refused.text).toContain('Choose your organisation')
  })

  it('turns away who does not belong to the organisation asked for, after they proved who they are', async () => {
    const browser = new Browser(server)
    const { page } = await start(browser, 'chart', { organization: 'mercy' })
    expect(page.text).toContain('name="password"')
    const away = await enter(browser, page, 'hugo@hope.example')
    expect(away.text).toContain('You do not belong to this organisation')
    expect(errorOf(await browser.submit(away, '/cannot', {}))).toBe('access_denied')
    const unknown = await start(new Browser(server), 'chart', { organization: 'nowhere' })
    expect(unknown.page.text, 'which there are is not told').toContain('name="password"')
  })

  it('single sign-on from a weak policy gives nothing under a strong one', async () => {
    await policies({ hope: { mfa: 'required' } })
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'), 'lee@mercy.example')
    expect(await silent(browser, 'first')).toBeNull()
    expect(await silent(browser, 'hopeful')).toBe('login_required')
    expect((await start(browser, 'hopeful')).page.text).toContain('name="password"')
    // Nor does an app of the strong one take a person of the weak one without it.
    const hugo = new Browser(server)
    await policies({ vendor: { mfa: 'required' } })
    const { page } = await start(hugo, 'chart')
    expect((await enter(hugo, page, 'hugo@hope.example')).text).toContain('Set up a second factor')
  })

  it('a second factor that a policy asks for from now on ends tokens until the person stepped up', async () => {
    await policies({ mercy: { mfa: 'off' } })
    const browser = new Browser(server)
    const { page, authorization } = await start(browser, 'first')
    const second = await enter(browser, page, 'totp@mercy.example')
    server.clock.now = new Date()
    const landing = await browser.submit(second, '/totp', { code: await codeFor(server) })
    const strong = await tokensOf('first', { authorization }, landing)
    const weak = await obtainTokens(server, 'first')
    expect(await isActive(weak.access_token, 'api')).toBe(true)
    await policies({ mercy: { mfa: 'required' } })
    expect(await isActive(weak.access_token, 'api')).toBe(false)
    expect(await isActive(strong.access_token, 'api')).toBe(true)
    const userinfo = await fetch(new URL('/oauth/userinfo', server.issuer), {
      headers: { authorization: `Bearer ${weak.access_token}` },
    })
    expect(userinfo.status).toBe(401)
    const refreshed = await post(server, '/oauth/token', 'first', {
      grant_type: 'refresh_token',
      refresh_token: weak.refresh_token ?? '',
    })
    expect(refreshed.body['error']).toBe('invalid_grant')
    expect(await silent(weak.browser, 'first')).toBe('login_required')
    expect((await start(weak.browser, 'first')).page.text, 'a session alone binds no factor').toContain(
      'name="password"',
    )
    server.clock.now = undefined
  })

  it('a network that is allowed no more ends tokens, single sign-on and sign-in', async () => {
    const tokens = await obtainTokens(server, 'first')
    expect(await isActive(tokens.access_token, 'api')).toBe(true)
    await policies({ mercy: { network: { allowedCidrs: ['10.0.0.0/8'] } } })
    expect(await isActive(tokens.access_token, 'api')).toBe(false)
    expect((await start(tokens.browser, 'first')).page.text).toContain('allows other networks only')
    expect(await silent(tokens.browser, 'first'), 'the session has ended').toBe('login_required')
    const browser = new Browser(server)
    const { page } = await start(browser, 'first')
    const away = await enter(browser, page)
    expect(away.text).toContain('Sign-in is not allowed from here')
    expect(errorOf(await browser.submit(away, '/cannot', {}))).toBe('access_denied')
    await policies({ mercy: { network: { allowedCidrs: ['127.0.0.0/8', '::1/128'] } } })
    expect((await enter(browser, (await start(browser, 'first')).page)).url).toContain('code=')
  })

  it('a way in that is allowed no more ends what came of it', async () => {
    const tokens = await obtainTokens(server, 'first')
    await policies({ mercy: { loginMethods: ['magic_link'] } })
    expect(await isActive(tokens.access_token, 'api')).toBe(false)
    expect(await silent(tokens.browser, 'first')).toBe('login_required')
  })

  it('a session used for two organisations is held to the stricter of them', async () => {
    await policies({ mercy: { session: { idleTimeout: 1_800 } }, hope: { session: { idleTimeout: 300 } } })
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'))
    const limit = async () => {
      const [row] = await server.database.run(
        `select idle_seconds, extract(epoch from idle_expires_at - last_activity_at)::integer as idle
          from mlpipes_auth.sessions order by created_at desc limit 1`,
        [],
      )
      return row
    }
    expect(await limit()).toEqual({ idle_seconds: 1_800, idle: 1_800 })
    await signIn(browser, authorizationUrl(server, 'hopeful'))
    expect(await limit()).toEqual({ idle_seconds: 300, idle: 300 })
    await signIn(browser, authorizationUrl(server, 'first'))
    expect(await limit(), 'also when the first app is used again').toEqual({ idle_seconds: 300, idle: 300 })
    await policies({ mercy: {}, hope: { session: { idleTimeout: 120 } } })
    // Not near its end: by housekeeping, which comes by every other second.
    await expect
      .poll(limit, { timeout: 10_000, message: 'and to what each of them says later' })
      .toEqual({ idle_seconds: 120, idle: 120 })
  })

  it('a session too old for another organisation signs in anew there', async () => {
    await policies({ hope: { session: { absoluteLifetime: 3_600 } } })
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'))
    await server.database.run(
      `update mlpipes_auth.sessions set signed_in_at = now() - interval '2 hours' where created_at = (select max(created_at) from mlpipes_auth.sessions)`,
      [],
    )
    expect(await silent(browser, 'first')).toBeNull()
    expect(await silent(browser, 'hopeful')).toBe('login_required')
  })

  it('losing the place in an organisation ends its tokens and no others', async () => {
    const browser = new Browser(server)
    const guest = await start(browser, 'hopeful')
    const ofGuest = await tokensOf(
      'hopeful',
      guest,
      await enter(browser, guest.page, 'totp@mercy.example').then(async (page) =>
        browser.submit(page, '/totp', { code: await codeFor(server, undefined, 30) }),
      ),
    )
    const home = await start(browser, 'first')
    const ofHome = await tokensOf('first', home, home.page)
    expect(await isActive(ofGuest.access_token, 'hopeful')).toBe(true)
    await server.database.run(
      `delete from mlpipes_auth.memberships where not home and account_id = (select id from mlpipes_auth.accounts where email = 'totp@mercy.example')`,
      [],
    )
    expect(await isActive(ofGuest.access_token, 'hopeful')).toBe(false)
    expect(await isActive(ofHome.access_token, 'api')).toBe(true)
  })

  it('only so many sessions at once: the oldest ends, and its browser is told why', async () => {
    await policies({ mercy: { session: { maxConcurrent: 2 } } })
    const browsers = []
    for (let index = 0; index < 3; index += 1) browsers.push(await obtainTokens(server, 'ehr'))
    const [oldest, ...others] = browsers
    expect(await isActive(oldest?.access_token ?? '', 'api')).toBe(false)
    for (const other of others) expect(await isActive(other.access_token, 'api')).toBe(true)
    const [event] = await server.audit('session.ended')
    expect(event).toMatchObject({ details: { reason: 'max_concurrent' } })
    const back = await start(oldest?.browser ?? new Browser(server), 'ehr')
    expect(back.page.text).toContain('because you signed in somewhere else')
    expect((await start(new Browser(server), 'ehr')).page.text).not.toContain('You were signed out')
    // The same person in the same browser again is no further session.
    const [, kept] = browsers
    await signIn(kept?.browser ?? new Browser(server), authorizationUrl(server, 'ehr', { prompt: 'login' }))
    expect(await isActive(browsers[2]?.access_token ?? '', 'api')).toBe(true)
  })

  it('20 sign-ins at the same moment leave as many sessions as are allowed', async () => {
    await policies({ mercy: { session: { maxConcurrent: 3 } } })
    const pages = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const browser = new Browser(server)
        return { browser, page: (await start(browser, 'first')).page }
      }),
    )
    const landings = await Promise.all(pages.map(({ browser, page }) => enter(browser, page, 'ada@mercy.example')))
    expect(landings.filter((landing) => landing.url.includes('code=')).length).toBeGreaterThan(0)
    const [live] = await server.database.run(
      `select count(*)::integer as sessions from mlpipes_auth.sessions s join mlpipes_auth.accounts a on a.id = s.account_id
        where a.email = 'ada@mercy.example' and s.ended_at is null`,
      [],
    )
    expect(live).toEqual({ sessions: 3 })
  })

  it('the JSON API asks which organisation too', async () => {
    await server.database.run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{reader}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email = 'hugo@hope.example' and o.slug = 'vendor'`,
      [],
    )
    const client = new ApiClient(server)
    const headers = { origin: 'http://localhost:9' }
    const asked = await client.post('/signin', { email: 'hugo@hope.example', password }, headers)
    const organizations = [
      { slug: 'hope', name: 'Hope Clinic' },
      { slug: 'vendor', name: 'Vendor Inc' },
    ]
    expect(asked.body).toEqual({ status: 'organization_choice_required', organizations })
    expect((await client.post('/organization', { organization: 'mercy' }, headers)).status).toBe(409)
    const done = await client.post('/organization', { organization: 'vendor' }, headers)
    const account = { organization: { slug: 'vendor' }, roles: ['reader'] }
    expect(done.body).toMatchObject({ status: 'complete', session: { account } })
    expect((await client.post('/organization', { organization: 'vendor' }, headers)).status, 'once').toBe(409)
  })

  it('a second factor is never off for who administers, by a built-in role or one of the organisation', async () => {
    await policies({ mercy: { mfa: 'off' } })
    const mayAdd = async (email: string) => {
      const browser = new Browser(server)
      await enter(browser, (await start(browser, 'first')).page, email)
      const page = await browser.follow(await browser.request('/account/second-factor'))
      return page.text.includes('/account/second-factor/add')
    }
    expect(await mayAdd('lee@mercy.example')).toBe(false)
    expect(await mayAdd('ada@mercy.example')).toBe(true)
    await server.database.run(
      `insert into mlpipes_auth.organization_roles (organization_id, name, permissions)
        select id, 'physician', '{user:update}' from mlpipes_auth.organizations where slug = 'mercy'`,
      [],
    )
    expect(await mayAdd('lee@mercy.example')).toBe(true)
  })

  it('no token is promised for longer than its session may last', async () => {
    await policies({ mercy: { session: { absoluteLifetime: 600 } } })
    const { code, verifier } = await obtainCode(server, 'first')
    const bound = await redeem(server, 'first', code, verifier)
    expect(Number(bound.body['expires_in'])).toBeLessThanOrEqual(600)
    const offline = await obtainCode(server, 'first', { scope: 'openid offline_access', prompt: 'consent' })
    const free = await redeem(server, 'first', offline.code, offline.verifier)
    expect(free.body).toMatchObject({ expires_in: 900 })
  })

  it('a token for the administration API says so, and opens nothing else', async () => {
    const tokens = await obtainTokens(server, 'hopeful', { scope: 'openid admin:read' })
    const described = await introspect(server, tokens.access_token, 'hopeful')
    expect(described).toMatchObject({ active: true, aud: `${server.issuer}/api`, scope: 'admin:read' })
    const userinfo = await fetch(new URL('/oauth/userinfo', server.issuer), {
      headers: { authorization: `Bearer ${tokens.access_token}` },
    })
    expect(userinfo.status).toBe(403)
    const refreshed = await post(server, '/oauth/token', 'hopeful', {
      grant_type: 'refresh_token',
      refresh_token: tokens.refresh_token ?? '',
    })
    const again = await introspect(server, String(refreshed.body['access_token']), 'hopeful')
    expect(again).toMatchObject({ active: true, aud: `${server.issuer}/api` })
    const elsewhere = await start(new Browser(server), 'hopeful', { resource: 'https://elsewhere.example' })
    expect(errorOf(elsewhere.page)).toBe('invalid_target')
  })
})
