// Guards over the route table: each route has a row that says how it is guarded, and every spelling of its path is held
// to that guard. A new route without a row fails.
import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { visit } from '../self-service/support.ts'
import { authorizationUrl, Browser } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

/**
 * public: says nothing that needs a guard. cookie: needs the browser that began the sign-in. form: that, and a token of
 * our own page. link: needs a token that was mailed. session: needs somebody who is signed in, and sends everybody else to
 * sign in; a form there also needs a token of our own page. api: needs JSON with our token, or a session to read. admin: needs somebody who is known; what they may do is held in tests/admin/matrix.test.ts. protocol: the provider's own rules, tested per endpoint below.
 */
type Guard = 'public' | 'cookie' | 'form' | 'link' | 'session' | 'api' | 'admin' | 'protocol'

const table: Readonly<Record<string, Guard>> = {
  'GET /': 'public',
  'GET /healthz': 'public',
  'GET /readyz': 'public',
  'GET /assets/*': 'public',
  'GET /dev/mailbox': 'public',
  'GET /dev/mailbox.json': 'public',
  'GET /.well-known/openid-configuration': 'public',
  'GET /.well-known/oauth-authorization-server': 'public',
  'GET /oauth/jwks': 'public',
  'GET /interaction/:uid': 'cookie',
  'POST /interaction/:uid/password': 'form',
  'POST /interaction/:uid/totp': 'form',
  'GET /interaction/:uid/backup-code': 'cookie',
  'POST /interaction/:uid/backup-code': 'form',
  'POST /interaction/:uid/begin-set-up': 'form',
  'POST /interaction/:uid/set-up': 'form',
  'POST /interaction/:uid/renew-codes': 'form',
  'POST /interaction/:uid/codes-kept': 'form',
  'POST /interaction/:uid/new-password': 'form',
  'POST /interaction/:uid/cannot': 'form',
  'POST /interaction/:uid/organization': 'form',
  'POST /interaction/:uid/link': 'form',
  'GET /interaction/:uid/link': 'link',
  'POST /interaction/:uid/link/continue': 'form',
  'POST /interaction/:uid/link/code': 'form',
  'GET /interaction/:uid/confirm': 'link',
  'POST /interaction/:uid/confirm/continue': 'form',
  'POST /interaction/:uid/confirm/code': 'form',
  'GET /interaction/:uid/link/sent': 'cookie',
  'GET /interaction/:uid/confirm/sent': 'cookie',
  'GET /interaction/:uid/forgot/sent': 'cookie',
  'GET /interaction/:uid/forgot': 'cookie',
  'POST /interaction/:uid/forgot': 'form',
  'GET /interaction/:uid/sign-up': 'cookie',
  'POST /interaction/:uid/sign-up': 'form',
  'POST /interaction/:uid/consent': 'form',
  'POST /interaction/:uid/cancel': 'form',
  'GET /recover': 'link',
  'POST /recover': 'link',
  'GET /not-me': 'link',
  'POST /not-me': 'link',
  'GET /invite': 'link',
  'POST /invite': 'link',
  'GET /account': 'session',
  'GET /account/callback': 'public',
  'GET /account/profile': 'session',
  'POST /account/profile': 'session',
  'GET /account/email': 'session',
  'POST /account/email': 'session',
  'GET /account/email/confirm': 'session',
  'POST /account/email/confirm': 'session',
  'GET /account/password': 'session',
  'POST /account/password': 'session',
  'GET /account/second-factor': 'session',
  'GET /account/second-factor/manage': 'session',
  'GET /account/second-factor/add': 'session',
  'POST /account/second-factor/add': 'session',
  'GET /account/second-factor/set-up/:totpId': 'session',
  'POST /account/second-factor/set-up/:totpId': 'session',
  'POST /account/second-factor/rename': 'session',
  'POST /account/second-factor/remove': 'session',
  'POST /account/second-factor/backup-codes': 'session',
  'POST /account/second-factor/codes-kept': 'session',
  'GET /account/sessions': 'session',
  'POST /account/sessions/end': 'session',
  'POST /account/sessions/end-others': 'session',
  'GET /account/apps': 'session',
  'POST /account/apps/remove': 'session',
  'GET /account/apps/manage': 'session',
  'GET /account/apps/register': 'session',
  'POST /account/apps/register': 'session',
  'GET /account/apps/confirmed': 'session',
  'GET /account/apps/manage/:clientId': 'session',
  'GET /account/apps/manage/:clientId/edit': 'session',
  'POST /account/apps/manage/:clientId/edit': 'session',
  'GET /account/apps/manage/:clientId/secret': 'session',
  'POST /account/apps/manage/:clientId/secret': 'session',
  'POST /account/apps/manage/:clientId/disable': 'session',
  'POST /account/apps/manage/:clientId/enable': 'session',
  'GET /account/activity': 'session',
  'GET /account/data': 'session',
  'POST /account/data': 'session',
  'GET /api/docs': 'public',
  'GET /api/openapi.json': 'public',
  'GET /api/auth/csrf': 'public',
  'POST /api/auth/signin': 'api',
  'POST /api/auth/signup': 'api',
  'POST /api/auth/signup/confirm': 'api',
  'POST /api/auth/totp': 'api',
  'POST /api/auth/organization': 'api',
  'POST /api/auth/totp/backup-code': 'api',
  'POST /api/auth/totp/setup': 'api',
  'POST /api/auth/totp/confirm': 'api',
  'POST /api/auth/totp/codes-renew': 'api',
  'POST /api/auth/totp/codes-kept': 'api',
  'POST /api/auth/magic-link': 'api',
  'POST /api/auth/magic-link/code': 'api',
  'POST /api/auth/password/forgot': 'api',
  'POST /api/auth/password/renew': 'api',
  'POST /api/auth/password/change': 'api',
  'GET /api/auth/session': 'api',
  'POST /api/auth/session/extend': 'api',
  'POST /api/auth/signout': 'api',
  'GET /api/admin/me': 'admin',
  'GET /api/admin/permissions': 'admin',
  'GET /api/admin/organizations': 'admin',
  'POST /api/admin/organizations': 'admin',
  'POST /api/admin/organizations/:organizationId/close': 'admin',
  'POST /api/admin/organizations/:organizationId/reopen': 'admin',
  'GET /api/admin/organization': 'admin',
  'PATCH /api/admin/organization': 'admin',
  'GET /api/admin/policy': 'admin',
  'PUT /api/admin/policy': 'admin',
  'PATCH /api/admin/policy': 'admin',
  'POST /api/admin/policy/preview': 'admin',
  'GET /api/admin/explain': 'admin',
  'POST /api/admin/explain': 'admin',
  'GET /api/admin/domains': 'admin',
  'POST /api/admin/domains': 'admin',
  'POST /api/admin/domains/:domainId/verify': 'admin',
  'DELETE /api/admin/domains/:domainId': 'admin',
  'GET /api/audit/logs': 'admin',
  'GET /api/audit/export': 'admin',
  'GET /api/admin/users': 'admin',
  'GET /api/admin/users/:accountId': 'admin',
  'POST /api/admin/users': 'admin',
  'PATCH /api/admin/users/:accountId': 'admin',
  'PUT /api/admin/users/:accountId/roles': 'admin',
  'POST /api/admin/users/:accountId/disable': 'admin',
  'POST /api/admin/users/:accountId/enable': 'admin',
  'POST /api/admin/users/:accountId/reset-password': 'admin',
  'POST /api/admin/users/:accountId/require-password-change': 'admin',
  'POST /api/admin/users/:accountId/reset-mfa': 'admin',
  'POST /api/admin/users/:accountId/end-sessions': 'admin',
  'GET /api/admin/users/:accountId/sessions': 'admin',
  'DELETE /api/admin/users/:accountId/sessions/:sessionUid': 'admin',
  'GET /api/admin/guests': 'admin',
  'GET /api/admin/guests/:accountId': 'admin',
  'PUT /api/admin/guests/:accountId/roles': 'admin',
  'DELETE /api/admin/guests/:accountId': 'admin',
  'GET /api/admin/invitations': 'admin',
  'POST /api/admin/invitations': 'admin',
  'DELETE /api/admin/invitations/:invitationId': 'admin',
  'GET /api/admin/roles': 'admin',
  'GET /api/admin/roles/:name': 'admin',
  'POST /api/admin/roles': 'admin',
  'PATCH /api/admin/roles/:name': 'admin',
  'DELETE /api/admin/roles/:name': 'admin',
  'GET /api/admin/clients': 'admin',
  'GET /api/admin/clients/:clientId': 'admin',
  'POST /api/admin/clients': 'admin',
  'PATCH /api/admin/clients/:clientId': 'admin',
  'PUT /api/admin/clients/:clientId/permissions': 'admin',
  'POST /api/admin/clients/:clientId/disable': 'admin',
  'POST /api/admin/clients/:clientId/enable': 'admin',
  'POST /api/admin/clients/:clientId/replace-secret': 'admin',
  'DELETE /api/admin/clients/:clientId': 'admin',
  'GET /api/admin/clients/:clientId/faults': 'admin',
  'GET /api/admin/registration-tokens': 'admin',
  'POST /api/admin/registration-tokens': 'admin',
  'DELETE /api/admin/registration-tokens/:tokenId': 'admin',
  'GET /api/admin/sessions': 'admin',
  'GET /api/admin/sessions/:sessionId': 'admin',
  'DELETE /api/admin/sessions/:sessionId': 'admin',
  'POST /api/admin/sessions/end-all': 'admin',
  'GET /api/admin/webhooks': 'admin',
  'GET /api/admin/webhooks/:webhookId': 'admin',
  'POST /api/admin/webhooks': 'admin',
  'PATCH /api/admin/webhooks/:webhookId': 'admin',
  'POST /api/admin/webhooks/:webhookId/disable': 'admin',
  'POST /api/admin/webhooks/:webhookId/enable': 'admin',
  'POST /api/admin/webhooks/:webhookId/replace-secret': 'admin',
  'DELETE /api/admin/webhooks/:webhookId': 'admin',
  'GET /api/admin/webhooks/:webhookId/deliveries': 'admin',
  'POST /api/admin/webhooks/:webhookId/deliveries/:deliveryId/redeliver': 'admin',
  'POST /api/admin/webhooks/:webhookId/ping': 'admin',
  'GET /device': 'public',
  'POST /device': 'protocol',
  'GET /device/:uid': 'protocol',
  'GET /oauth/authorize': 'protocol',
  'POST /oauth/authorize': 'protocol',
  'GET /oauth/logout': 'protocol',
  'POST /oauth/logout': 'protocol',
  'POST /oauth/register': 'protocol',
  'GET /oauth/register/:clientId': 'protocol',
  'PUT /oauth/register/:clientId': 'protocol',
  'DELETE /oauth/register/:clientId': 'protocol',
  'POST /oauth/register/:clientId/secret': 'protocol',
  'POST /oauth/introspect': 'protocol',
  '* /oauth/*': 'protocol',
}
/** What each endpoint behind `/oauth/*` must not do for somebody who proves nothing. */
const endpoints = [
  ['POST', '/oauth/token'],
  ['POST', '/oauth/introspect'],
  ['POST', '/oauth/revoke'],
  ['GET', '/oauth/userinfo'],
  ['POST', '/oauth/userinfo'],
  ['POST', '/oauth/logout/confirm'],
  ['POST', '/oauth/device'],
  ['POST', '/device'],
  ['GET', '/device/unknown'],
  ['GET', '/oauth/authorize'],
  ['POST', '/oauth/authorize'],
  ['POST', '/oauth/logout'],
  ['POST', '/oauth/register'],
  ['GET', '/oauth/register/ehr'],
  ['PUT', '/oauth/register/ehr'],
  ['DELETE', '/oauth/register/ehr'],
  ['POST', '/oauth/register/ehr/secret'],
] as const

