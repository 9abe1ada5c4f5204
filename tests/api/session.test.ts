// The session that a sign-in over the API leaves: one kind with that of the pages, its seconds, its end.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, post, redeem, signIn } from '../support/client.ts'
import { mailsTo } from '../support/mails.ts'
import { mainDatabase, password, type TestServer } from '../support/server.ts'
import { ApiClient, good, problem, startApi } from './support.ts'

describe.each(mainDatabase)('the session on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startApi(kind)
  })
  afterAll(() => server.close())

  async function signedIn(email: string, secret = password) {
    const client = new ApiClient(server)
    expect((await client.post('/signin', { email, password: secret })).body).toMatchObject({ status: 'complete' })
    return client
  }
  const sessionOf = async (client: ApiClient) =>
    (await client.call('/session')).body['session'] as Record<string, unknown>
  /** Sets the one live session of a person as if time had passed. */
  const set = (email: string, columns: string) =>
    server.database.run(
      `update mlpipes_auth.sessions set ${columns} where ended_at is null
        and account_id = (select id from mlpipes_auth.accounts where email = $1)`,
      [email],
    )
  const authorize = async (browser: Browser, clientId = 'first') => {
    const { url, verifier } = authorizationUrl(server, clientId, { prompt: 'none' })
    const landing = new URL((await browser.follow(await browser.request(url))).url)
    return { code: landing.searchParams.get('code'), error: landing.searchParams.get('error'), verifier }
  }

  it('is taken at /oauth/authorize without asking, and its tokens die with the sign-out', async () => {
    const client = await signedIn('p0@mercy.example')
    const { code, verifier } = await authorize(client.browser)
    const tokens = (await redeem(server, 'first', code ?? '', verifier)).body
    expect(await introspect(server, String(tokens['access_token']))).toMatchObject({
      active: true,
      acr: 'urn:mlpipes:acr:password',
    })
    const out = await client.post('/signout')
    expect(out.status).toBe(204)
    expect(client.cookie('mlpipes_session')).toBeUndefined()
    expect(client.cookie('mlpipes_session.sig')).toBeUndefined()
    expect(await introspect(server, String(tokens['access_token']))).toEqual({ active: false })
    const refreshed = await post(server, '/oauth/token', 'first', {
      grant_type: 'refresh_token',
      refresh_token: String(tokens['refresh_token']),
    })
    expect(refreshed.body['error']).toBe('invalid_grant')
    expect((await authorize(client.browser)).error).toBe('login_required')
    const [ended] = await server.audit('logout.succeeded')
    expect(ended).toMatchObject({ outcome: 'success', requestId: out.headers.get('x-request-id') })
    expect((await server.audit('access.ended'))[0]?.details).toMatchObject({ cause: 'sign_out', sessions: 1 })
  })

  it('is dead for whoever kept the cookie, and signing out again answers the same', async () => {
    const client = await signedIn('p1@mercy.example')
    const kept = client.cookie('mlpipes_session') ?? ''
    expect((await client.post('/signout')).status).toBe(204)
    expect((await client.post('/signout')).status).toBe(204)
    const thief = new ApiClient(server)
    thief.setCookie('mlpipes_session', kept)
    expect(await thief.call('/session')).toMatchObject({ status: 401, body: { type: problem('session_missing') } })
    expect((await server.audit('logout.succeeded')).filter(({ sessionUid }) => sessionUid !== null)).toHaveLength(2)
  })

  it('of the pages is the same kind: the API reads it and ends it', async () => {
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'), 'p2@mercy.example')
    const client = new ApiClient(server, browser)
    expect(await sessionOf(client)).toMatchObject({ account: { email: 'p2@mercy.example' }, amr: ['pwd'] })
    expect((await client.post('/signout')).status).toBe(204)
    expect((await authorize(browser)).error).toBe('login_required')
  })

  it('says how long it has, and asking is no activity', async () => {
    const client = await signedIn('p3@mercy.example')
    const fresh = await sessionOf(client)
    expect(fresh['idleSecondsLeft']).toBeLessThanOrEqual(1_800)
    expect(fresh['idleSecondsLeft']).toBeGreaterThan(1_700)
    expect(fresh['absoluteSecondsLeft']).toBeLessThanOrEqual(43_200)
    expect(fresh['absoluteSecondsLeft']).toBeGreaterThan(43_100)
    await set('p3@mercy.example', "idle_expires_at = now() + interval '60 seconds'")
    expect((await sessionOf(client))['idleSecondsLeft']).toBeLessThanOrEqual(60)
    expect((await sessionOf(client))['idleSecondsLeft'], 'not extended by the one before').toBeLessThanOrEqual(60)
  })

  it('is extended by what the person does, never past its absolute limit', async () => {
    const client = await signedIn('p4@mercy.example')
    await set('p4@mercy.example', "idle_expires_at = now() + interval '60 seconds'")
    const extended = (await client.post('/session/extend')).body
    expect(extended).toMatchObject({ extended: true })
    expect((await sessionOf(client))['idleSecondsLeft']).toBeGreaterThan(1_700)
    await set('p4@mercy.example', "absolute_expires_at = now() + interval '100 seconds'")
    await client.post('/session/extend')
    const capped = await sessionOf(client)
    expect(capped['absoluteSecondsLeft']).toBeLessThanOrEqual(100)
    expect(capped['idleSecondsLeft']).toBe(capped['absoluteSecondsLeft'])
    const [row] = await server.database.run(
      `select idle_expires_at <= absolute_expires_at as held from mlpipes_auth.sessions s
        join mlpipes_auth.accounts a on a.id = s.account_id where a.email = $1`,
      ['p4@mercy.example'],
    )
    expect(row?.['held']).toBe(true)
  })

  it.each(['idle_expires_at', 'absolute_expires_at'])('is not brought back once past %s', async (column) => {
    const client = await signedIn('p5@mercy.example')
    await set('p5@mercy.example', `${column} = now() - interval '1 second'`)
    expect((await client.call('/session')).status).toBe(401)
    expect((await client.post('/session/extend')).status).toBe(401)
    expect((await client.call('/session')).status).toBe(401)
  })

  it('is not extended where the policy says so', async () => {
    const client = await signedIn('stella@still.example')
    await set('stella@still.example', "idle_expires_at = now() + interval '60 seconds'")
    const answer = (await client.post('/session/extend')).body
    expect(answer).toMatchObject({ extended: false })
    expect((await sessionOf(client))['idleSecondsLeft']).toBeLessThanOrEqual(60)
  })

  it('ends with the account', async () => {
    const client = await signedIn('p6@mercy.example')
    await server.database.run('update mlpipes_auth.accounts set disabled_at = now() where email = $1', [
      'p6@mercy.example',
    ])
    expect((await client.call('/session')).status).toBe(401)
  })

  it('lets a password be changed by who knows it, ends the other sessions, and tells the owner', async () => {
    const other = await signedIn('p7@mercy.example')
    const client = await signedIn('p7@mercy.example')
    const change = (currentPassword: string, newPassword = good) =>
      client.post('/password/change', { currentPassword, newPassword })
    expect(await change('wrong')).toMatchObject({ status: 403, body: { type: problem('current_password_refused') } })
    const weak = await change(password, 'short')
    expect(weak.status).toBe(400)
    expect(weak.body['errors']).toContainEqual(expect.objectContaining({ path: 'newPassword' }))
    expect((await change(password)).status).toBe(204)
    expect((await client.call('/session')).status, 'this one goes on').toBe(200)
    expect((await other.call('/session')).status).toBe(401)
    await expect
      .poll(() => mailsTo(server, 'p7@mercy.example').map(({ subject }) => subject), { timeout: 5_000 })
      .toContainEqual(expect.stringMatching(/password/i))
    expect((await new ApiClient(server).post('/signin', { email: 'p7@mercy.example', password })).status).toBe(401)
    await signedIn('p7@mercy.example', good)
  })

  it('F65: wants a fresh sign-in for that', async () => {
    const client = await signedIn('p8@mercy.example')
    server.clock.now = new Date(Date.now() + 301_000)
    const answer = await client.post('/password/change', { currentPassword: password, newPassword: good })
    server.clock.now = undefined
    expect(answer).toMatchObject({ status: 403, body: { type: problem('sign_in_again') } })
    expect((await client.post('/password/change', { currentPassword: password, newPassword: good })).status).toBe(204)
  })

  it('tells nobody anything without one', async () => {
    const stranger = new ApiClient(server)
    for (const [path, body] of [
      ['/session/extend', {}],
      ['/password/change', { newPassword: good }],
    ] as const)
      expect(await stranger.post(path, body), path).toMatchObject({
        status: 401,
        body: { type: problem('session_missing') },
      })
    expect((await stranger.call('/session')).status).toBe(401)
  })
})
