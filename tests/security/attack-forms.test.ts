// Attacks with what a form may hold: bytes that no person types, fields twice, one character too many, other origins; and
// what of it ends up in the audit log and in the logs.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser } from '../support/client.ts'
import { linkIn, mailTo } from '../support/mails.ts'
import { mainDatabase, password, people, startServer, type TestServer } from '../support/server.ts'

const environment = { ENABLE_MAGIC_LINKS: 'true', ENABLE_SIGNUP: 'true' }
const seed = {
  ...people,
  organizations: [
    {
      slug: 'mercy',
      name: 'Mercy Hospital',
      policy: { signup: 'open' as const, loginMethods: ['password' as const, 'magic_link' as const] },
    },
    { slug: 'hope', name: 'Hope Clinic' },
  ],
}
const fields: Readonly<Record<string, readonly string[]>> = {
  password: ['email', 'password'],
  link: ['email', 'password'],
  'link/code': ['code'],
  'link/continue': [],
  'confirm/code': ['code'],
  'confirm/continue': [],
  totp: ['code'],
  'backup-code': ['code'],
  'begin-set-up': [],
  'set-up': ['code'],
  'renew-codes': [],
  'codes-kept': [],
  'new-password': ['password'],
  forgot: ['email'],
  'sign-up': ['email', 'password', 'name', 'npi', 'specialty'],
  consent: ['decision'],
}
const hostile: Readonly<Record<string, string>> = {
  NUL: 'a\0b@mercy.example',
  'bidirectional override': '\u202egpj@mercy.example',
  'a line break': 'a\r\nBcc: x@y.example',
  emoji: '😀@mercy.example',
  prototype: '__proto__',
  SQL: "' or 1=1 --",
  markup: '<script>alert(1)</script>',
  'too long': 'x'.repeat(5_000),
  nothing: '',
}

describe.each(mainDatabase)('forms on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { environment, seed })
  })
  afterAll(() => server.close())

  async function arrive() {
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    return {
      browser,
      path: new URL(page.url).pathname,
      csrf: /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? '',
    }
  }
  const send = (here: Awaited<ReturnType<typeof arrive>>, route: string, body: string, headers = {}) => {
    const cookie = here.browser.cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
    return fetch(`${server.issuer}${here.path}/${route}`, {
      method: 'POST',
      redirect: 'manual',
      headers: { accept: 'text/html', cookie, 'content-type': 'application/x-www-form-urlencoded', ...headers },
      body,
    })
  }

  it.each(Object.entries(fields))('%s answers nothing with 500', async (route, names) => {
    const here = await arrive()
    const usual = (name: string) => (name === 'email' ? 'x@mercy.example' : name === 'name' ? 'Pat' : '1')
    for (const [what, value] of Object.entries(hostile)) {
      for (const target of names) {
        const form = new URLSearchParams({ csrf: here.csrf })
        for (const name of names) form.set(name, name === target ? value : usual(name))
        const { status, text } = await send(here, route, form.toString()).then(async (answer) => ({
          status: answer.status,
          text: await answer.text(),
        }))
        expect(status, `${target}: ${what}`).toBeLessThan(500)
        expect(text.includes('<script>alert'), `${target}: ${what} is not echoed as it is`).toBe(false)
      }
    }
    for (const name of ['csrf', ...names]) {
      const form = new URLSearchParams({ csrf: here.csrf })
      for (const other of names) form.set(other, usual(other))
      form.append(name, 'again')
      expect((await send(here, route, form.toString())).status, `${name} twice`).toBe(400)
      form.append('unknown', 'x')
    }
    expect((await send(here, route, `csrf=${here.csrf}&more=x`)).status, 'an unknown field').toBe(400)
    expect((await send(here, route, 'x'.repeat(70_000))).status, 'a large body').toBe(413)
    expect((await send(here, route, '')).status, 'no body').toBe(400)
    const foreign = await send(
      here,
      route,
      `csrf=${here.csrf}${names.map((name) => `&${name}=${name === 'decision' ? 'allow' : '1'}`).join('')}`,
      {
        origin: 'https://evil.example',
      },
    )
    expect(foreign.status, 'F20: another origin').toBe(403)
  })

  it.each(['/recover', '/not-me', '/invite'])('%s answers hostile forms and other origins with 4xx', async (path) => {
    const browser = new Browser(server)
    await browser.request(`${path}?token=${'x'.repeat(43)}`)
    for (const value of Object.values(hostile)) {
      const answer = await browser.request(path, {
        form: { csrf: value, ...(path === '/not-me' ? {} : { password: value }) },
      })
      expect(answer.status).toBeGreaterThanOrEqual(400)
      expect(answer.status).toBeLessThan(500)
    }
    const foreign = await browser.request(path, {
      form: path === '/not-me' ? { csrf: 'x' } : { csrf: 'x', password: 'x' },
      headers: { origin: 'https://evil.example' },
    })
    expect(foreign.status).toBe(403)
  })

  it('F87, F88: nothing that was typed or mailed stands in audit rows or logs', async () => {
    const canary = 'canary-7f3a9'
    const here = await arrive()
    const typed = { csrf: here.csrf, email: `${canary}@nobody.example`, password: `${canary}-Password-1` }
    await here.browser.request(`${here.path}/password`, { form: typed })
    await here.browser.request(`${here.path}/link`, { form: typed })
    await here.browser.request(`${here.path}/link/code`, {
      form: { csrf: here.csrf, code: canary },
    })
    await here.browser.request(`${here.path}/forgot`, { form: { csrf: here.csrf, email: typed.email } })
    await here.browser.request(`${here.path}/sign-up`, { form: { ...typed, name: `${canary} Name` } })
    const link = linkIn(await mailTo(server, typed.email))
    const token = new URL(link, server.issuer).searchParams.get('token') ?? ''
    const landing = await here.browser.follow(await here.browser.request(link))
    const code = await new Browser(server).request(link)
    expect(code.headers.get('referrer-policy')).toBe('no-referrer')
    await here.browser.submit(landing, '/confirm/continue', {})
    await here.browser.request(`/recover?token=${'r'.repeat(43)}`)
    const audit = JSON.stringify(await server.audit())
    const logs = server.logs.join('\n')
    for (const secret of [canary, token, 'r'.repeat(43), password]) {
      expect(audit.includes(secret), `audit: ${secret}`).toBe(false)
      expect(logs.includes(secret), `logs: ${secret}`).toBe(false)
    }
    const tables = await server.database.run('select id_hash, sealed, code_mac from mlpipes_auth.mail_links', [])
    expect(JSON.stringify(tables).includes(token)).toBe(false)
  })

  it('C16: an address is proven as it is kept, not as somebody spelled it', async () => {
    const here = await arrive()
    const spelled = '\uff41da-new@mercy.example'
    await here.browser.request(`${here.path}/sign-up`, {
      form: { csrf: here.csrf, email: spelled, password: 'Lavender-Kayak-93-Moss', name: 'Ada' },
    })
    await mailTo(server, 'ada-new@mercy.example')
    expect(server.server.mails().filter((mail) => mail.to === spelled)).toEqual([])
  })
})