/** Other spellings that some router or proxy takes for the same path (C1, D5). */
function variants(path: string): string[] {
  const [, first = '', ...rest] = path.split('/')
  const tail = rest.length > 0 ? `/${rest.join('/')}` : ''
  const hex = (text: string) => `%${text.charCodeAt(0).toString(16)}`
  return [
    path,
    path.toUpperCase(),
    `${path}/`,
    `/${path}`,
    `/${first}/${tail}`,
    `/${hex(first)}${first.slice(1)}${tail}`,
    `/%25${hex(first).slice(1)}${first.slice(1)}${tail}`,
    `${path};x=1`,
    `/./${first}${tail}`,
    `/${first}/.${tail}`,
    `/x/../${first}${tail}`,
    `/${first}/%2e${tail}`,
    `/x/%2e%2e/${first}${tail}`,
    `/${first}%2f${rest.join('%2f')}`,
    `/${first}\\${rest.join('\\')}`,
    `${path}?x=1`,
    `${path}%3fx=1`,
    `${path}%23`,
  ]
}

let server: TestServer
beforeAll(async () => {
  server = await startServer('pglite')
})
afterAll(() => server.close())

/** As it stands, without the tidying that fetch does to an address. */
function send(
  method: string,
  path: string,
  cookie = '',
  type = 'application/x-www-form-urlencoded',
): Promise<{ status: number; csp: string; location: string }> {
  return new Promise((resolve, reject) => {
    const isJson = type === 'application/json'
    const form =
      method === 'POST' && isJson
        ? '{"email":"a@b.example","password":"x"}'
        : method === 'POST'
          ? 'email=a%40b.example&password=x&decision=allow'
          : ''
    const sent = request({
      port: server.port,
      host: '127.0.0.1',
      method,
      path,
      headers: {
        host: new URL(server.issuer).host,
        accept: 'text/html',
        ...(cookie === '' ? {} : { cookie }),
        ...(form === '' ? {} : { 'content-type': type, 'content-length': form.length }),
      },
    })
    sent.on('response', (answer) => {
      answer.resume()
      answer.on('end', () =>
        resolve({
          status: answer.statusCode ?? 0,
          csp: String(answer.headers['content-security-policy'] ?? ''),
          location: String(answer.headers.location ?? ''),
        }),
      )
    })
    sent.on('error', reject)
    sent.end(form)
  })
}

