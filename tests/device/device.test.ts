// The device flow (RFC 8628) as a device and a person meet it. The device is openid-client or plain HTTP, the person a
// browser of their own.
import * as oidc from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deviceGrant } from '../../src/clients/clients.ts'
import { throttleLimits } from '../../src/credentials/throttle.ts'
import { sha256 } from '../../src/crypto/secrets.ts'
import type { Tx } from '../../src/db/database.ts'
import { deviceCodeSeconds, maxOpenDeviceCodes, pollSeconds } from '../../src/oidc/device-codes.ts'
import { endOrganizationAccess } from '../../src/sessions/closing.ts'
import { endAccess, endSession } from '../../src/sessions/ending.ts'
import { endOrganizationSessions } from '../../src/sessions/ending-all.ts'
import { endClientAccess, endConsent, endMembershipAccess } from '../../src/sessions/parting.ts'
import { type Answer, Browser, introspect, post } from '../support/client.ts'
import { mainDatabase, password, people, secretOf, startServer, type TestServer } from '../support/server.ts'

const device = (client_id: string, extra: object = {}) => ({
  client_id,
  client_secret: secretOf(client_id),
  client_name: `Device ${client_id}`,
  organization: 'mercy',
  redirect_uris: [],
  grant_types: [deviceGrant, 'refresh_token'] as [typeof deviceGrant, 'refresh_token'],
  scope: 'openid profile email offline_access',
  introspection: 'own' as const,
  ...extra,
})
const tv = 'tv'
const seed = {
  ...people,
  clients: [
    ...(people.clients ?? []),
    device(tv),
    device('monitor', { first_party: true }),
    device('ward'),
    device('guest-monitor', { first_party: true, organization: 'hope' }),
    device('kiosk', {
      first_party: true,
      client_secret: undefined,
      token_endpoint_auth_method: 'none',
      introspection: 'none',
    }),
  ],
}

