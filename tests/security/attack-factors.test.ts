// Attacks on the binding of an authenticator, and what the cookies of a server behind https look like.
import { request as httpRequest } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Answer, authorizationUrl, Browser } from '../support/client.ts'
import { password, people, startServer, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'

describe('two people at the set-up of one account', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer('postgres', { environment: { REQUIRE_MFA: 'true' }, seed: people })
  })
  afterAll(() => server.close())

  async function atSetUp(email: string) {
    const browser = new Browser(server)
    const first = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    const page = await browser.submit(first, '/password', { email, password })
    const secret = /secret=([A-Z2-7]+)/.exec(page.text)?.[1] ?? expect.fail(page.text.slice(0, 300))
    return { browser, page, secret }
  }
  const turnOn = async ({ browser, page, secret }: Awaited<ReturnType<typeof atSetUp>>): Promise<Answer> =>
    browser.submit(page, '/set-up', { code: await codeFor(server, secret) })

  it('F63: one authenticator comes of it, however close they are', async () => {
    for (let round = 0; round < 5; round += 1) {
      const email = `p${crypto.randomUUID()}@mercy.example`
      await server.apply({ accounts: [{ email, name: 'Pat', organization: 'mercy', password, emailVerified: true }] })
      const [mine, theirs, third] = [await atSetUp(email), await atSetUp(email), await atSetUp(email)]
      const answers = await Promise.all([mine, theirs, third].map(turnOn))
      expect(answers.filter(({ status }) => status >= 500)).toEqual([])
      const rows = await server.database.run(
        `select t.id from mlpipes_auth.totp_credentials t join mlpipes_auth.accounts a on a.id = t.account_id
          where a.email = $1 and t.confirmed_at is not null`,
        [email],
      )
      expect(rows, `round ${round}`).toHaveLength(1)
    }
  })
})

describe('F24: a server behind https', () => {
  let server: TestServer
  const host = 'auth.mercy.example'
  beforeAll(async () => {
    server = await startServer('pglite', { environment: { MLPIPES_AUTH_URL: `https://${host}` } })
  })
  afterAll(() => server.close())

  const send = (path: string, cookies: string, body?: string) =>
    new Promise<{ status: number; location: string; cookies: string[]; text: string }>((resolve, reject) => {
      const request = httpRequest(
        {
          port: server.port,
          path,
          method: body === undefined ? 'GET' : 'POST',
          headers: {
            host,
            accept: 'text/html',
            cookie: cookies,
            ...(body === undefined
              ? {}
              : { 'content-type': 'application/x-www-form-urlencoded', 'sec-fetch-site': 'same-origin' }),
          },
        },
        (response) => {
          let text = ''
          response.on('data', (chunk) => {
            text += String(chunk)
          })
          response.on('end', () =>
            resolve({
              status: response.statusCode ?? 0,
              location: response.headers.location ?? '',
              cookies: response.headers['set-cookie'] ?? [],
              text,
            }),
          )
        },
      )
      request.on('error', reject)
      request.end(body)
    })
  const pathOf = (location: string) => {
    const url = new URL(location, `https://${host}`)
    return `${url.pathname}${url.search}`
  }

  it('sets only cookies that are Secure, HttpOnly, Lax and of this very host', async () => {
    const jar = new Map<string, string>()
    const seen: string[] = []
    const go = async (path: string, body?: string) => {
      const answer = await send(path, [...jar].map(([name, value]) => `${name}=${value}`).join('; '), body)
      for (const line of answer.cookies) {
        seen.push(line)
        const [name = '', value = ''] = (line.split(';', 1)[0] ?? '').split(/=(.*)/s)
        if (value === '') jar.delete(name)
        else jar.set(name, value)
      }
      return answer
    }
    const { url } = authorizationUrl({ issuer: `https://${host}` }, 'first')
    const asked = await go(pathOf(url))
    const page = await go(pathOf(asked.location))
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const form = new URLSearchParams({ csrf, email: 'lee@mercy.example', password })
    const finished = await go(`${pathOf(asked.location)}/password`, form.toString())
    expect(finished.location.startsWith(`https://${host}/`)).toBe(true)
    const landing = await go(pathOf(finished.location))
    expect(landing.location).toContain('code=')
    await go(`/recover?token=${'x'.repeat(43)}`)
    const names = new Set(seen.map((line) => line.split('=', 1)[0]))
    expect([...names]).toEqual(
      expect.arrayContaining([
        '__Host-mlpipes_session',
        '__Host-mlpipes_device',
        '__Secure-mlpipes_interaction',
        '__Secure-mlpipes_link',
      ]),
    )
    for (const line of seen) {
      expect(line, line).toMatch(/^__(Host|Secure)-/)
      expect(line).toMatch(/; ?secure/i)
      expect(line).toMatch(/; ?httponly/i)
      expect(line).toMatch(/; ?samesite=lax/i)
      expect(line).not.toMatch(/domain=/i)
      if (line.startsWith('__Host-')) expect(line).toMatch(/; ?path=\/(;|$)/i)
    }
  })
})