describe('the route table', () => {
  it('has a row for every route, and no row for none', () => {
    const isRest = (row: string) => Object.keys(table).includes(`* ${row.split(' ')[1]}`)
    const routes = server.server.routes
      .filter((route) => route.method !== 'HEAD' && route.method !== 'OPTIONS')
      .map((route) => `${route.method} ${route.url}`)
    const rows = new Set(routes.map((row) => (isRest(row) ? `* ${row.split(' ')[1]}` : row)))
    expect([...rows].sort()).toEqual(Object.keys(table).sort())
  })

  it.each(Object.entries(table).filter(([, guard]) => guard === 'cookie' || guard === 'form'))(
    '%s (%s) refuses who holds no cookie, and forms without our token, in every spelling',
    async (row, guard) => {
      const [method = '', url = ''] = row.split(' ')
      const browser = new Browser(server)
      const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
      const uid = new URL(page.url).pathname.split('/').at(-1) ?? ''
      const cookie = browser.cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
      const failures = (await server.audit('login.failed')).length
      for (const path of variants(url.replace(':uid', uid))) {
        const stranger = await send(method, path)
        expect([400, 404], `${method} ${path} as a stranger`).toContain(stranger.status)
        expect(stranger.csp, path).toContain("frame-ancestors 'none'")
        if (guard === 'form') {
          const forged = await send(method, path, cookie)
          expect([400, 403, 404], `${method} ${path} without our token`).toContain(forged.status)
        }
      }
      expect(await server.audit('login.failed'), 'nothing was tried').toHaveLength(failures)
    },
  )

  it.each(Object.entries(table).filter(([, guard]) => guard === 'link'))(
    '%s (%s) shows nothing and does nothing without a token that was mailed, in every spelling',
    async (row) => {
      const [method = '', url = ''] = row.split(' ')
      const forged = 'x'.repeat(43)
      for (const path of variants(url.replace(':uid', 'x'))) {
        for (const cookie of ['', `mlpipes_link=${forged}`]) {
          const answer = await send(method, path, cookie)
          expect([400, 403, 404, 410], `${method} ${path}`).toContain(answer.status)
          expect(answer.csp, path).toContain("frame-ancestors 'none'")
        }
      }
      const given = await send(method, `${url.replace(':uid', 'x')}?token=${forged}`)
      // A token in the address is only moved into a cookie; what is behind it is looked at afterwards.
      expect(method === 'GET' ? [303] : [400, 403, 404, 410], row).toContain(given.status)
    },
  )

  it.each(Object.entries(table).filter(([, guard]) => guard === 'api'))(
    '%s (%s) does nothing without our token and tells nobody without a session, in every spelling',
    async (row) => {
      const [method = '', url = ''] = row.split(' ')
      const failures = (await server.audit('login.failed')).length
      for (const path of variants(url)) {
        for (const type of ['application/json', 'application/x-www-form-urlencoded', 'text/plain']) {
          const answer = await send(method, path, `mlpipes_csrf=${'x'.repeat(43)}`, type)
          const expected =
            method === 'GET' ? [400, 401, 404] : type === 'application/json' ? [400, 403, 404] : [400, 404, 415]
          expect(expected, `${method} ${path} as ${type}`).toContain(answer.status)
          expect(answer.csp, path).toContain("frame-ancestors 'none'")
        }
      }
      expect(await server.audit('login.failed'), 'nothing was tried').toHaveLength(failures)
    },
  )

  it.each(Object.entries(table).filter(([, guard]) => guard === 'admin'))(
    '%s (%s) answers nobody who is not known, in every spelling',
    async (row) => {
      const [method = '', url = ''] = row.split(' ')
      const events = (await server.audit()).length
      const made = 'mlpipes_session=0123456789012345678901234567890123456789012'
      for (const path of variants(url.replace(/:\w+/g, 'acc_0123456789012345678901'))) {
        for (const cookie of ['', made]) {
          const answer = await send(method, path, cookie, 'application/json')
          expect([400, 401, 404], `${method} ${path}`).toContain(answer.status)
          expect(answer.csp, path).toContain("frame-ancestors 'none'")
        }
      }
      expect((await server.audit()).length, 'nothing was done').toBe(events)
    },
  )

  it.each(endpoints)('%s %s gives nothing to who proves nothing, in every spelling', async (method, path) => {
    for (const variant of variants(path)) {
      const answer = await send(method, variant)
      if (/authorize|logout$/.test(path) && answer.status === 303) {
        // A posted request is kept for a minute and asked for again by GET. Whoever has no session has none to end.
        expect(answer.location).toMatch(/^\/oauth\/(?:authorize|logout)\?posted=[\w-]{43}$/)
        expect((await send('GET', answer.location)).status).toBe(path === '/oauth/logout' ? 200 : 400)
        continue
      }
      expect([400, 401, 403, 404, 415], `${method} ${variant}`).toContain(answer.status)
      expect(answer.csp, variant).toContain("frame-ancestors 'none'")
    }
    expect(await server.audit('token.issued')).toEqual([])
    expect(await server.audit('session.created')).toEqual([])
  })

  it.each(Object.entries(table).filter(([, guard]) => guard === 'session'))(
    '%s (%s) sends a stranger to sign in, and refuses forms without our token, in every spelling',
    async (row) => {
      const [method = '', url = ''] = row.split(' ')
      const { browser } = await visit(server, '/account')
      const cookie = browser.cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
      const events = (await server.audit()).length
      for (const path of variants(url.replace(':totpId', 'totp_0123456789012345678901').replace(':clientId', 'ehr'))) {
        const stranger = await send(method, path)
        expect([303, 404], `${method} ${path} as a stranger`).toContain(stranger.status)
        if (stranger.status === 303)
          expect(stranger.location).toMatch(/^\/oauth\/authorize\?client_id=mlpipes-account&/)
        expect(stranger.csp, path).toContain("frame-ancestors 'none'")
        const forged = await send(method, path, 'mlpipes_session=0123456789012345678901234567890123456789012')
        expect(forged, 'a made-up session is none').toMatchObject({ status: stranger.status })
        if (method !== 'POST') continue
        const tokenless = await send(method, path, cookie)
        expect([400, 403, 404], `${method} ${path} without our token`).toContain(tokenless.status)
      }
      expect((await server.audit()).length, 'nothing was done').toBe(events)
    },
  )

  it('asks every method of every route for the right host', async () => {
    for (const { method, url } of server.server.routes) {
      if (url === '/healthz' || url === '/readyz') continue
      const status = await new Promise<number>((resolve, reject) => {
        const path = url.replace(/:\w+/g, 'x').replace('*', 'x')
        request({ port: server.port, host: '127.0.0.1', method, path, headers: { host: 'evil.example' } }, (answer) => {
          answer.resume()
          resolve(answer.statusCode ?? 0)
        })
          .on('error', reject)
          .end()
      })
      expect(status, `${method} ${url}`).toBe(421)
    }
  })
})