describe.each(mainDatabase)('device flow on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
  })
  afterAll(() => server.close())

  async function begin(clientId = tv, form: Record<string, string> = {}) {
    const { status, body } = await post(server, '/oauth/device', clientId, { scope: 'openid profile', ...form })
    expect(status, JSON.stringify(body)).toBe(200)
    return body as {
      device_code: string
      user_code: string
      verification_uri: string
      verification_uri_complete: string
    }
  }
  const poll = (device_code: string, clientId = tv) =>
    post(server, '/oauth/token', clientId, { grant_type: deviceGrant, device_code })
  /** The waiting between two polls, which the tests have no time for. */
  const rested = () => server.database.run('update mlpipes_auth.oidc_payloads set polled_at = null', [])

  const open = async (browser = new Browser(server)) => ({ browser, page: await browser.request('/device') })
  const type = async (userCode: string, browser = new Browser(server)) => {
    const { page } = await open(browser)
    return { browser, page: await browser.submit(page, '/device', { user_code: userCode }) }
  }
  /** From the page that shows the code to the end, signing in and allowing where asked. */
  async function connect(browser: Browser, confirm: Answer, email = 'lee@mercy.example', decision = 'allow') {
    let page = await browser.submit(confirm, '/device', { confirm: 'yes' })
    if (page.text.includes('/password"')) page = await browser.submit(page, '/password', { email, password })
    if (page.text.includes('/consent"')) page = await browser.submit(page, '/consent', { decision })
    return page
  }
  async function approve(userCode: string, email?: string, browser?: Browser) {
    const { browser: used, page } = await type(userCode, browser)
    const end = await connect(used, page, email)
    expect(end.text, `${end.status} ${end.url}`).toContain('Your device is connected')
    return used
  }

  it('lets openid-client in, with the claims of any sign-in', async () => {
    const config = await oidc.discovery(new URL(server.issuer), tv, secretOf(tv), undefined, {
      execute: [oidc.allowInsecureRequests],
    })
    const asked = await oidc.initiateDeviceAuthorization(config, { scope: 'openid profile offline_access' })
    expect(asked.user_code).toMatch(/^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$/)
    expect(asked).toMatchObject({
      verification_uri: `${server.issuer}/device`,
      verification_uri_complete: `${server.issuer}/device?user_code=${asked.user_code}`,
      expires_in: deviceCodeSeconds,
      interval: pollSeconds,
    })
    await approve(asked.user_code)
    const tokens = await oidc.pollDeviceAuthorizationGrant(config, { ...asked, interval: 0 })
    const claims = tokens.claims()
    expect(claims).toMatchObject({
      iss: server.issuer,
      aud: tv,
      org_slug: 'mercy',
      roles: ['member', 'physician'],
      acr: 'urn:mlpipes:acr:password',
      amr: ['pwd'],
    })
    const facts = await introspect(server, tokens.access_token)
    expect(facts).toMatchObject({ active: true, client_id: tv, org_id: claims?.['org_id'], acr: claims?.['acr'] })
    expect(facts['auth_time']).toBe(claims?.auth_time)
    expect(facts['sid']).toBe(claims?.['sid'])
    const refreshed = await oidc.refreshTokenGrant(config, tokens.refresh_token ?? '')
    expect(await introspect(server, refreshed.access_token)).toMatchObject({
      active: true,
      org_id: claims?.['org_id'],
      acr: claims?.['acr'],
    })
    const [approved] = await server.audit('device.approved')
    expect(approved).toMatchObject({ clientId: tv, outcome: 'success' })
    expect(await server.audit('consent.granted')).toHaveLength(1)
  })

  it('shows who asks, for whom and with which code, and connects nothing before a form of ours says so', async () => {
    const { device_code, user_code, verification_uri_complete } = await begin('monitor')
    const browser = new Browser(server)
    await approve((await begin('monitor')).user_code, 'lee@mercy.example', browser)
    const filled = await browser.request(verification_uri_complete)
    expect(filled.text).toContain(`value="${user_code}"`)
    expect(filled.text).not.toContain('name="confirm"')
    const confirm = await browser.submit(filled, '/device', { user_code })
    for (const words of ['Device monitor', 'Mercy Hospital', user_code, 'lee@mercy.example'])
      expect(confirm.text).toContain(words)
    expect(confirm.headers.get('cache-control')).toBe('no-store')
    expect((await poll(device_code, 'monitor')).body['error']).toBe('authorization_pending')
    const forged = await browser.request('/device', { form: { xsrf: 'x', user_code, confirm: 'yes' } })
    expect(forged.status).toBe(400)
    await rested()
    expect((await poll(device_code, 'monitor')).body['error']).toBe('authorization_pending')
  })

  it('takes the code in small letters, with and without dashes and spaces', async () => {
    for (const spell of [
      (code: string) => code.toLowerCase(),
      (code: string) => code.replace('-', ''),
      (code: string) => ` ${code.replace('-', ' ').toLowerCase()} `,
    ]) {
      const { user_code } = await begin()
      expect((await type(spell(user_code))).page.text).toContain('name="confirm"')
    }
  })

  it('gives one set of tokens to 20 polls at once, and leaves it alive', async () => {
    const { device_code, user_code } = await begin('monitor')
    await approve(user_code)
    const answers = await Promise.all(Array.from({ length: 20 }, () => poll(device_code, 'monitor')))
    const won = answers.filter(({ status }) => status === 200)
    expect(won).toHaveLength(1)
    for (const { status, body } of answers)
      if (status !== 200) expect({ status, error: body['error'] }).toEqual({ status: 400, error: 'invalid_grant' })
    expect(await introspect(server, String(won[0]?.body['access_token']))).toMatchObject({ active: true })
    await server.database.run(
      `update mlpipes_auth.oidc_payloads set consumed_at = now() - interval '11 seconds' where model = 'DeviceCode'`,
      [],
    )
    expect((await poll(device_code, 'monitor')).body['error']).toBe('invalid_grant')
    expect(await introspect(server, String(won[0]?.body['access_token']))).toEqual({ active: false })
  })

  it('tells a device that polls too fast to slow down, but not one that is let in', async () => {
    const { device_code, user_code } = await begin('monitor')
    expect((await poll(device_code, 'monitor')).body['error']).toBe('authorization_pending')
    expect((await poll(device_code, 'monitor')).body['error']).toBe('slow_down')
    const back = (seconds: number) =>
      server.database.run(
        `update mlpipes_auth.oidc_payloads set polled_at = clock_timestamp() - make_interval(secs => $1::integer)
          where model = 'DeviceCode'`,
        [seconds],
      )
    await back(pollSeconds)
    expect((await poll(device_code, 'monitor')).body['error']).toBe('authorization_pending')
    await back(pollSeconds - 3)
    expect((await poll(device_code, 'monitor')).body['error']).toBe('slow_down')
    await approve(user_code)
    expect((await poll(device_code, 'monitor')).status).toBe(200)
  })

  it('expires on both sides', async () => {
    const { device_code, user_code } = await begin()
    const { browser, page } = await type(user_code)
    await server.database.run(
      `update mlpipes_auth.oidc_payloads set payload = jsonb_set(payload, '{exp}', to_jsonb(1)),
        expires_at = now() + interval '1 minute' where model = 'DeviceCode'`,
      [],
    )
    expect((await poll(device_code)).body['error']).toBe('expired_token')
    const late = await browser.submit(page, '/device', { confirm: 'yes' })
    expect(late.status).toBe(400)
    expect(late.text).toContain('This code has expired')
    await server.database.run(`update mlpipes_auth.oidc_payloads set expires_at = now() where model = 'DeviceCode'`, [])
    expect((await poll(device_code)).body['error']).toBe('invalid_grant')
  })

  it('is denied with the code, at consent, and by going back', async () => {
    const first = await begin()
    const { browser, page } = await type(first.user_code)
    expect((await browser.submit(page, '/device', { abort: 'yes' })).text).toContain('The device was not connected')
    expect((await poll(first.device_code)).body['error']).toBe('access_denied')
    const [denied] = await server.audit('device.denied')
    expect(denied).toMatchObject({ clientId: tv, outcome: 'failure' })

    const second = await begin(tv, { scope: 'openid email' })
    const confirm = await type(second.user_code)
    const end = await connect(confirm.browser, confirm.page, 'lee@mercy.example', 'deny')
    expect(end.text).toContain('The device was not connected')
    expect((await poll(second.device_code)).body['error']).toBe('access_denied')

    const third = await begin()
    const typed = await type(third.user_code)
    const signIn = await typed.browser.submit(typed.page, '/device', { confirm: 'yes' })
    expect((await typed.browser.submit(signIn, '/cancel', {})).text).toContain('The device was not connected')
    expect((await poll(third.device_code)).body['error']).toBe('access_denied')
  })

  it('is taken by one of many who confirm it at once', async () => {
    const { device_code, user_code } = await begin('monitor')
    const visits = await Promise.all(Array.from({ length: 6 }, () => type(user_code)))
    const pages = await Promise.all(
      visits.map(({ browser, page }) => browser.submit(page, '/device', { confirm: 'yes' })),
    )
    const going = pages.filter((page) => page.text.includes('/password"'))
    expect(going).toHaveLength(1)
    for (const page of pages) if (!going.includes(page)) expect(page.text).toContain('This code was used already')
    const index = pages.findIndex((page) => going.includes(page))
    const browser = visits[index]?.browser ?? expect.fail()
    await browser.submit(going[0] ?? expect.fail(), '/password', { email: 'lee@mercy.example', password })
    expect((await poll(device_code, 'monitor')).status).toBe(200)
  })

  it('lets nobody else finish what one browser began', async () => {
    const { user_code } = await begin('monitor')
    const { browser, page } = await type(user_code)
    const signIn = await browser.submit(page, '/device', { confirm: 'yes' })
    const uid = new URL(signIn.url).pathname.split('/')[2]
    const stranger = await new Browser(server).request(`/device/${uid}`)
    expect(stranger.status).toBe(400)
    expect(stranger.text).not.toContain('Your device is connected')
  })

  // Somebody who only ever lets devices in was signed out as idle, and a device of a strict organisation held them to nothing.
  it('counts as a use of the session in which it is allowed, for the organisation of the app', async () => {
    const session = { idleTimeout: 1_000, absoluteLifetime: 20_000 }
    await server.apply({ organizations: [{ slug: 'hope', name: 'Hope Clinic', policy: { session } }] })
    const browser = await approve((await begin('monitor')).user_code)
    const read = async () => {
      const [row] = await server.database.run(
        `select uid, idle_seconds, absolute_seconds, last_activity_at > now() - interval '60 seconds' as is_fresh,
          idle_expires_at > now() + interval '900 seconds' as is_whole,
          array(select o.slug from mlpipes_auth.session_organizations x join mlpipes_auth.organizations o on o.id = x.organization_id
            where x.session_uid = s.uid) as used_for,
          (select count(*)::integer from mlpipes_auth.audit_events e where e.name = 'session.extended' and e.session_uid = s.uid) as extensions
          from mlpipes_auth.sessions s order by created_at desc limit 1`,
        [],
      )
      return row
    }
    const age = (seconds: number) =>
      server.database.run(
        `update mlpipes_auth.sessions set last_activity_at = now() - make_interval(secs => $1::integer),
          idle_expires_at = now() + make_interval(secs => idle_seconds - $1::integer) where signed_in_at is not null`,
        [seconds],
      )
    expect(await read()).toMatchObject({ extensions: 0, used_for: [] })
    await age(400)
    const { page } = await type((await begin('guest-monitor')).user_code, browser)
    expect(await read(), 'a code that is typed is none').toMatchObject({ extensions: 0, used_for: [], is_fresh: false })
    await browser.submit(page, '/device', { abort: 'yes' })
    expect(await read(), 'nor one that is refused').toMatchObject({ extensions: 0, used_for: [], is_fresh: false })
    await approve((await begin('guest-monitor')).user_code, undefined, browser)
    const used = { idle_seconds: 1_000, absolute_seconds: 20_000, used_for: ['hope'], is_whole: true }
    expect(await read()).toMatchObject({ ...used, extensions: 1, is_fresh: true })
    await approve((await begin('monitor')).user_code, undefined, browser)
    expect(await read(), 'at once again').toMatchObject({ ...used, extensions: 1 })
    await age(301)
    await approve((await begin('monitor')).user_code, undefined, browser)
    expect(await read()).toMatchObject({ ...used, extensions: 2 })
    await server.apply({ organizations: [{ slug: 'hope', name: 'Hope Clinic', policy: {} }] })
  })

  it('makes room in the session limit of the organisation, as whatever else is let in', async () => {
    const limited = (maxConcurrent: number | null) =>
      server.apply({
        organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy: { session: { maxConcurrent } } }],
      })
    const browsers = [
      await approve((await begin('monitor')).user_code, 'ada@mercy.example'),
      await approve((await begin('monitor')).user_code, 'ada@mercy.example'),
    ]
    const open = () =>
      server.database.run(
        `select s.uid from mlpipes_auth.sessions s join mlpipes_auth.accounts a on a.id = s.account_id
          where a.email = 'ada@mercy.example' and s.ended_at is null order by s.signed_in_at`,
        [],
      )
    const [, newer] = await open()
    await server.database.run(
      `update mlpipes_auth.organizations set policy = '{"session": {"maxConcurrent": 1}}' where slug = 'mercy'`,
      [],
    )
    const { user_code } = await begin('monitor')
    await approve(user_code, undefined, browsers[1])
    expect(await open()).toEqual([newer])
    await limited(null)
  })

  it('ends with the session in which it was allowed', async () => {
    const { device_code, user_code } = await begin('monitor', { scope: 'openid offline_access' })
    await approve(user_code, 'hugo@hope.example')
    await server.database.run(
      `update mlpipes_auth.sessions set ended_at = now(), end_reason = 'sign_out' where account_id =
        (select id from mlpipes_auth.accounts where email = 'hugo@hope.example')`,
      [],
    )
    expect((await poll(device_code, 'monitor')).body['error']).toBe('invalid_grant')
  })

  interface Whose {
    readonly accountId: string
    readonly organizationId: string
    readonly uid: string
  }
  const by = { actor: { type: 'system' as const }, origin: {} }
  const clientId = 'monitor'
  const ends: Readonly<Record<string, (tx: Tx, whose: Whose) => Promise<unknown>>> = {
    'the session': (tx, whose) => endSession(tx, { ...whose, ...by, cause: 'ended_by_administrator' }),
    'the account': (tx, whose) => endAccess(tx, { ...whose, ...by, cause: 'disabled' }),
    'the consent': (tx, whose) => endConsent(tx, { ...whose, clientId }),
    'the client': (tx, whose) => endClientAccess(tx, { ...whose, ...by, clientId }),
    'the membership': (tx, whose) => endMembershipAccess(tx, { ...whose, ...by }),
    'the organisation': (tx, whose) => endOrganizationAccess(tx, { ...whose, ...by }),
    'every session of the organisation': (_tx, whose) =>
      endOrganizationSessions(server.database, { ...whose, ...by, exceptSessionUid: undefined }),
    'what the client was': () =>
      server.apply({ clients: [device(clientId, { first_party: true, client_name: 'New' })] }),
  }

  it.each(Object.entries(ends))('once approved is taken away with %s', async (_name, end) => {
    const { device_code, user_code } = await begin(clientId, { scope: 'openid offline_access' })
    await approve(user_code)
    const approved = async () =>
      server.database.run(
        `select account_id, organization_id, payload ->> 'sessionUid' as uid from mlpipes_auth.oidc_payloads
          where model = 'DeviceCode' and account_id is not null and id_hash = $1`,
        [sha256(device_code)],
      )
    const [row] = await approved()
    const whose = {
      accountId: String(row?.['account_id']),
      organizationId: String(row?.['organization_id']),
      uid: String(row?.['uid']),
    }
    await server.database.kysely.transaction().execute((tx) => end(tx, whose))
    expect(await approved()).toEqual([])
    expect((await poll(device_code, clientId)).body['error']).toBe('invalid_grant')
  })

  it('is given to a client so often and no oftener, until somebody decides', async () => {
    await begin('ward')
    await server.database.run(
      `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, client_id, expires_at)
        select 'DeviceCode', 'waiting ' || number, '{}', 'ward', now() + interval '20 minutes'
        from generate_series(1, $1::integer) as number`,
      [maxOpenDeviceCodes - 2],
    )
    const ask = () => post(server, '/oauth/device', 'ward', { scope: 'openid' })
    expect((await ask()).status, 'the last').toBe(200)
    const refused = await ask()
    expect(refused).toMatchObject({ status: 429, body: { error: 'slow_down' } })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await server.audit('authorization.refused'))[0]).toMatchObject({ clientId: 'ward' })
    await begin('monitor')
    await server.database.run(
      `update mlpipes_auth.oidc_payloads set payload = '{"error": "access_denied"}' where id_hash = 'waiting 1'`,
      [],
    )
    expect((await ask()).status).toBe(200)
    expect((await ask()).status).toBe(429)
    await server.database.run(
      `update mlpipes_auth.oidc_payloads set created_at = now() - make_interval(secs => $1::integer)
        where id_hash = 'waiting 2'`,
      [deviceCodeSeconds],
    )
    expect((await ask()).status, 'one that ran out').toBe(200)
  })

  it('is held to the organisation that the app asks for', async () => {
    const { device_code, user_code } = await begin('monitor', { organization: 'mercy' })
    const { browser, page } = await type(user_code)
    const turnedAway = await connect(browser, page, 'hugo@hope.example')
    expect(turnedAway.text).toContain('You do not belong to this organisation')
    expect((await browser.submit(turnedAway, '/cannot', {})).text).toContain('The device was not connected')
    expect((await poll(device_code, 'monitor')).body['error']).toBe('access_denied')
    const other = await begin('monitor', { organization: 'hope' })
    await approve(other.user_code, 'hugo@hope.example')
    const tokens = await poll(other.device_code, 'monitor')
    expect(await introspect(server, String(tokens.body['access_token']), 'monitor')).toMatchObject({ org_slug: 'hope' })
  })

  it('gives a code to no other client, and none for what it is kept under', async () => {
    const { device_code, user_code } = await begin('monitor')
    await approve(user_code)
    expect((await poll(device_code, tv)).body['error']).toBe('invalid_grant')
    const [row] = await server.database.run(
      `select id_hash, payload::text as payload, user_code_hash from mlpipes_auth.oidc_payloads
        where model = 'DeviceCode' and consumed_at is null and account_id is not null order by created_at desc limit 1`,
      [],
    )
    for (const form of [`~${String(row?.['id_hash'])}`, String(row?.['id_hash'])])
      expect((await poll(form, 'monitor')).body['error']).toBe('invalid_grant')
    const everything = await server.database.run('select payload::text as text from mlpipes_auth.oidc_payloads', [])
    const stored = everything.map((one) => String(one['text'])).join()
    for (const secret of [device_code, user_code, user_code.replace('-', '')]) {
      expect(stored).not.toContain(secret)
      expect(server.logs.join()).not.toContain(secret)
    }
  })

  it('refuses clients without the grant, and unreadable requests, in words', async () => {
    expect((await post(server, '/oauth/device', 'ehr', { scope: 'openid' })).status).toBe(400)
    for (const device_code of ['', 'x', '~', '\u{1f4a9}', 'x'.repeat(4_000)])
      expect((await poll(device_code)).status, device_code).toBe(400)
    const browser = new Browser(server)
    for (const form of [{ user_code: 'BCDF-GHJK' }, { user_code: 'BCDF-GHJK', confirm: 'yes' }, { xsrf: '' }] as Record<
      string,
      string
    >[]) {
      const cold = await new Browser(server).request('/device', { form })
      expect(cold.status).toBe(400)
      expect(cold.text).toContain('Type a code')
    }
    const { page } = await open(browser)
    for (const user_code of ['', 'AEIO-UAEI', 'BCDF', '\u202e', 'x'.repeat(10_000)])
      expect((await browser.submit(page, '/device', { user_code })).status, user_code).toBe(400)
    const dupes = await fetch(`${server.issuer}/device`, { method: 'POST', body: 'user_code=1&user_code=2' })
    expect(dupes.status).toBe(400)
    expect((await browser.request(`/device?user_code=${'x'.repeat(9_000)}`)).status).toBe(414)
    expect((await browser.request('/device?user_code=a&user_code=b')).status).toBeLessThan(500)
    expect((await browser.request('/device/unknown')).status).toBe(400)
  })
})

