// The main road: authorize, sign in, allow, redeem, userinfo, introspect, refresh, sign out. On both databases.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, obtainCode, obtainTokens, post, redeem } from '../support/client.ts'
import { databaseKinds, startServer, type TestServer } from '../support/server.ts'

describe.each(databaseKinds)('code flow on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(() => server.close())

  it('signs a person in, asks for consent once, and gives verified tokens', async () => {
    const { code, verifier, browser, landing } = await obtainCode(server, 'ehr')
    expect(landing.searchParams.get('iss')).toBe(server.issuer)
    const tokens = await redeem(server, 'ehr', code, verifier)
    expect(tokens.status).toBe(200)
    expect(tokens.headers.get('cache-control')).toContain('no-store')
    expect(tokens.headers.get('pragma')).toBe('no-cache')
    expect(tokens.body).toMatchObject({ token_type: 'Bearer', scope: 'openid profile email', expires_in: 900 })

    const again = await browser.follow(await browser.request(authorizationUrl(server, 'ehr').url))
    expect(new URL(again.url).searchParams.get('code')).toBeTruthy()

    const fresh = new Browser(server)
    let page = await fresh.follow(await fresh.request(authorizationUrl(server, 'ehr').url))
    page = await fresh.submit(page, '/password', { email: 'lee@mercy.example', password: 'Correct-Horse-9-Battery' })
    expect(new URL(page.url).searchParams.get('code'), 'consent is remembered across sessions').toBeTruthy()
  })

  it('answers userinfo and introspection with the claims of the contract', async () => {
    const tokens = await obtainTokens(server, 'first')
    const userinfo = await fetch(`${server.issuer}/oauth/userinfo`, {
      headers: { authorization: `Bearer ${tokens.access_token}` },
    })
    expect(await userinfo.json()).toMatchObject({
      email: 'lee@mercy.example',
      name: 'Dr Lee',
      org_slug: 'mercy',
      roles: ['member', 'physician'],
    })
    const answer = await introspect(server, tokens.access_token)
    expect(answer).toMatchObject({
      active: true,
      client_id: 'first',
      org_slug: 'mercy',
      roles: ['member', 'physician'],
      acr: 'urn:mlpipes:acr:password',
      iss: server.issuer,
    })
    expect(answer['auth_time']).toBeTypeOf('number')
    expect(answer['sid']).toBeTypeOf('string')
  })

  it('rotates refresh tokens', async () => {
    const tokens = await obtainTokens(server, 'first')
    const refreshed = await post(server, '/oauth/token', 'first', {
      grant_type: 'refresh_token',
      refresh_token: tokens.refresh_token ?? '',
    })
    expect(refreshed.status).toBe(200)
    expect(refreshed.body['refresh_token']).not.toBe(tokens.refresh_token)
    expect((await introspect(server, String(refreshed.body['access_token'])))['active']).toBe(true)
  })

  it('ends tokens of the session at sign-out', async () => {
    const tokens = await obtainTokens(server, 'first')
    const { browser } = tokens
    const page = await browser.follow(
      await browser.request(
        `/oauth/logout?id_token_hint=${tokens.id_token}&post_logout_redirect_uri=http://localhost:9/`,
      ),
    )
    expect(page.text).toContain('Sign out')
    const done = await browser.submit(page, '/oauth/logout/confirm', {})
    expect(done.url).toBe('http://localhost:9/')
    expect(await introspect(server, tokens.access_token)).toEqual({ active: false })
    const refused = await post(server, '/oauth/token', 'first', {
      grant_type: 'refresh_token',
      refresh_token: tokens.refresh_token ?? '',
    })
    expect(refused.body['error']).toBe('invalid_grant')
  })

  it('wrote all of it into the audit log, without a secret', async () => {
    const names = new Set((await server.audit()).map((event) => event.name))
    for (const name of [
      'login.succeeded',
      'session.created',
      'consent.granted',
      'token.issued',
      'token.refreshed',
      'token.revoked',
      'logout.succeeded',
      'account.created',
      'client.created',
      'keys.created',
    ]) {
      expect(names, name).toContain(name)
    }
    const created = (await server.audit('session.created'))[0]
    expect(created).toMatchObject({ actorType: 'account', ip: '127.0.0.1' })
    expect(created?.requestId).toMatch(/^[0-9a-f-]{36}$/)
  })
})
