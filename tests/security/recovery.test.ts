// Getting back in: reset by mail, "this was not me", an administrator's reset of a lost factor. F28, F32, F50, F54, F65.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { resetFactor } from '../../src/cli/people.ts'
import { maxConsecutiveFailures } from '../../src/credentials/failures.ts'
import { createMailLinks } from '../../src/credentials/mail-links.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { type Answer, authorizationUrl, Browser, introspect, obtainTokens, signIn } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { mainDatabase, password, people, startServer, type TestServer, testSecret } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const newPassword = 'Willow-Tractor-52-Fern'
const person = (email: string, more = {}) => ({
  email,
  name: 'A Person',
  organization: 'mercy',
  emailVerified: true,
  password,
  ...more,
})
const seed = {
  ...people,
  accounts: [
    ...(people.accounts ?? []),
    ...Array.from({ length: 9 }, (_, index) => person(`lost${index}@mercy.example`)),
    person('lost-totp@mercy.example', { totpSecret: seededSecret }),
    person('lost-totp2@mercy.example', { totpSecret: seededSecret }),
    person('phone@mercy.example', { totpSecret: seededSecret }),
  ],
}

describe.each(mainDatabase)('recovery on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
  })
  afterAll(() => server.close())

  async function forgot(email: string): Promise<Answer> {
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    return browser.submit(await browser.request(`${new URL(page.url).pathname}/forgot`), '/forgot', { email })
  }
  /** The page behind the newest reset link, opened in a browser of its own: the mail may be read anywhere. */
  async function openReset(email: string) {
    const before = mailsTo(server, email).length
    await forgot(email)
    const link = linkIn(await mailTo(server, email, before + 1))
    const browser = new Browser(server)
    return { browser, link, page: await browser.follow(await browser.request(link)) }
  }
  const trySignIn = (email: string, secret: string) =>
    signIn(new Browser(server), authorizationUrl(server, 'first'), email, secret)

  it('sets a new password, ends every session and token, and tells the owner', async () => {
    const email = 'lost0@mercy.example'
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'), email)
    const tokens = await obtainTokens(server, 'first', {}, browser)
    expect((await introspect(server, tokens.access_token))['active']).toBe(true)
    const { browser: mailReader, page } = await openReset(email)
    expect(page.url).not.toContain('token=')
    const mails = mailsTo(server, email).length
    const done = await mailReader.submit(page, '/recover', { password: newPassword })
    expect(done.text).toContain('Your password is changed')
    expect((await introspect(server, tokens.access_token))['active']).toBe(false)
    const silent = await browser.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)
    expect(silent.headers.get('location')).toContain('error=login_required')
    expect((await trySignIn(email, password)).status).toBe(401)
    expect((await trySignIn(email, newPassword)).url).toContain('code=')
    expect((await mailTo(server, email, mails + 1)).subject).toMatch(/password/i)
    expect((await server.audit('password.changed'))[0]?.details).toEqual({ by: 'reset' })
  })

  it('F50: opening the link spends nothing; using it twice does nothing', async () => {
    const email = 'lost1@mercy.example'
    const { browser, page, link } = await openReset(email)
    for (let opened = 0; opened < 10; opened += 1) {
      const scanner = new Browser(server)
      await scanner.request(link, { method: 'HEAD' })
      await scanner.follow(await scanner.request(link))
    }
    expect((await browser.submit(page, '/recover', { password: newPassword })).status).toBe(200)
    expect((await browser.submit(page, '/recover', { password: 'Another-Good-1-Word' })).status).toBe(410)
    expect((await browser.follow(await browser.request(link))).status).toBe(410)
  })

  it('refuses a password that breaks the rules and keeps the link alive', async () => {
    const { browser, page } = await openReset('lost2@mercy.example')
    const refused = await browser.submit(page, '/recover', { password: 'short' })
    expect(refused.status).toBe(400)
    expect(refused.text).toContain('At least 12 characters')
    const reused = await browser.submit(refused, '/recover', { password })
    expect(reused.text).toMatch(/used this password before/)
    expect((await browser.submit(reused, '/recover', { password: newPassword })).status).toBe(200)
  })

  it('F54: an account with a second factor needs it here too, and a wrong code spends nothing', async () => {
    const email = 'lost-totp@mercy.example'
    const { browser, page } = await openReset(email)
    expect(page.text).toContain('Authentication code or backup code')
    for (const code of ['', '000000', 'ABCD-EFGH']) {
      const refused = await browser.submit(page, '/recover', { password: newPassword, code })
      expect(refused.status, code).toBe(401)
    }
    await server.database.kysely.updateTable('sign_in_attempts').set({ not_before: null }).execute()
    const done = await browser.submit(page, '/recover', { password: newPassword, code: await codeFor(server) })
    expect(done.text).toContain('Your password is changed')
    const step = await trySignIn(email, newPassword)
    expect(step.text, 'and asks for it at the next sign-in').toContain('Authentication code')
  })

  it('C6: an authenticator that is disabled does not reset a password either', async () => {
    const email = 'lost-totp2@mercy.example'
    const { id } = await server.database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email_normalized', '=', email)
      .executeTakeFirstOrThrow()
    await server.database.kysely
      .insertInto('authenticator_failures')
      .values({ account_id: id, kind: 'totp', consecutive: maxConsecutiveFailures, disabled_at: new Date() })
      .execute()
    const { browser, page } = await openReset(email)
    const answer = await browser.submit(page, '/recover', {
      password: newPassword,
      code: await codeFor(server, seededSecret, 30),
    })
    expect(answer.status).toBe(401)
  })

  it('F32: answers the same for an unknown address and mails nothing', async () => {
    const known = await forgot('lost3@mercy.example')
    const unknown = await forgot('unknown-person@mercy.example')
    const blank = (text: string) => text.replace(/[\w.-]+@mercy\.example|value="[^"]+"|\/interaction\/[\w-]+/g, '·')
    expect(unknown.status).toBe(known.status)
    expect(blank(unknown.text)).toBe(blank(known.text))
    await mailTo(server, 'lost3@mercy.example')
    expect(mailsTo(server, 'unknown-person@mercy.example')).toEqual([])
  })

  it('brings back a password that was disabled for too many failures', async () => {
    const email = 'lost4@mercy.example'
    const { id } = await server.database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email_normalized', '=', email)
      .executeTakeFirstOrThrow()
    await server.database.kysely
      .insertInto('authenticator_failures')
      .values({ account_id: id, kind: 'password', consecutive: maxConsecutiveFailures, disabled_at: new Date() })
      .execute()
    expect((await trySignIn(email, password)).status, 'the right password is refused').toBe(401)
    const { browser, page } = await openReset(email)
    await browser.submit(page, '/recover', { password: newPassword })
    expect((await trySignIn(email, newPassword)).url).toContain('code=')
    expect(await server.audit('authenticator.restored')).not.toEqual([])
  })

  it('"this was not me" signs out everywhere and stops the password, by its button alone', async () => {
    const email = 'lost5@mercy.example'
    const { browser, page } = await openReset(email)
    const mails = mailsTo(server, email).length
    await browser.submit(page, '/recover', { password: newPassword })
    const link = linkIn(await mailTo(server, email, mails + 1))
    expect(link).toMatch(/^\/not-me\?/)
    const thief = new Browser(server)
    await signIn(thief, authorizationUrl(server, 'first'), email, newPassword)
    const owner = new Browser(server)
    const asked = await owner.follow(await owner.request(link))
    const tokens = await obtainTokens(server, 'first', {}, thief)
    expect((await owner.submit(asked, '/not-me', {})).text).toContain('Everything is signed out')
    expect((await introspect(server, tokens.access_token))['active']).toBe(false)
    const next = await trySignIn(email, newPassword)
    expect(next.status, 'whoever it was may know the password').toBe(401)
    expect((await owner.follow(await owner.request(link))).status).toBe(410)
  })

  it('a sign-in that was under way with the old password ends with it, before its resume and before its second factor', async () => {
    const email = 'lost6@mercy.example'
    const thief = new Browser(server)
    const page = await thief.follow(await thief.request(authorizationUrl(server, 'first').url))
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const waiting = await thief.request(`${new URL(page.url).pathname}/password`, { form: { csrf, email, password } })
    expect(waiting.status, 'complete, and not resumed yet').toBe(303)
    const { browser, page: reset } = await openReset(email)
    await browser.submit(reset, '/recover', { password: newPassword })
    const resumed = await thief.follow(waiting)
    expect(resumed.url).not.toContain('code=')

    const half = new Browser(server)
    const asked = await half.submit(
      await half.follow(await half.request(authorizationUrl(server, 'first').url)),
      '/password',
      { email: 'totp@mercy.example', password },
    )
    expect(asked.text).toContain('Authentication code')
    const other = await openReset('totp@mercy.example')
    const done = await other.browser.submit(other.page, '/recover', {
      password: newPassword,
      code: await codeFor(server),
    })
    expect(done.status).toBe(200)
    await server.database.kysely.updateTable('totp_credentials').set({ last_step: '0' }).execute()
    const late = await half.submit(asked, '/totp', { code: await codeFor(server) })
    expect(late.url).not.toContain('code=')
    expect(late.status).toBe(409)
  })

  it('"this was not me" brings back the address that somebody changed, so that the new one resets nothing', async () => {
    const kysely = server.database.kysely
    const [from, to] = ['lost7@mercy.example', 'thief@elsewhere.example']
    const { id, organization_id } = await kysely
      .selectFrom('accounts')
      .select(['id', 'organization_id'])
      .where('email_normalized', '=', from)
      .executeTakeFirstOrThrow()
    await kysely.updateTable('accounts').set({ email: to, email_normalized: to }).where('id', '=', id).execute()
    const links = createMailLinks(server.database, createSecrets(testSecret))
    const payload = { notice: 'email_changed', restore: { from, to } }
    const about = { kind: 'not_me' as const, accountId: id, organizationId: organization_id, payload }
    const token = await kysely.transaction().execute((tx) => links.issue(tx, about))
    const owner = new Browser(server)
    const asked = await owner.follow(await owner.request(`/not-me?token=${token}`))
    expect((await owner.submit(asked, '/not-me', {})).text).toContain('Everything is signed out')
    const row = await kysely.selectFrom('accounts').select('email').where('id', '=', id).executeTakeFirstOrThrow()
    expect(row.email).toBe(from)
    await forgot(to)
    await forgot(from)
    await mailTo(server, from)
    expect(mailsTo(server, to)).toEqual([])
  })

  it('mails no reset while a lost factor waits to be replaced: a mailbox alone is not enough for both', async () => {
    const email = 'lost8@mercy.example'
    const until = new Date(Date.now() + 3_600_000)
    const kysely = server.database.kysely
    await kysely
      .updateTable('accounts')
      .set({ factor_reset_until: until })
      .where('email_normalized', '=', email)
      .execute()
    expect((await forgot(email)).text).toContain('Check your email')
    await forgot('lost3@mercy.example')
    await mailTo(server, 'lost3@mercy.example')
    expect(mailsTo(server, email)).toEqual([])
  })

  it('a lost phone: the operator opens a day in which a new factor must be set up', async () => {
    const email = 'phone@mercy.example'
    const parts = { database: server.database, secrets: createSecrets(testSecret), issuer: server.issuer }
    await resetFactor(parts, email, new Date())
    const step = await trySignIn(email, password)
    expect(step.text).toContain('Turn on')
    expect(step.url).not.toContain('code=')
    await server.database.kysely
      .updateTable('accounts')
      .set({ factor_reset_until: new Date(Date.now() - 1_000) })
      .where('email_normalized', '=', email)
      .execute()
    const late = await trySignIn(email, password)
    expect(late.text, 'the window is over').toContain('Ask your administrator')
    expect(late.url).not.toContain('code=')
    expect((await mailTo(server, email)).subject).toMatch(/authenticator/i)
  })

  it.each(['/recover', '/not-me', '/invite'])(
    'F28, F53: %s takes its address from the configuration alone',
    async (path) => {
      const answer = await new Browser(server).request(`${path}?token=${'x'.repeat(43)}&next=https://evil.example`, {
        headers: { 'x-forwarded-host': 'evil.example' },
      })
      expect(answer.headers.get('location')).toBe(path)
    },
  )
})

describe('20 resets at once', () => {
  it('set one password', async () => {
    const server = await startServer('postgres', { seed })
    const asking = new Browser(server)
    const signInPage = await asking.follow(await asking.request(authorizationUrl(server, 'first').url))
    const page = await asking.request(`${new URL(signInPage.url).pathname}/forgot`)
    await asking.submit(page, '/forgot', { email: 'lost0@mercy.example' })
    const browser = new Browser(server)
    const reset = await browser.follow(await browser.request(linkIn(await mailTo(server, 'lost0@mercy.example'))))
    const csrf = /name="csrf" value="([^"]+)"/.exec(reset.text)?.[1] ?? ''
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        browser.request('/recover', { form: { csrf, password: `Willow-Tractor-52-Fern-${index}` } }),
      ),
    )
    expect(answers.filter((answer) => answer.status === 200)).toHaveLength(1)
    expect(answers.filter((answer) => answer.status >= 500)).toEqual([])
    const changes = (await server.audit('password.changed')).filter(
      (event) => JSON.stringify(event.details) === '{"by":"reset"}',
    )
    expect(changes).toHaveLength(1)
    await server.close()
  })
})
