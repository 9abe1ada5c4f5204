// What stands before the API: origins, tokens, content types, and bodies that nobody means well with.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createOrigins, originsMaxAgeMs } from '../../src/api/origins.ts'
import { createPolicies } from '../../src/organizations/organizations.ts'
import { mainDatabase, password, startServer, type TestServer, testPlatform } from '../support/server.ts'
import { ApiClient, appOrigin, problem, seed, startApi } from './support.ts'

const body = { email: 'p0@mercy.example', password }

describe.each(mainDatabase)('the gate on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startApi(kind)
  })
  afterAll(() => server.close())

  const events = async () =>
    (await server.audit()).filter(({ name }) => /^(login|session|link|account)\./.test(String(name))).length

  it.each([
    ['no token', { 'x-csrf-token': undefined }],
    ['an empty token', { 'x-csrf-token': '' }],
    ['a token of another browser', { 'x-csrf-token': 'other' }],
    ['another site', { origin: 'https://evil.example' }],
    ['an opaque origin', { origin: 'null' }],
    ['an app that is not first-party', { origin: 'https://third.example' }],
    ['a first-party origin as a prefix', { origin: `${appOrigin}.evil.example` }],
    ['a first-party host over http', { origin: appOrigin.replace('https', 'http') }],
    ['another port of a first-party host', { origin: `${appOrigin}:8443` }],
    ['our own origin from another site', { origin: 'own', 'sec-fetch-site': 'cross-site' }],
    ['another site without an origin', { 'sec-fetch-site': 'cross-site' }],
    ['a sibling site without an origin', { 'sec-fetch-site': 'same-site' }],
    ['a navigation', { 'sec-fetch-site': 'none' }],
  ])('F20: refuses a POST with %s, and tries nothing', async (_name, changes: Record<string, string | undefined>) => {
    const client = new ApiClient(server)
    const token = await client.token()
    const other = await new ApiClient(server).token()
    const headers: Record<string, string | undefined> = { 'x-csrf-token': token, ...changes }
    if (headers['origin'] === 'own') headers['origin'] = server.issuer
    if (headers['x-csrf-token'] === 'other') headers['x-csrf-token'] = other
    const before = await events()
    const answer = await client.call('/signin', { body, headers })
    expect(answer).toMatchObject({ status: 403, body: { type: problem('request_foreign') } })
    expect(answer.headers.get('access-control-allow-origin')).toBeNull()
    expect(await events()).toBe(before)
    expect((await client.call('/session')).status).toBe(401)
  })

  it('F20: refuses a token without the cookie that it belongs to', async () => {
    const token = await new ApiClient(server).token()
    expect((await new ApiClient(server).call('/signin', { body, headers: { 'x-csrf-token': token } })).status).toBe(403)
    const planted = new ApiClient(server)
    planted.setCookie('mlpipes_csrf', 'short')
    expect((await planted.call('/signin', { body, headers: { 'x-csrf-token': token } })).status).toBe(403)
  })

  it.each([
    ['its own pages', { origin: 'own', 'sec-fetch-site': 'same-origin' }],
    ['a first-party app on the same site', { origin: appOrigin, 'sec-fetch-site': 'same-site' }],
    ['a program that is no browser', {}],
  ])('takes a POST from %s', async (_name, headers: Record<string, string>) => {
    const given = headers['origin'] === 'own' ? { ...headers, origin: server.issuer } : headers
    expect((await new ApiClient(server).post('/password/forgot', { email: 'nobody@x.example' }, given)).status).toBe(
      202,
    )
  })

  it('gives the same browser the same cookie, unreadable for scripts', async () => {
    const client = new ApiClient(server)
    const first = await client.call('/csrf')
    expect(first.headers.getSetCookie()[0]).toMatch(/^mlpipes_csrf=[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax$/)
    const second = await client.call('/csrf')
    expect(second.body['csrfToken']).toBe(first.body['csrfToken'])
  })

  it('answers CORS for first-party origins, with credentials and never for all', async () => {
    for (const path of ['/csrf', '/session']) {
      const answer = await new ApiClient(server).call(path, { headers: { origin: appOrigin } })
      expect(answer.headers.get('access-control-allow-origin'), path).toBe(appOrigin)
      expect(answer.headers.get('access-control-allow-credentials')).toBe('true')
      expect(answer.headers.get('vary')).toContain('Origin')
      expect(answer.headers.get('cache-control')).toBe('no-store')
    }
    const refused = await new ApiClient(server).post(
      '/signin',
      { email: 'p1@mercy.example', password: 'wrong' },
      { origin: appOrigin },
    )
    expect(refused.status).toBe(401)
    expect(refused.headers.get('access-control-allow-origin'), 'refusals can be read too').toBe(appOrigin)
  })

  it('answers a preflight, to first-party origins alone', async () => {
    const preflight = (origin: string) =>
      new ApiClient(server).call('/signin', {
        method: 'OPTIONS',
        headers: {
          origin,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'content-type,x-csrf-token',
        },
      })
    const allowed = await preflight(appOrigin)
    expect(allowed.status).toBe(204)
    expect(Object.fromEntries(allowed.headers)).toMatchObject({
      'access-control-allow-origin': appOrigin,
      'access-control-allow-credentials': 'true',
      'access-control-allow-methods': 'GET, POST',
      'access-control-allow-headers': 'Content-Type, X-CSRF-Token',
    })
    for (const origin of ['https://evil.example', 'https://third.example', 'null', `${appOrigin}/`]) {
      const denied = await preflight(origin)
      expect(denied.status, origin).toBe(403)
      expect(denied.headers.get('access-control-allow-origin'), origin).toBeNull()
      const read = await new ApiClient(server).call('/session', { headers: { origin } })
      expect(read.status, origin).toBe(403)
    }
  })

  it('forgets an origin within seconds of its client, and asks once for all who wait', async () => {
    let elapsedMs = 0
    let queries = 0
    const counted = {
      run: (statement: string, values: readonly unknown[]) => {
        queries += 1
        return server.database.run(statement, values)
      },
    }
    const origins = createOrigins({
      issuer: server.issuer,
      database: counted,
      policies: createPolicies(testPlatform),
      elapsedMs: () => elapsedMs,
    })
    const found = await Promise.all(Array.from({ length: 20 }, () => origins.appAt(appOrigin)))
    expect(found.every((app) => app?.id === 'app')).toBe(true)
    expect(queries).toBe(1)
    const [client] = seed.clients.filter(({ client_id }) => client_id === 'app')
    if (!client) throw new Error('no such client')
    await server.apply({ clients: [{ ...client, first_party: false }] })
    elapsedMs = originsMaxAgeMs - 1
    expect(await origins.appAt(appOrigin)).toBeDefined()
    elapsedMs = originsMaxAgeMs
    expect(await origins.appAt(appOrigin)).toBeUndefined()
    expect(await origins.appAt('null')).toBeUndefined()
    expect(await origins.appAt(undefined)).toMatchObject({ id: 'mlpipes-account' })
    await server.apply({ clients: [client] })
  })

  it.each([
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'text/plain',
    'text/json',
    'application/jsonx',
    'application/json, text/plain',
    'application/json;charset=utf-16',
    'application/json\ttext/plain',
    'application/problem+json',
    'application/json;x="',
    '',
  ])('C2: takes no POST as %j', async (type) => {
    const before = await events()
    const answer = await new ApiClient(server).post('/signin', body, { 'content-type': type })
    expect(answer).toMatchObject({ status: 415, body: { type: problem('media_type') } })
    expect(await events()).toBe(before)
  })

  it.each([
    'application/json',
    'Application/JSON',
    'application/json; charset=utf-8',
    'application/json;charset=UTF-8',
  ])('takes a POST as %j', async (type) => {
    const answer = await new ApiClient(server).post(
      '/password/forgot',
      { email: 'nobody@y.example' },
      { 'content-type': type },
    )
    expect([202, 429]).toContain(answer.status)
  })

  const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`
  it.each([
    ['nothing', '', ''],
    ['broken JSON', '{"email":', ''],
    ['a text', '"x"', ''],
    ['a number', '1', ''],
    ['null', 'null', ''],
    ['a list', '[]', ''],
    ['a prototype', '{"__proto__":{"email":"a@b.example"}}', ''],
    ['an unknown member', JSON.stringify({ ...body, remember: true }), 'remember'],
    ['a missing member', JSON.stringify({ email: body.email }), 'password'],
    ['a list in place of a text', JSON.stringify({ ...body, password: [password] }), 'password'],
    ['an object in place of a text (NoSQL)', JSON.stringify({ ...body, password: { $ne: null } }), 'password'],
    ['NUL in an address', JSON.stringify({ ...body, email: 'p0\0@mercy.example' }), 'email'],
    ['NUL in a password', JSON.stringify({ ...body, password: 'x\0' }), 'password'],
    ['half a surrogate pair', '{"email":"\\ud800@mercy.example","password":"x"}', 'email'],
    ['too long an address', JSON.stringify({ ...body, email: 'a'.repeat(321) }), 'email'],
    ['too long a password', JSON.stringify({ ...body, password: 'a'.repeat(2_049) }), 'password'],
    ['JSON nested 5,000 deep (F91)', `{"email":"a@b.example","password":${deep(5_000)}}`, 'password'],
  ])('F90: answers %s with what is wrong, and tries nothing', async (_name, text, path) => {
    const before = await events()
    const client = new ApiClient(server)
    const headers = { 'x-csrf-token': await client.token() }
    const answer = await client.call('/signin', { body: text, headers, method: 'POST' })
    expect(answer).toMatchObject({ status: 400, body: { type: problem('input_invalid'), errors: [{ path }] } })
    expect(answer.text).not.toContain(password)
    expect(await events()).toBe(before)
  })

  it('takes a password of the greatest length, and no larger body than the limit', async () => {
    const long = await new ApiClient(server).post('/signin', { email: 'nobody@z.example', password: 'a'.repeat(2_048) })
    expect(long.status).toBe(401)
    const huge = await new ApiClient(server).post('/signin', { email: 'a', password: 'a'.repeat(70_000) })
    expect(huge).toMatchObject({ status: 413, body: { type: problem('too_large') } })
  })

  it('spends NUL and odd texts without a fault wherever a text is taken', async () => {
    const odd = ['\0', '\ud800', '\u202e', '', ' ', '%00', "'; drop table accounts; --", '💊'.repeat(20)]
    const members: Readonly<Record<string, (text: string) => unknown>> = {
      '/signup': (text) => ({ email: text, password: text, name: text, organization: text, metadata: { npi: text } }),
      '/signup/confirm': (code) => ({ code }),
      '/totp': (code) => ({ code }),
      '/totp/backup-code': (code) => ({ code }),
      '/totp/confirm': (code) => ({ code }),
      '/magic-link': (email) => ({ email }),
      '/magic-link/code': (code) => ({ code }),
      '/password/forgot': (email) => ({ email }),
      '/password/renew': (newPassword) => ({ newPassword }),
      '/password/change': (newPassword) => ({ newPassword }),
    }
    for (const [path, make] of Object.entries(members))
      for (const text of odd)
        expect((await new ApiClient(server).post(path, make(text))).status, path).toBeLessThan(500)
  })
})

it('over https its cookies are bound to this host and sent over https alone', async () => {
  const server = await startServer('pglite', { environment: { MLPIPES_AUTH_URL: 'https://auth.mercy.example' }, seed })
  const host = { host: 'auth.mercy.example' }
  const begun = await server.server.app.inject({ method: 'GET', url: '/api/auth/csrf', headers: host })
  const [csrf] = begun.cookies
  expect(csrf).toMatchObject({ name: '__Host-mlpipes_csrf', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' })
  const answer = await server.server.app.inject({
    method: 'POST',
    url: '/api/auth/signin',
    headers: {
      ...host,
      origin: 'https://auth.mercy.example',
      cookie: `__Host-mlpipes_csrf=${csrf?.value}`,
      'x-csrf-token': begun.json().csrfToken,
    },
    payload: { email: 'lee@mercy.example', password },
  })
  expect(answer.json().status).toBe('complete')
  const session = answer.cookies.filter(({ name }) => name.startsWith('__Host-mlpipes_session'))
  expect(session.map(({ name }) => name)).toEqual(['__Host-mlpipes_session', '__Host-mlpipes_session.sig'])
  for (const cookie of session)
    expect(cookie).toMatchObject({ secure: true, httpOnly: true, path: '/', sameSite: 'lax' })
  const out = await server.server.app.inject({
    method: 'POST',
    url: '/api/auth/signout',
    headers: { ...host, cookie: `__Host-mlpipes_csrf=${csrf?.value}`, 'x-csrf-token': begun.json().csrfToken },
    payload: {},
  })
  for (const cookie of out.cookies) expect(cookie, cookie.name).toMatchObject({ expires: new Date(0), secure: true })
  await server.close()
})
