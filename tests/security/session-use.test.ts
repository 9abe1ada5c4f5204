// What holds a session to an organisation's policy: being used for it, and nothing less. Both were found by the model of
// tests/property/sessions.test.ts.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, obtainTokens, signIn } from '../support/client.ts'
import { databaseKinds, people, startServer, type TestServer } from '../support/server.ts'

const email = 'lee@mercy.example'
const seed = {
  ...people,
  clients: [
    ...(people.clients ?? []),
    {
      client_id: 'hopeful',
      client_secret: 'hopeful-secret-0123456789',
      client_name: 'Hopeful',
      organization: 'hope',
      redirect_uris: ['http://localhost:9/callback'],
      scope: 'openid profile email',
      first_party: true,
    },
  ],
}

describe.each(databaseKinds)('a session on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
    await server.database.run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{visitor}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email = $1 and o.slug = 'hope'`,
      [email],
    )
  })
  afterAll(() => server.close())
  beforeEach(() => limits({}, {}))

  const limits = (mercy: object, hope: object, more = {}) =>
    server.apply({
      organizations: [
        { slug: 'mercy', name: 'Mercy Hospital', policy: { session: mercy } },
        { slug: 'hope', name: 'Hope Clinic', policy: { session: hope, ...more } },
      ],
    })
  const times = async () => {
    const [row] = await server.database.run(
      `select idle_seconds, absolute_seconds, last_activity_at, absolute_expires_at from mlpipes_auth.sessions
        order by created_at desc limit 1`,
      [],
    )
    return row
  }
  const asks = async (browser: Browser, client: string) => {
    const answer = await browser.request(authorizationUrl(server, client, { prompt: 'none' }).url)
    return new URL(answer.headers.get('location') ?? '').searchParams.get('error')
  }

  // An app of a strict organisation that asked in a frame whether somebody is signed in shortened their session elsewhere, or
  // ended it, although it was told no.
  it('that is refused for another organisation is not held to its policy, nor kept alive by it', async () => {
    await limits({}, { idleTimeout: 300, absoluteLifetime: 3_600 }, { mfa: 'required' })
    const { browser, access_token } = await obtainTokens(server, 'first', {}, new Browser(server))
    await server.database.run(
      `update mlpipes_auth.sessions set last_activity_at = now() - interval '200 seconds', signed_in_at = now() - interval '2 hours'`,
      [],
    )
    const before = await times()
    expect(await asks(browser, 'hopeful')).toBe('login_required')
    await browser.follow(await browser.request(authorizationUrl(server, 'hopeful').url))
    expect(await times()).toEqual({ ...before, absolute_expires_at: expect.any(Date) })
    expect((await introspect(server, access_token))['active']).toBe(true)
    expect(await asks(browser, 'first')).toBeNull()
    await limits({}, { idleTimeout: 60, absoluteLifetime: 600 }, { mfa: 'required' })
    expect((await introspect(server, access_token))['active'], 'nor to what it says later').toBe(true)
  })

  // Somebody signed in for Mercy, then with the same browser again for Hope: the session had tokens of Mercy still, but
  // Mercy's policy did not reach it any more.
  it('that signs in anew for another organisation is held to the former one too', async () => {
    const { browser, access_token } = await obtainTokens(server, 'first', {}, new Browser(server))
    // The provider tells sign-ins apart by their second.
    await server.database.run(
      `update mlpipes_auth.sessions set payload = jsonb_set(payload, '{loginTs}', to_jsonb((payload ->> 'loginTs')::integer - 1))`,
      [],
    )
    const again = await signIn(browser, authorizationUrl(server, 'hopeful', { prompt: 'login', organization: 'hope' }))
    expect(again.url).toContain('code=')
    expect((await introspect(server, access_token))['active']).toBe(true)
    await limits({ idleTimeout: 120 }, {})
    // Not near its end: by housekeeping, which comes by every other second.
    await expect.poll(times, { timeout: 10_000 }).toMatchObject({ idle_seconds: 120 })
  })

  it('that its person ends is in the log as ended, as whatever else ends it', async () => {
    const { browser } = await obtainTokens(server, 'first', {}, new Browser(server))
    const page = await browser.follow(await browser.request('/oauth/logout'))
    await browser.submit(page, '/oauth/logout/confirm', { logout: 'yes' })
    const [out] = await server.audit('logout.succeeded')
    const ended = (await server.audit('session.ended')).filter(({ sessionUid }) => sessionUid === out?.sessionUid)
    expect(ended).toMatchObject([{ details: { reason: 'sign_out' } }])
  })
})
