// The magic link: F32, F50 to F57, and what it is worth.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, redeem } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { mainDatabase, people, startServer, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'

const environment = { ENABLE_MAGIC_LINKS: 'true' }

describe.each(mainDatabase)('magic links on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { environment, seed: withFreshPeople() })
  })
  afterAll(() => server.close())

  /** A browser that stands at the sign-in page. */
  async function arrive(extra: Record<string, string> = {}) {
    const browser = new Browser(server)
    const authorization = authorizationUrl(server, 'first', extra)
    const page = await browser.follow(await browser.request(authorization.url))
    return { browser, page, path: new URL(page.url).pathname, verifier: authorization.verifier }
  }
  async function ask(email: string, extra: Record<string, string> = {}) {
    const here = await arrive(extra)
    const before = mailsTo(server, email).length
    const csrf = /name="csrf" value="([^"]+)"/.exec(here.page.text)?.[1] ?? ''
    const answer = await here.browser.follow(
      await here.browser.request(`${here.path}/link`, { form: { csrf, email, password: '' } }),
    )
    return { ...here, answer, mail: () => mailTo(server, email, before + 1) }
  }
  const follow = async (browser: Browser, link: string) => browser.follow(await browser.request(link))
  const codeOf = (url: string) => new URL(url).searchParams.get('code')

  it('signs in where it was asked for, once, and says what it is worth', async () => {
    const { browser, verifier, answer, mail } = await ask('link1@mercy.example')
    expect(answer.text).toContain('Check your email')
    const link = linkIn(await mail())
    const landing = await follow(browser, link)
    expect(landing.status).toBe(200)
    expect(landing.url, 'the token leaves the address at once (F55)').not.toContain('token=')
    const done = await browser.submit(landing, '/link/continue', {})
    const tokens = await redeem(server, 'first', codeOf(done.url) ?? '', verifier)
    expect(tokens.status).toBe(200)
    const claims = JSON.parse(Buffer.from(String(tokens.body['id_token']).split('.')[1] ?? '', 'base64url').toString())
    expect(claims.amr).toEqual(['magic_link'])
    expect(claims.acr).toBe('urn:mlpipes:acr:link')
    expect((await introspect(server, String(tokens.body['access_token'])))['acr']).toBe('urn:mlpipes:acr:link')
    const again = await follow(browser, link)
    expect(again.status).toBe(410)
  })

  it('F50: is not burnt by scanners that open it ten times without cookies', async () => {
    const { browser, mail } = await ask('link2@mercy.example')
    const link = linkIn(await mail())
    for (let opened = 0; opened < 10; opened += 1) {
      const scanner = new Browser(server)
      await scanner.request(link, { method: 'HEAD' })
      const page = await follow(scanner, link)
      expect(page.status).toBe(200)
    }
    expect(await server.audit('link.used')).not.toContainEqual(
      expect.objectContaining({ accountId: await idOf('link2@mercy.example') }),
    )
    const done = await browser.submit(await follow(browser, link), '/link/continue', {})
    expect(codeOf(done.url)).not.toBeNull()
  })

  it('F51: shows a code on another device, which the first browser takes', async () => {
    const { browser, answer, mail } = await ask('link3@mercy.example')
    const elsewhere = new Browser(server)
    const page = await follow(elsewhere, linkIn(await mail()))
    const code = /class="shown-code"[^>]*>([A-Z0-9-]+)</.exec(page.text)?.[1] ?? ''
    expect(code).toMatch(/^[A-Z2-9]{4}-[A-Z2-9]{4}$/)
    expect(page.text, 'nothing to press there').not.toContain('<form')
    const done = await browser.submit(answer, '/link/code', { code: ` ${code.toLowerCase().replace('-', ' ')} ` })
    expect(codeOf(done.url)).not.toBeNull()
  })

  it('F51: the code opens nothing in another sign-in, and five wrong tries end it', async () => {
    const { browser, answer, mail } = await ask('link4@mercy.example')
    const page = await follow(new Browser(server), linkIn(await mail()))
    const code = /class="shown-code"[^>]*>([A-Z0-9-]+)</.exec(page.text)?.[1] ?? ''
    const other = await ask('nobody@mercy.example')
    expect((await other.browser.submit(other.answer, '/link/code', { code })).status).toBe(401)
    for (let tries = 0; tries < 5; tries += 1)
      expect((await browser.submit(answer, '/link/code', { code: 'AAAA-AAAA' })).status).toBe(401)
    expect((await browser.submit(answer, '/link/code', { code })).status, 'even the right one').toBe(401)
  })

  it('F52: a newer link ends the older one', async () => {
    const first = await ask('link5@mercy.example')
    const older = linkIn(await first.mail())
    const second = await ask('link5@mercy.example')
    const newer = linkIn(await second.mail())
    expect((await follow(first.browser, older)).status).toBe(410)
    const done = await second.browser.submit(await follow(second.browser, newer), '/link/continue', {})
    expect(codeOf(done.url)).not.toBeNull()
  })

  it('F52: ends after its ten minutes', async () => {
    const { browser, mail } = await ask('link6@mercy.example')
    const link = linkIn(await mail())
    await server.database.kysely
      .updateTable('mail_links')
      .set({ expires_at: new Date(Date.now() - 1_000) })
      .where('used_at', 'is', null)
      .where('kind', '=', 'sign_in')
      .execute()
    expect((await follow(browser, link)).status).toBe(410)
  })

  it('F54: asks for the second factor of an account that has one', async () => {
    const { browser, verifier, mail } = await ask('linktotp@mercy.example')
    const step = await browser.submit(await follow(browser, linkIn(await mail())), '/link/continue', {})
    expect(step.text).toContain('Authentication code')
    expect(codeOf(step.url)).toBeNull()
    const done = await browser.submit(step, '/totp', { code: await codeFor(server) })
    const tokens = await redeem(server, 'first', codeOf(done.url) ?? '', verifier)
    const claims = JSON.parse(Buffer.from(String(tokens.body['id_token']).split('.')[1] ?? '', 'base64url').toString())
    expect(claims.amr, 'a link and a code are not multi-factor').toEqual(['magic_link', 'otp'])
    expect(claims.acr).toBe('urn:mlpipes:acr:link')
  })

  it('F32: answers the same for an address that nobody has, and mails nothing', async () => {
    const known = await ask('link7@mercy.example')
    const unknown = await ask('unheard-of@mercy.example')
    const blank = (text: string) =>
      text.replace(/[\w.-]+@mercy\.example|value="[^"]+"|[\w-]{36,}|\/interaction\/[\w-]+/g, '·')
    expect(unknown.answer.status).toBe(known.answer.status)
    expect(blank(unknown.answer.text)).toBe(blank(known.answer.text))
    await known.mail()
    expect(mailsTo(server, 'unheard-of@mercy.example')).toEqual([])
  })

  it('F56: mails at most three in a quarter of an hour to one address', async () => {
    const answers = []
    for (let asked = 0; asked < 4; asked += 1) answers.push((await ask('link8@mercy.example')).answer.status)
    expect(answers).toEqual([200, 200, 200, 429])
  })

  it('F59: the first proof of an address removes a password that somebody set before', async () => {
    const { browser, mail } = await ask('unproven@mercy.example')
    const done = await browser.submit(await follow(browser, linkIn(await mail())), '/link/continue', {})
    expect(codeOf(done.url)).not.toBeNull()
    const id = await idOf('unproven@mercy.example')
    const left = await server.database.kysely
      .selectFrom('password_credentials')
      .select('account_id')
      .where('account_id', '=', id)
      .execute()
    expect(left).toEqual([])
  })

  it('keeps neither token nor code in the database, the log or the audit log (F55)', async () => {
    const { mail } = await ask('link9@mercy.example')
    const link = linkIn(await mail())
    const token = new URL(link, server.issuer).searchParams.get('token') ?? ''
    const page = await follow(new Browser(server), link)
    const code = /class="shown-code"[^>]*>([A-Z0-9-]+)</.exec(page.text)?.[1] ?? ''
    const kept = JSON.stringify([
      await server.database.kysely.selectFrom('mail_links').select(['id_hash', 'code_mac', 'sealed']).execute(),
      await server.database.kysely.selectFrom('mail_outbox').select(['template', 'sealed']).execute(),
      await server.audit(),
      server.logs,
    ])
    expect(token.length).toBeGreaterThan(40)
    for (const secret of [token, code, code.replace('-', '')]) expect(kept).not.toContain(secret)
  })

  async function idOf(email: string): Promise<string> {
    const row = await server.database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email_normalized', '=', email)
      .executeTakeFirstOrThrow()
    return row.id
  }
})

