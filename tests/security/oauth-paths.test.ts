// Below /oauth/ the provider answered what it does not know with `Not Found` as text/plain, methods included. What is not
// there is 404 as anywhere else, and what an endpoint does not take is 405 with what it takes (RFC 9110 §15.5.6).
import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer('pglite')
})
afterAll(() => server.close())

interface Answer {
  readonly status: number | undefined
  readonly type: string
  readonly allow: string | undefined
  readonly text: string
}

/** As it stands: fetch tidies addresses and sends no TRACE. */
function send(method: string, path: string, headers: Record<string, string> = {}): Promise<Answer> {
  const { host, port } = new URL(server.issuer)
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, method, path, headers: { host, ...headers } }, async (answer) => {
      let text = ''
      for await (const part of answer) text += part
      const { 'content-type': type = '', allow } = answer.headers
      resolve({ status: answer.statusCode, type, allow, text })
    })
    asked.on('error', reject).end()
  })
}
const html = { accept: 'text/html,application/xhtml+xml' }

const endpoints: [string, string][] = [
  ['/oauth/authorize', 'GET, POST'],
  ['/oauth/authorize/x', 'GET'],
  ['/oauth/token', 'POST'],
  ['/oauth/par', 'POST'],
  ['/oauth/device', 'POST'],
  ['/oauth/introspect', 'POST'],
  ['/oauth/revoke', 'POST'],
  ['/oauth/userinfo', 'GET, POST'],
  ['/oauth/jwks', 'GET'],
  ['/oauth/logout', 'GET, POST'],
  ['/oauth/logout/confirm', 'POST'],
  ['/oauth/logout/success', 'GET'],
  ['/oauth/register', 'POST'],
  ['/oauth/register/x', 'GET, PUT, DELETE'],
  ['/oauth/register/x/secret', 'POST'],
]
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']

describe('an endpoint', () => {
  it.each(endpoints)('%s takes %s, and says so to whoever tries another method', async (path, allow) => {
    const taken = allow.includes('GET') ? [...allow.split(', '), 'HEAD'] : allow.split(', ')
    for (const method of methods) {
      const answer = await send(method, `${path}?x=1`)
      expect(answer.type, method).not.toContain('text/plain')
      if (taken.includes(method)) {
        expect([404, 405], method).not.toContain(answer.status)
        continue
      }
      expect(answer, method).toMatchObject({ status: 405, allow })
      const said = { error: 'invalid_request', error_description: `this address takes ${allow} alone` }
      if (method !== 'HEAD') expect(JSON.parse(answer.text), method).toEqual(said)
    }
  })

  it.each(endpoints)('%s says it to a person as a page', async (path, allow) => {
    const answer = await send('PATCH', path, html)
    expect(answer).toMatchObject({ status: 405, allow, type: 'text/html; charset=utf-8' })
    expect(answer.text).toMatch(/<h1[^>]*>\s*This request could not be understood/)
    expect(answer.text).toContain(`This address takes ${allow} alone.`)
  })

  it('is one that discovery names, or belongs to one', async () => {
    const listed = JSON.parse((await send('GET', '/.well-known/openid-configuration')).text) as Record<string, string>
    const named = Object.entries(listed).filter(([name]) => name.endsWith('_endpoint') || name === 'jwks_uri')
    for (const [name, address] of named) expect((await send('PATCH', new URL(address).pathname)).status, name).toBe(405)
  })

  it('is asked by a browser for a script of another origin only where scripts may ask', async () => {
    const preflight = { origin: 'https://app.example', 'access-control-request-method': 'POST' }
    const scripts = ['token', 'par', 'device', 'introspect', 'revoke', 'userinfo', 'jwks']
    for (const [path] of endpoints) {
      const isForScripts = scripts.includes(path.replace('/oauth/', ''))
      expect((await send('OPTIONS', path, preflight)).status, path).toBe(isForScripts ? 204 : 405)
    }
  })

  it('is found by its whole address too, as a proxy may write it', async () => {
    expect(await send('POST', `${server.issuer}/oauth/token`)).toMatchObject({ status: 400 })
    expect(await send('GET', `${server.issuer}/oauth/token`)).toMatchObject({ status: 405, allow: 'POST' })
  })
})

describe('nothing', () => {
  it.each([
    '/oauth/nothing',
    '/oauth/',
    '/oauth/token/',
    '/oauth/TOKEN',
    '/oauth/%74oken',
    '/oauth/authorize/x/y',
    '/oauth/jwks/x',
  ])('is at %s, for people and programs', async (path) => {
    for (const method of ['GET', 'POST', 'PATCH', 'OPTIONS']) {
      const answer = await send(method, path)
      expect(answer, method).toMatchObject({ status: 404, type: expect.stringContaining('application/problem+json') })
      expect(JSON.parse(answer.text)).toMatchObject({ type: 'urn:mlpipes:error:not_found', status: 404 })
    }
    const page = await send('GET', path, html)
    expect(page).toMatchObject({ status: 404, type: 'text/html; charset=utf-8' })
    expect(page.text).toMatch(/<h1[^>]*>\s*There is nothing here/)
  })
})
