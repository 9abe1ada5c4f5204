// The pages of /account: who comes in, what each of them changes, and what it must never reach.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Answer, authorizationUrl, Browser, obtainTokens, post, redeem, signIn } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { type DatabaseKind, mainDatabase, password, people, startServer, type TestServer } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'
import { accountId, ageSignIn, csrfOf, isActive, liveSessions, visit } from './support.ts'

const person = (name: string, more: Record<string, unknown> = {}) => ({
  email: `${name}@mercy.example`,
  name: `Person ${name}`,
  password,
  organization: 'mercy',
  emailVerified: true,
  ...more,
})
const names = ['mover', 'racer', 'keeper', 'closer', 'other', 'appy', 'worried', 'reader', 'shown', 'setter', 'thief']
const seed = {
  ...people,
  accounts: [
    ...(people.accounts ?? []),
    ...names.map((name) => person(name)),
    person('strong', { totpSecret: seededSecret }),
    person('strict', { totpSecret: seededSecret, organization: 'strict' }),
  ],
  organizations: [
    ...(people.organizations ?? []),
    { slug: 'strict', name: 'Strict', policy: { mfa: 'required' as const } },
  ],
}

const posts: readonly (readonly [string, Record<string, string>])[] = [
  ['/account/profile', { name: 'Mallory' }],
  ['/account/email', { email: 'mallory@evil.example' }],
  ['/account/email/confirm', {}],
  ['/account/password', { current: password, password: 'Another-Horse-7-Staple' }],
  ['/account/second-factor/add', { name: 'Phone' }],
  ['/account/second-factor/set-up/totp_0123456789012345678901', { code: '123456' }],
  ['/account/second-factor/rename', { totpId: 'totp_x', name: 'Phone' }],
  ['/account/second-factor/remove', { totpId: 'totp_x' }],
  ['/account/second-factor/backup-codes', {}],
  ['/account/second-factor/codes-kept', {}],
  ['/account/sessions/end', { uid: 'x' }],
  ['/account/sessions/end-others', {}],
  ['/account/apps/remove', { clientId: 'ehr' }],
  ['/account/data', {}],
]
const sensitive = posts.filter(([path]) =>
  /email$|password$|second-factor\/(add|set-up|rename|remove|backup)|data$/.test(path),
)