describe('guessing codes', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer('pglite', { seed })
  })
  afterAll(() => server.close())

  const begin = async () => String((await post(server, '/oauth/device', tv, { scope: 'openid' })).body['user_code'])
  const wrong = (index: number) => {
    const letters = 'BCDFGHJKLMNPQRSTVWXZ'
    return `BCDFGH${letters[Math.floor(index / 20)]}${letters[index % 20]}`
  }
  let next = 0
  const guess = async (browser: Browser, userCode = wrong(next++)) => {
    const page = await browser.request('/device')
    return browser.submit(page, '/device', { user_code: userCode })
  }

  it('stops after five wrong codes in a browser, and a right one of the guesser forgives none', async () => {
    const { tries } = throttleLimits.userCodesPerBrowser
    const browser = new Browser(server)
    for (let index = 0; index < tries - 1; index += 1) expect((await guess(browser)).status).toBe(400)
    expect((await guess(browser, await begin())).text).toContain('name="confirm"')
    expect((await guess(browser)).status, 'the last free one').toBe(400)
    const refused = await guess(browser, await begin())
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(refused.text).toContain('Too many codes')
    expect((await guess(new Browser(server), await begin())).text, 'another browser').toContain('name="confirm"')
    const [event] = await server.audit('device.code_refused')
    expect(event?.details).toMatchObject({ reason: 'throttled' })
  })

  it('stops an address that takes a new browser for every guess', async () => {
    const { tries } = throttleLimits.userCodesPerAddress
    for (let index = next; index < tries; index += 1) expect((await guess(new Browser(server))).status).toBe(400)
    expect((await guess(new Browser(server))).status).toBe(429)
    expect((await guess(new Browser(server), await begin())).status).toBe(429)
    expect((await server.audit('device.approved')).length).toBe(0)
  })

  it('lets no number of parallel guesses through', async () => {
    await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
    const browser = new Browser(server)
    const page = await browser.request('/device')
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => browser.submit(page, '/device', { user_code: wrong(next++) })),
    )
    // A form that was sent twice at once is refused before its code is looked at.
    const compared = answers.filter(({ text }) => text.includes('This code is not right')).length
    expect(compared).toBeGreaterThan(0)
    expect(compared).toBeLessThanOrEqual(throttleLimits.userCodesPerBrowser.tries)
  })
})