describe('F52 with 20 at once', () => {
  it('spends a link once', async () => {
    const server = await startServer('postgres', { environment, seed: withFreshPeople() })
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    const path = new URL(page.url).pathname
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    await browser.request(`${path}/link`, { form: { csrf, email: 'link1@mercy.example' } })
    await browser.follow(await browser.request(linkIn(await mailTo(server, 'link1@mercy.example'))))
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => browser.request(`${path}/link/continue`, { form: { csrf } })),
    )
    const location = (answer: (typeof answers)[number]) => answer.headers.get('location') ?? ''
    expect(
      answers.filter((answer) => answer.status === 303 && location(answer).includes('/oauth/authorize/')),
    ).toHaveLength(1)
    expect(answers.filter((answer) => answer.status >= 500)).toEqual([])
    expect(await server.audit('link.used')).toHaveLength(1)
    expect(await server.audit('login.succeeded')).toHaveLength(1)
    await server.close()
  })
})

function withFreshPeople() {
  const person = (email: string, more = {}) => ({
    email,
    name: 'A Person',
    organization: 'mercy',
    emailVerified: true,
    ...more,
  })
  return {
    ...people,
    accounts: [
      ...(people.accounts ?? []),
      ...Array.from({ length: 9 }, (_, index) => person(`link${index + 1}@mercy.example`)),
      person('linktotp@mercy.example', { totpSecret: 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP' }),
      person('unproven@mercy.example', { emailVerified: false, password: 'Set-By-Somebody-1' }),
    ],
  }
}