describe.each(mainDatabase)('/account on %s', (kind: DatabaseKind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
  })
  afterAll(() => server.close())

  const go = (browser: Browser, path: string) => browser.request(path)
  const send = async (browser: Browser, path: string, form: Record<string, string>, page: Answer) =>
    browser.request(path, { form: { csrf: csrfOf(page), ...form } })
  const eventsOf = async (name: string, email: string) => {
    const id = await accountId(server, email)
    return (await server.audit(name)).filter((event) => event.accountId === id && event.actorType !== 'operator')
  }

  describe('the way in', () => {
    it('signs a stranger in and brings them to the page they asked for', async () => {
      const { page } = await visit(server, '/account/sessions')
      expect(new URL(page.url).pathname).toBe('/account/sessions')
      expect(page.text).toContain('<h1>Sessions</h1>')
      expect(page.text).toContain('this browser')
    })

    it('names the page by a number of our own list, whatever state says (F28)', async () => {
      const { browser } = await visit(server, '/account')
      for (const state of ['https://evil.example', '//evil.example', '/evil', '99', '-1', '1.0', '01', '']) {
        const answer = await browser.request(`/account/callback?code=x&state=${encodeURIComponent(state)}`)
        expect(answer.status).toBe(303)
        expect(answer.headers.get('location'), state).toBe('/account')
      }
      const first = await new Browser(server).request('/account/password?next=https://evil.example')
      expect(new URL(first.headers.get('location') ?? '', server.issuer).searchParams.get('state')).toMatch(/^\d+$/)
    })

    it('says in words that a sign-in was cancelled, and offers to try again', async () => {
      const browser = new Browser(server)
      const page = await browser.follow(await browser.request('/account/apps'))
      const back = await browser.submit(page, '/cancel', {})
      expect(back.text).toContain('You were not signed in')
      expect(back.text).toContain('href="/account/apps"')
    })

    it('shows no error text from the address', async () => {
      const answer = await go(new Browser(server), '/account/callback?error=%3Cb%3Ex&error_description=Call+us&state=1')
      expect(answer.status).toBe(403)
      expect(answer.text).toContain('The sign-in did not work')
      expect(answer.text).not.toContain('Call us')
    })

    it('asks for a fresh sign-in and comes back to the page that wanted it', async () => {
      const { browser } = await visit(server, '/account')
      expect((await go(browser, '/account/password')).status).toBe(200)
      await ageSignIn(server, 'lee@mercy.example', 301)
      const again = await go(browser, '/account/password')
      expect(again.headers.get('location')).toContain('max_age=300')
      const asked = await browser.follow(again)
      const page = await browser.submit(asked, '/password', { email: 'lee@mercy.example', password })
      expect(new URL(page.url).pathname).toBe('/account/password')
      expect(page.text).toContain('Current password')
    })

    it('keeps tokens that its own client may still get inactive at introspection', async () => {
      const { browser } = await visit(server, '/account')
      const callback = `${server.issuer}/account/callback`
      const { url, verifier } = authorizationUrl(server, 'mlpipes-account', { redirect_uri: callback, scope: 'openid' })
      const code = new URL((await browser.request(url)).headers.get('location') ?? '').searchParams.get('code') ?? ''
      const tokens = await post(server, '/oauth/token', 'spa', {
        client_id: 'mlpipes-account',
        grant_type: 'authorization_code',
        code,
        redirect_uri: callback,
        code_verifier: verifier,
      })
      expect(tokens.status).toBe(200)
      expect(tokens.body['refresh_token']).toBeUndefined()
      expect(await isActive(server, String(tokens.body['access_token']))).toBe(false)
    })
  })

  describe('forms', () => {
    it.each(posts)('POST %s is nothing without a session, and refused without our token', async (path, form) => {
      const stranger = await new Browser(server).request(path, { form: { csrf: 'x', ...form } })
      expect(stranger.status).toBe(303)
      expect(stranger.headers.get('location')).toMatch(/^\/oauth\/authorize\?client_id=mlpipes-account&/)
      const { browser } = await visit(server, '/account', 'ada@mercy.example')
      const other = await visit(server, '/account/profile', 'reader@mercy.example')
      const events = (await server.audit()).length
      for (const csrf of ['', 'x', csrfOf(other.page)]) {
        const answer = await browser.request(path, { form: { csrf, ...form } })
        expect(answer.status, csrf).toBe(403)
      }
      const own = csrfOf((await visit(server, '/account/profile', 'ada@mercy.example', browser)).page)
      const foreign = await browser.request(path, {
        form: { csrf: own, ...form },
        headers: { origin: 'https://evil.example' },
      })
      expect(foreign.status).toBe(403)
      expect((await server.audit()).length, 'nothing was done').toBe(events)
    })

    it('GET changes nothing', async () => {
      const { browser } = await visit(server, '/account', 'reader@mercy.example')
      const before = await eventsOf('account.updated', 'reader@mercy.example')
      for (const [path, form] of posts) await browser.request(`${path}?${new URLSearchParams(form)}`)
      expect(await eventsOf('account.updated', 'reader@mercy.example')).toEqual(before)
      expect(await eventsOf('totp.setup_started', 'reader@mercy.example')).toEqual([])
      expect(await eventsOf('account.data_exported', 'reader@mercy.example')).toEqual([])
    })
  })

  describe('a session that is not fresh (F65)', () => {
    it.each(sensitive)('POST %s is sent to sign in again and does nothing', async (path, form) => {
      const email = 'thief@mercy.example'
      const { browser, page } = await visit(server, '/account/profile', email)
      const token = csrfOf(page)
      await ageSignIn(server, email, 301)
      const events = (await eventsOf('link.sent', email)).length
      const answer = await browser.request(path, { form: { csrf: token, ...form } })
      expect(answer.status).toBe(303)
      const query = new URL(answer.headers.get('location') ?? '', server.issuer).searchParams
      expect(query.get('max_age')).toBe('300')
      const login = await browser.follow(answer)
      expect(login.text, 'the provider asks, too').toContain('/password"')
      expect(await eventsOf('link.sent', email)).toHaveLength(events)
      for (const name of ['totp.setup_started', 'password.changed', 'account.data_exported'])
        expect(await eventsOf(name, email), name).toEqual([])
    })

    it('wants the second factor of an account that has one, even minutes after the password', async () => {
      const email = 'strong@mercy.example'
      const { browser } = await visit(server, '/account', email)
      await server.database.run(
        `update mlpipes_auth.sessions set payload = jsonb_set(payload, '{acr}', '"urn:mlpipes:acr:password"') where account_id = $1`,
        [await accountId(server, email)],
      )
      const answer = await go(browser, '/account/email')
      const query = new URL(answer.headers.get('location') ?? '', server.issuer).searchParams
      expect(query.get('acr_values')).toBe('urn:mlpipes:acr:mfa')
      expect((await go(browser, '/account/second-factor')).text).toContain('Sign in again to make changes')
    })

    it('does not let an old session remove the authenticator', async () => {
      const email = 'strict@mercy.example'
      const { browser } = await visit(server, '/account', email)
      const page = await go(browser, '/account/second-factor')
      const id = /name="totpId" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
      expect(id).toMatch(/^totp_/)
      const last = await send(browser, '/account/second-factor/remove', { totpId: id }, page)
      expect(last.status, 'the policy wants one').toBe(409)
      await ageSignIn(server, email, 301)
      const stale = await send(browser, '/account/second-factor/remove', { totpId: id }, page)
      expect(stale.status).toBe(303)
      expect(stale.headers.get('location')).toContain('max_age=300')
      expect(await eventsOf('totp.removed', email)).toEqual([])
    })
  })

  it('changes the name and says so after the redirect', async () => {
    const { browser, page } = await visit(server, '/account/profile', 'reader@mercy.example')
    const done = await browser.submit(page, '/account/profile', { name: '  Renée Reader ' })
    expect(done.text).toContain('Your name is changed.')
    expect(done.text).toContain('value="Renée Reader"')
    expect(await eventsOf('account.updated', 'reader@mercy.example')).toMatchObject([
      { details: { changed: ['name'] } },
    ])
    for (const name of ['   ', '\u202eevil', 'x'.repeat(201)])
      expect((await send(browser, '/account/profile', { name }, page)).status, name).toBe(400)
    expect((await go(browser, '/account/profile?done=nonsense')).text).not.toContain('role="status"')
  })

  describe('another address', () => {
    it('asks the new one, tells the old one, and changes once for 20 who confirm at the same time', async () => {
      const email = 'mover@mercy.example'
      const { browser, page } = await visit(server, '/account/email', email)
      const sent = await browser.submit(page, '/account/email', { email: 'Moved@Mercy.example' })
      expect(sent.text).toContain('A link is on its way')
      expect((await mailTo(server, email)).text).toMatch(/address/)
      const path = linkIn(await mailTo(server, 'Moved@Mercy.example'))
      expect(path).toContain('/account/email/confirm?token=')

      const stranger = await new Browser(server).request(path)
      expect(stranger.headers.get('location')).toBe('/account/email/confirm')
      const confirm = await browser.follow(await browser.request(path))
      expect(confirm.text).toContain('Moved@Mercy.example')
      expect(await accountId(server, email), 'looking changes nothing').toMatch(/^acc_/)

      const answers = await Promise.all(
        Array.from({ length: 20 }, () => send(browser, '/account/email/confirm', {}, confirm)),
      )
      expect(answers.filter((answer) => answer.status === 303)).toHaveLength(1)
      expect(answers.filter((answer) => answer.status === 410)).toHaveLength(19)
      expect(await eventsOf('account.email_changed', 'moved@mercy.example')).toHaveLength(1)
      const [row] = await server.database.run(
        'select email, email_verified_at from mlpipes_auth.accounts where email_normalized = $1',
        ['moved@mercy.example'],
      )
      expect(row?.['email']).toBe('Moved@Mercy.example')
      await mailTo(server, 'Moved@Mercy.example', 2)
      expect((await mailTo(server, email, 2)).text).toContain('/not-me?token=')
    })

    it('says the same of a taken address, mails nobody there, and works for nobody else', async () => {
      const email = 'racer@mercy.example'
      const { browser, page } = await visit(server, '/account/email', email)
      const sent = await browser.submit(page, '/account/email', { email: 'ada@mercy.example' })
      expect(sent.text).toContain('A link is on its way')
      await mailTo(server, email)
      expect(mailsTo(server, 'ada@mercy.example').filter((mail) => mail.text.includes('/account/email'))).toEqual([])
      const own = await browser.submit(page, '/account/email', { email: email.toUpperCase() })
      expect(own.status).toBe(400)
      const bad = await browser.submit(page, '/account/email', { email: 'nobody' })
      expect(bad.status).toBe(400)
    })

    it('is dead for another account, for a taken address, and after a newer one', async () => {
      const email = 'keeper@mercy.example'
      const { browser, page } = await visit(server, '/account/email', email)
      await browser.submit(page, '/account/email', { email: 'first@mercy.example' })
      const older = linkIn(await mailTo(server, 'first@mercy.example'))
      await browser.submit(page, '/account/email', { email: 'second@mercy.example' })
      const newer = linkIn(await mailTo(server, 'second@mercy.example'))
      expect((await browser.follow(await browser.request(older))).status).toBe(410)

      const thief = await visit(server, '/account', 'other@mercy.example')
      const theirs = await thief.browser.follow(await thief.browser.request(newer))
      expect(theirs.status).toBe(410)
      expect(theirs.text).not.toContain('second@mercy.example')
      const profile = await go(thief.browser, '/account/profile')
      expect((await send(thief.browser, '/account/email/confirm', {}, profile)).status).toBe(410)

      const confirm = await browser.follow(await browser.request(newer))
      expect(confirm.status, 'the attempt of another account spent nothing').toBe(200)
      await server.apply({ accounts: [person('second')] })
      expect((await send(browser, '/account/email/confirm', {}, confirm)).status).toBe(410)
      expect(await eventsOf('account.email_changed', email)).toEqual([])
    })

    it('is asked for at most three times in a while', async () => {
      const { browser, page } = await visit(server, '/account/email', 'shown@mercy.example')
      const statuses = []
      for (let n = 0; n < 4; n += 1)
        statuses.push((await send(browser, '/account/email', { email: `n${n}@mercy.example` }, page)).status)
      expect(statuses).toEqual([303, 303, 303, 429])
    })
  })

  describe('the password', () => {
    it('wants the current one, ends every other session and tells the owner', async () => {
      const email = 'worried@mercy.example'
      const elsewhere = await obtainTokens(
        server,
        'ehr',
        { scope: 'openid offline_access', prompt: 'consent' },
        await signedIn(server, email),
      )
      const { browser, page } = await visit(server, '/account/password', email)
      expect(page.text).toContain('Current password')
      const wanted = 'Quiet-Harbour-31-Lantern'
      const wrong = await browser.submit(page, '/account/password', { current: 'not it', password: wanted })
      expect(wrong.status).toBe(401)
      expect(await eventsOf('login.failed', email)).toMatchObject([{ details: { reason: 'current_password' } }])
      const weak = await browser.submit(page, '/account/password', { current: password, password: 'short' })
      expect(weak.status).toBe(400)
      const done = await browser.submit(page, '/account/password', { current: password, password: wanted })
      expect(done.text).toContain('Your password is changed')
      expect(await liveSessions(server, email)).toHaveLength(1)
      expect(await isActive(server, elsewhere.access_token)).toBe(false)
      expect(await eventsOf('password.changed', email)).toMatchObject([{ details: { by: 'self' } }])
      expect((await mailTo(server, email)).text).toContain('/not-me?token=')
      expect((await go(browser, '/account')).status, 'this session goes on').toBe(200)
    })
  })

  describe('the second factor', () => {
    it('goes on with a code, shows backup codes once, and ends other sessions', async () => {
      const email = 'setter@mercy.example'
      await visit(server, '/account', email)
      const { browser, page } = await visit(server, '/account/second-factor/add', email)
      const setup = await browser.submit(page, '/second-factor/add', { name: 'Work phone' })
      const secret = secretOn(setup)
      const action = new URL(setup.url).pathname
      expect((await send(browser, action, { code: '000000' }, setup)).status).toBe(401)

      const thief = await visit(server, '/account/profile', 'other@mercy.example')
      const seen = await go(thief.browser, action)
      expect(seen.text).not.toContain(secret.slice(0, 8))
      const stolen = await send(thief.browser, action, { code: await codeFor(server, secret) }, thief.page)
      expect(stolen.headers.get('location')).toBe('/account/second-factor/add')

      const codes = await send(browser, action, { code: await codeFor(server, secret) }, setup)
      expect(codes.status).toBe(200)
      expect(codes.text.match(/<li><code>/g)).toHaveLength(10)
      const list = await browser.submit(codes, '/codes-kept', {})
      expect(list.text).toContain('Work phone')
      expect(list.text).toContain('10 left')
      expect(list.text, 'a second factor makes this session weak').toContain('Sign in again to make changes')
      expect(await liveSessions(server, email)).toHaveLength(1)
      expect(await eventsOf('totp.enabled', email)).toHaveLength(1)
      await mailTo(server, email)
    })

    it('adds, renames and removes beside another, and never touches what is somebody else’s', async () => {
      const email = 'totp@mercy.example'
      const { browser } = await visit(server, '/account', email)
      const page = await go(browser, '/account/second-factor/add')
      const setup = await browser.submit(page, '/second-factor/add', { name: 'Tablet' })
      const action = new URL(setup.url).pathname
      const added = await browser.follow(
        await send(browser, action, { code: await codeFor(server, secretOn(setup), 30) }, setup),
      )
      expect(added.text, 'backup codes come with the first one only').toContain('The authenticator is turned on')
      const ids = [...added.text.matchAll(/name="totpId" value="([^"]+)"/g)].map((match) => match[1] ?? '')
      const tablet = action.split('/').at(-1) ?? ''
      expect(ids).toContain(tablet)
      const renamed = await browser.follow(
        await send(browser, '/account/second-factor/rename', { totpId: tablet, name: 'Desk <b>' }, added),
      )
      expect(renamed.text).toContain('Desk &lt;b&gt;')
      expect((await send(browser, '/account/second-factor/rename', { totpId: tablet, name: ' ' }, added)).status).toBe(
        400,
      )

      const other = await visit(server, '/account/profile', 'other@mercy.example')
      for (const [path, form] of [
        ['/account/second-factor/rename', { totpId: tablet, name: 'Mine' }],
        ['/account/second-factor/remove', { totpId: tablet }],
      ] as const) {
        const stolen = await send(other.browser, path, form, other.page)
        const unknown = await send(other.browser, path, { ...form, totpId: 'totp_nothing' }, other.page)
        expect([stolen.status, unknown.status]).toEqual([404, 404])
      }
      const codes = await send(browser, '/account/second-factor/backup-codes', {}, added)
      expect(codes.text.match(/<li><code>/g)).toHaveLength(10)
      expect(await eventsOf('backup_codes.created', email)).toHaveLength(1)
      const removed = await browser.follow(
        await send(browser, '/account/second-factor/remove', { totpId: tablet }, added),
      )
      expect(removed.text).toContain('The authenticator is removed')
      expect(await eventsOf('totp.removed', email)).toMatchObject([{ details: { totpId: tablet, by: 'self' } }])
    })
  })

  describe('sessions', () => {
    it('ends one with its tokens at once, and nobody else’s', async () => {
      const email = 'closer@mercy.example'
      const phone = await signedIn(server, email)
      const tokens = await obtainTokens(server, 'ehr', { scope: 'openid offline_access', prompt: 'consent' }, phone)
      expect(await isActive(server, tokens.access_token)).toBe(true)
      const { browser, page } = await visit(server, '/account/sessions', email)
      const [uid = ''] = await liveSessions(server, email)
      const other = await visit(server, '/account/profile', 'other@mercy.example')
      const stolen = await send(other.browser, '/account/sessions/end', { uid }, other.page)
      const unknown = await send(other.browser, '/account/sessions/end', { uid: 'nothing' }, other.page)
      expect([stolen.status, unknown.status]).toEqual([404, 404])
      expect(stripId(stolen.text)).toBe(stripId(unknown.text))

      const done = await browser.submit(page, '/account/sessions/end', { uid })
      expect(done.text).toContain('That session is signed out.')
      expect(await isActive(server, tokens.access_token)).toBe(false)
      const refreshed = await post(server, '/oauth/token', 'ehr', {
        grant_type: 'refresh_token',
        refresh_token: tokens.refresh_token ?? '',
      })
      expect(refreshed.status).toBe(400)
      expect((await phone.request('/account')).status).toBe(303)
      const [own = ''] = await liveSessions(server, email)
      expect((await send(browser, '/account/sessions/end', { uid: own }, page)).status, 'not this one').toBe(404)
      expect((await go(browser, '/account')).status).toBe(200)
    })

    it('ends all others', async () => {
      const email = 'closer@mercy.example'
      for (let n = 0; n < 3; n += 1) await signedIn(server, email)
      const { browser, page } = await visit(server, '/account/sessions', email)
      const done = await browser.submit(page, '/end-others', {})
      expect(done.text).toContain('Everything else is signed out')
      expect(await liveSessions(server, email)).toHaveLength(1)
    })
  })

  describe('apps', () => {
    it('shows who has access and takes it away with every token, for this account alone', async () => {
      const scope = 'openid email offline_access'
      const mine = await obtainTokens(
        server,
        'ehr',
        { scope, prompt: 'consent' },
        await signedIn(server, 'appy@mercy.example'),
      )
      const theirs = await obtainTokens(
        server,
        'ehr',
        { scope, prompt: 'consent' },
        await signedIn(server, 'other@mercy.example'),
      )
      const { browser, page } = await visit(server, '/account/apps', 'appy@mercy.example')
      expect(page.text).toContain('<h2>Test EHR</h2>')
      expect(page.text).toContain('Stay connected')
      expect(page.text).not.toContain('MLPipes account</h2>')
      for (const clientId of ['first', 'nothing', 'mlpipes-account'])
        expect((await send(browser, '/account/apps/remove', { clientId }, page)).status, clientId).toBe(404)

      const done = await browser.submit(page, '/account/apps/remove', { clientId: 'ehr' })
      expect(done.text).toContain('The app has no access any more.')
      expect(done.text).toContain('No app has access.')
      expect(await isActive(server, mine.access_token)).toBe(false)
      expect(await isActive(server, mine.refresh_token ?? '')).toBe(false)
      expect(await isActive(server, theirs.access_token)).toBe(true)
      expect(await eventsOf('consent.revoked', 'appy@mercy.example')).toMatchObject([{ clientId: 'ehr' }])
      const refreshed = await post(server, '/oauth/token', 'ehr', {
        grant_type: 'refresh_token',
        refresh_token: mine.refresh_token ?? '',
      })
      expect(refreshed.status).toBe(400)
      const again = await browser.follow(await browser.request(authorizationUrl(server, 'ehr').url))
      expect(again.text, 'it has to ask again').toContain('/consent"')
    })

    it('leaves nothing behind of what is redeemed or refreshed while access is removed', async () => {
      const email = 'reader@mercy.example'
      const id = await accountId(server, email)
      const { browser, page } = await visit(server, '/account/profile', email)
      const remove = () => send(browser, '/account/apps/remove', { clientId: 'ehr' }, page)
      const left = async () =>
        server.database.run(
          `select model from mlpipes_auth.oidc_payloads where client_id = 'ehr' and account_id = $1
            and model in ('Grant', 'AccessToken', 'RefreshToken', 'AuthorizationCode')`,
          [id],
        )
      for (let round = 0; round < 4; round += 1) {
        const authorization = authorizationUrl(server, 'ehr', { scope: 'openid offline_access', prompt: 'consent' })
        const landing = await signIn(browser, authorization)
        const code = new URL(landing.url).searchParams.get('code') ?? ''
        await Promise.all([redeem(server, 'ehr', code, authorization.verifier), remove()])
        expect(await left()).toEqual([])
        const tokens = await obtainTokens(server, 'ehr', { scope: 'openid offline_access', prompt: 'consent' }, browser)
        const refresh = { grant_type: 'refresh_token', refresh_token: tokens.refresh_token ?? '' }
        await Promise.all([post(server, '/oauth/token', 'ehr', refresh), remove()])
        expect(await left()).toEqual([])
      }
    })
  })

  it('shows the own trail, newest first, in pages that miss and repeat nothing', async () => {
    const email = 'other@mercy.example'
    const id = await accountId(server, email)
    // Many at one instant: the key is the time and the id together.
    await server.database.run(
      `insert into mlpipes_auth.audit_events (name, outcome, actor_type, actor_id, account_id, ip, details)
        select 'account.updated', 'success', 'account', 'acc_admin', $1, '203.0.113.77', jsonb_build_object('changed', '[]'::jsonb, 'n', n)
        from generate_series(1, 120) n`,
      [id],
    )
    const { browser } = await visit(server, '/account', email)
    const lines: string[] = []
    let path: string | undefined = '/account/activity'
    while (path !== undefined) {
      const page: Answer = await go(browser, path)
      expect(page.text, 'an administrator’s address is theirs').not.toContain('203.0.113.77')
      const here = [...page.text.matchAll(/<li[^>]*>\s*<p>([^<]+)<\/p>\s*<p class="hint"><time/g)].map(
        (match) => match[1] ?? '',
      )
      expect(here.length).toBeLessThanOrEqual(50)
      lines.push(...here)
      path = /href="(\/account\/activity\?before=[^"]+)"/.exec(page.text)?.[1]
    }
    const [row] = await server.database.run(
      'select count(*)::integer as count from mlpipes_auth.audit_events where account_id = $1',
      [id],
    )
    expect(lines).toHaveLength(Number(row?.['count']))
    expect(lines.filter((line) => line.startsWith('An administrator changed your account'))).toHaveLength(120)
    expect((await go(browser, "/account/activity?before=1-1';drop")).status).toBe(200)
  })

  it('hands out the own data without secrets, and records it', async () => {
    const email = 'strong@mercy.example'
    await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
    server.clock.now = new Date(Date.now() + 60_000)
    const { browser, page } = await visit(server, '/account/data', email)
    server.clock.now = undefined
    const answer = await send(browser, '/account/data', {}, page)
    expect(answer.headers.get('content-disposition')).toContain('attachment')
    expect(answer.headers.get('cache-control')).toBe('no-store')
    const data = JSON.parse(answer.text)
    expect(data.account.email).toBe(email)
    expect(data.memberships).toHaveLength(1)
    expect(data.auditEvents[0].name).toBe('account.data_exported')
    expect(answer.text).not.toMatch(/argon2|tokenHash|identifierMac|v1\.[0-9a-f]{8}\.|JBSWY3DP|id_hash|_mac/)
    expect(answer.text).not.toContain(await accountId(server, 'other@mercy.example'))
    expect(await eventsOf('account.data_exported', email)).toHaveLength(1)
  })
})

async function signedIn(server: TestServer, email: string): Promise<Browser> {
  const { browser } = await visit(server, '/account', email)
  return browser
}

function secretOn(page: Answer): string {
  const groups = /<p class="secret"[^>]*><code>(.*?)<\/code>/s.exec(page.text)?.[1] ?? ''
  const secret = groups.replace(/<[^>]+>|\s/g, '')
  if (!/^[A-Z2-7]{32}$/.test(secret)) throw new Error(`no secret on ${page.url}: ${page.text.slice(0, 400)}`)
  return secret
}

/** A page without its request id. */
function stripId(text: string): string {
  return text.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, '')
}
