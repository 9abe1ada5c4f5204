// Security cases of the sign-in pages, sessions and the audit log, by their ids.

import { sql } from 'kysely'
import { generateSync } from 'otplib'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { throttleLimits } from '../../src/credentials/throttle.ts'
import { authorizationUrl, Browser, introspect, obtainTokens, signIn } from '../support/client.ts'
import { databaseKinds, password, startServer, type TestServer } from '../support/server.ts'

describe.each(databaseKinds)('sign-in on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(() => server.close())

  const arrive = async (browser = new Browser(server), extra: Record<string, string> = {}) => ({
    browser,
    page: await browser.follow(await browser.request(authorizationUrl(server, 'first', extra).url)),
  })

  it('F20: refuses a form from another site, and a token of another interaction', async () => {
    const { browser, page } = await arrive()
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const action = `${new URL(page.url).pathname}/password`
    const form = { csrf, email: 'lee@mercy.example', password }
    for (const headers of [
      { 'sec-fetch-site': 'cross-site' },
      { origin: 'https://evil.example' },
      { origin: 'null' },
    ]) {
      expect((await browser.request(action, { form, headers })).status).toBe(403)
    }
    expect((await browser.request(action, { form: { ...form, csrf: 'x'.repeat(43) } })).status).toBe(403)
    const other = await arrive()
    expect((await other.browser.request(`${new URL(other.page.url).pathname}/password`, { form })).status).toBe(403)
  })

  it('F21: gives the session a new id at sign-in and ends the old one', async () => {
    const { browser } = await obtainTokens(server, 'first')
    const idOf = () => browser.cookies.find((cookie) => cookie.name === 'mlpipes_session')?.value
    const before = idOf()
    const stolen = new Browser(server)
    stolen.cookies.push(...browser.cookies)
    await signIn(browser, authorizationUrl(server, 'first', { prompt: 'login' }))
    expect(idOf()).not.toBe(before)
    const silent = await stolen.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)
    expect(silent.headers.get('location')).toContain('error=login_required')
  })

  it('F22: opens an interaction only in the browser that began it', async () => {
    const { page } = await arrive()
    const stranger = await new Browser(server).request(page.url)
    expect(stranger.status).toBe(400)
    expect(stranger.text).toContain('expired')
    const { browser: other, page: mine } = await arrive()
    other.cookies.forEach((cookie, index) => {
      other.cookies[index] = {
        ...cookie,
        path: cookie.path.replace(new URL(mine.url).pathname, new URL(page.url).pathname),
      }
    })
    expect((await other.request(page.url)).status).toBe(400)
  })

  it('F24, F27: cookies are for the server alone, and no page may be framed', async () => {
    const answer = await new Browser(server).request(authorizationUrl(server, 'first').url)
    for (const cookie of answer.headers.getSetCookie()) {
      expect(cookie).toMatch(/httponly/i)
      expect(cookie).toMatch(/samesite=lax/i)
      expect(cookie).not.toMatch(/domain=/i)
    }
    for (const path of ['/', '/nowhere', '/interaction/x', '/oauth/logout', '/oauth/authorize', '/oauth/nowhere']) {
      const page = await new Browser(server).request(path)
      expect(page.headers.get('content-security-policy'), path).toContain("frame-ancestors 'none'")
      expect(page.headers.get('x-request-id'), path).toBeTruthy()
    }
  })

  it('F30: answers unknown, wrong, disabled and without password alike', async () => {
    const answers = []
    for (const email of ['nobody@mercy.example', 'ada@mercy.example', 'gone@mercy.example', 'nopass@mercy.example']) {
      const { browser, page } = await arrive()
      const answer = await browser.submit(page, '/password', { email, password: 'Wrong-Horse-9-Battery' })
      const neutral = answer.text
        .replaceAll(email, 'EMAIL')
        .replaceAll(new URL(page.url).pathname, 'PATH')
        .replace(/name="csrf" value="[^"]+"/g, 'CSRF')
      answers.push({ status: answer.status, text: neutral, cookies: answer.headers.getSetCookie().length })
    }
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
    const reasons = (await server.audit('login.failed'))
      .slice(0, 4)
      .map((event) => (event.details as { reason: string }).reason)
    expect(new Set(reasons)).toEqual(new Set(['unknown_account', 'mismatch', 'disabled', 'no_password']))
  })

  it('F34, F37: counts one account whatever the spelling, then asks to wait', async () => {
    const spellings = [
      'hugo@hope.example',
      'HUGO@hope.example',
      ' hugo@hope.example ',
      'hugo@HOPE.example',
      'ｈｕｇｏ@hope.example',
    ]
    for (let attempt = 0; attempt < throttleLimits.passwordsPerAccount.tries; attempt += 1) {
      // Each try after the fifth has to wait; here the wait is over.
      await server.database.kysely.updateTable('sign_in_attempts').set({ not_before: null }).execute()
      const { browser, page } = await arrive()
      const answer = await browser.submit(page, '/password', {
        email: spellings[attempt % spellings.length] ?? '',
        password: 'wrong',
      })
      expect(answer.status).toBe(401)
    }
    const { browser, page } = await arrive()
    const answer = await browser.submit(page, '/password', { email: 'hugo@hope.example', password })
    expect(answer.status).toBe(429)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(answer.text).toContain('Too many tries')
  })

  it.each([
    ['256 code points', 'é'.repeat(256), 401],
    ['257 code points', 'é'.repeat(257), 401],
    ['a NUL', 'a\0b', 401],
    ['only spaces', '    ', 401],
    ['2 kB', 'x'.repeat(2_048), 401],
    ['more than 2 kB', 'x'.repeat(2_049), 400],
  ])('F38: a password of %s is answered, not choked on', async (_name, given, status) => {
    const { browser, page } = await arrive()
    expect(
      (await browser.submit(page, '/password', { email: `f38-${given.length}@mercy.example`, password: given })).status,
    ).toBe(status)
  })

  it('F38: composed and decomposed spellings are one password', async () => {
    await server.apply({
      accounts: [{ email: 'nfc@mercy.example', name: 'N', organization: 'mercy', password: 'Café-Señor-2026-ü' }],
    })
    const landing = await signIn(
      new Browser(server),
      authorizationUrl(server, 'first'),
      'nfc@mercy.example',
      'Café-Señor-2026-ü'.normalize('NFD'),
    )
    expect(landing.url).toContain('code=')
  })

  it('F61, F66: asks for the second factor, and no step goes round it', async () => {
    const { browser, page } = await arrive()
    const uidPath = new URL(page.url).pathname
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    expect(
      (await browser.request(`${uidPath}/totp`, { form: { csrf, code: '000000' } })).status,
      'a code before the password',
    ).toBe(409)
    const second = await browser.submit(page, '/password', { email: 'totp@mercy.example', password })
    expect(second.text).toContain('Authentication code')
    const skipped = await browser.request(`/oauth/authorize/${uidPath.split('/').at(-1)}`)
    expect(skipped.headers.get('location') ?? '').not.toContain('code=')
    const fresh = await arrive()
    const asked = await fresh.browser.submit(fresh.page, '/password', { email: 'totp@mercy.example', password })
    const now = Math.floor(Date.now() / 1000)
    const codeAt = (epoch: number) => generateSync({ secret: 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP', epoch })
    const wrong = await fresh.browser.submit(asked, '/totp', { code: codeAt(now - 90) })
    expect(wrong.status, 'three steps old').toBe(401)
    const done = await fresh.browser.submit(wrong, '/totp', { code: codeAt(now) })
    expect(done.url).toContain('code=')
    expect((await server.audit('login.succeeded'))[0]?.details).toMatchObject({
      amr: ['pwd', 'otp', 'mfa'],
      acr: 'urn:mlpipes:acr:mfa',
    })
    const again = await arrive()
    const replay = await again.browser.submit(again.page, '/password', { email: 'totp@mercy.example', password })
    expect(
      (await again.browser.submit(replay, '/totp', { code: codeAt(now) })).status,
      'F60: the same code again',
    ).toBe(401)
  })

  it('F26: idle and absolute limits end the session and its tokens at read', async () => {
    for (const column of ['idle_expires_at', 'absolute_expires_at'] as const) {
      const tokens = await obtainTokens(server, 'first', {}, new Browser(server))
      expect((await introspect(server, tokens.access_token))['active']).toBe(true)
      await server.database.kysely
        .updateTable('sessions')
        .set({ [column]: new Date(Date.now() - 1_000) })
        .execute()
      expect(await introspect(server, tokens.access_token)).toEqual({ active: false })
      const silent = await tokens.browser.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)
      expect(silent.headers.get('location')).toContain('error=login_required')
    }
  })

  it('F15, F16: prompt=none, max_age and auth_time', async () => {
    const none = await new Browser(server).request(authorizationUrl(server, 'first', { prompt: 'none' }).url)
    expect(none.headers.get('location')).toContain('error=login_required')
    const { browser } = await obtainTokens(server, 'first')
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first', { max_age: '0' }).url))
    expect(page.text).toContain('name="password"')
  })

  it('F80, F82: the app role cannot change, choose or shadow audit rows', async () => {
    const db = server.database.kysely
    for (const statement of [
      "update audit_events set name = 'x'",
      'delete from audit_events',
      'truncate audit_events',
      'alter table audit_events add column x int',
      'drop table audit_events',
      "insert into audit_events (name, outcome, actor_type, occurred_at) values ('x', 'success', 'system', now())",
      "set session_replication_role = 'replica'",
      'alter table audit_events disable trigger all',
      'delete from audit_events_default',
    ]) {
      await expect(sql.raw(statement).execute(db), statement).rejects.toThrow(/permission denied|must be owner/)
    }
    // PGlite's single session belongs to a superuser, but as the app role it has no right to TEMP either.
    await expect(sql.raw('create temporary table audit_events (x int)').execute(db)).rejects.toThrow(
      /permission denied/,
    )
  })

  it('F84: a forged user agent stays one row of plain text', async () => {
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    const action = `${new URL(page.url).pathname}/password`
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    await browser.request(action, {
      form: { csrf, email: 'f84@mercy.example', password: 'x' },
      headers: { 'user-agent': `\u009bred ${'A'.repeat(5_000)}` },
    })
    const event = (await server.audit('login.failed'))[0]
    expect(event?.userAgent).toHaveLength(512)
    expect(event?.userAgent).not.toMatch(/\p{Cc}/u)
  })

  it('F87: what was typed as e-mail is never kept as it was typed', async () => {
    const { browser, page } = await arrive()
    await browser.submit(page, '/password', { email: 'MySecretPassword1!', password: 'x' })
    expect(JSON.stringify(await server.audit())).not.toContain('MySecretPassword1')
  })
})

describe('F81: the owner of the tables', () => {
  it('is stopped by triggers, in partitions too', async () => {
    const server = await startServer('postgres')
    const owner = new pg.Client({ connectionString: server.ownerUrl })
    await owner.connect()
    const { rows } = await owner.query<{ name: string }>(
      "select inhrelid::regclass::text as name from pg_inherits where inhparent = 'mlpipes_auth.audit_events'::regclass",
    )
    for (const table of ['mlpipes_auth.audit_events', ...rows.map((row) => row.name)]) {
      for (const statement of [`truncate ${table}`, `delete from ${table}`, `update ${table} set name = 'x'`]) {
        const refused = await owner.query(statement).then(
          (result) => (statement.startsWith('truncate') || result.rowCount !== 0 ? 'allowed' : 'empty'),
          () => 'refused',
        )
        expect(refused, statement).not.toBe('allowed')
      }
    }
    await owner.end()
    await server.close()
  })
})
