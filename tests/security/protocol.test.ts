// Security cases of the protocol endpoints, by their ids.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  type Answer,
  authorizationUrl,
  Browser,
  basic,
  introspect,
  obtainCode,
  obtainTokens,
  post,
  redeem,
  redirectUri,
} from '../support/client.ts'
import { secretOf, startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres')
})
afterAll(() => server.close())

const open = (clientId: string, extra: Record<string, string | undefined> = {}) =>
  new Browser(server).request(authorizationUrl(server, clientId, extra).url)

describe('F01: redirect_uri is compared exactly', () => {
  it.each([
    `${redirectUri}/`,
    'http://localhost:9/Callback',
    'http://localhost:10/callback',
    `${redirectUri}?x=1`,
    `${redirectUri}#x`,
    'http://user@localhost:9/callback',
    'http://localhost:9/a/../callback',
    'http://localhost:9/%63allback',
    'http://evil.localhost:9/callback',
    'javascript:alert(1)',
    undefined,
  ])('%s is refused on our own page', async (uri) => {
    const answer = await open('spa', { redirect_uri: uri, client_id: 'ehr' })
    expect(answer.status).toBe(400)
    expect(answer.headers.get('location')).toBeNull()
    expect(answer.text).toContain('Request id')
    expect(answer.headers.get('content-security-policy')).toContain("frame-ancestors 'none'")
  })

  it('refuses it twice', async () => {
    const answer = await new Browser(server).request(
      `${authorizationUrl(server, 'ehr').url}&redirect_uri=${encodeURIComponent(redirectUri)}`,
    )
    expect(answer.status).toBe(400)
    expect(answer.headers.get('location')).toBeNull()
  })
})

describe('F02: PKCE', () => {
  it.each([
    [{ code_challenge: undefined, code_challenge_method: undefined }],
    [{ code_challenge_method: 'plain' }],
    [{ code_challenge: undefined }],
  ])('a request with %o is refused', async (extra) => {
    const location = new URL((await open('ehr', extra)).headers.get('location') ?? '')
    expect(location.searchParams.get('error')).toBe('invalid_request')
  })

  it.each([undefined, 'x', 'w'.repeat(43), 'l'.repeat(129)])('the verifier %s is refused', async (verifier) => {
    const { code } = await obtainCode(server, 'first')
    const answer = await redeem(server, 'first', code, verifier)
    expect(answer.status).toBe(400)
  })

  it('a verifier without a challenge is refused', async () => {
    const { code } = await obtainCode(server, 'certification', {
      code_challenge: undefined,
      code_challenge_method: undefined,
    })
    expect((await redeem(server, 'certification', code, 'v'.repeat(43))).body['error']).toBe('invalid_grant')
  })
})

describe('F03: codes', () => {
  it('belong to one client and one redirect_uri', async () => {
    const { code, verifier } = await obtainCode(server, 'first')
    expect((await redeem(server, 'certification', code, verifier)).body['error']).toBe('invalid_grant')
    const elsewhere = {
      grant_type: 'authorization_code',
      code,
      code_verifier: verifier ?? '',
      redirect_uri: 'http://localhost:9/other',
    }
    expect((await post(server, '/oauth/token', 'first', elsewhere)).body['error']).toBe('invalid_grant')
  })
})

describe('F05: iss', () => {
  it('stands in errors too, and discovery says so', async () => {
    const location = new URL((await open('ehr', { response_type: 'token' })).headers.get('location') ?? '')
    expect(location.href).toContain(`iss=${encodeURIComponent(server.issuer)}`)
    const discovery = await (await fetch(`${server.issuer}/.well-known/openid-configuration`)).json()
    expect(discovery).toMatchObject({ issuer: server.issuer, authorization_response_iss_parameter_supported: true })
  })
})

describe('F06: what is not offered', () => {
  const noCode = ['error', 'error_description', 'iss', 'state']
  const unknownModes = [
    'web_message',
    'jwt',
    'query.jwt',
    'fragment.jwt',
    'form_post.jwt',
    'Fragment',
    'query fragment',
  ]

  /** Somebody who is signed in and whom nobody has to ask: whatever is not refused brings a code at once. */
  async function signedIn() {
    const { browser } = await obtainCode(server, 'first')
    const count = async () =>
      Number(
        (
          await server.database.run(
            `select count(*) as codes from mlpipes_auth.oidc_payloads where model = 'AuthorizationCode'`,
            [],
          )
        )[0]?.['codes'],
      )
    const before = await count()
    return {
      ask: (extra: Record<string, string | undefined>, more = '') =>
        browser.request(authorizationUrl(server, 'first', { state: 'a-state', ...extra }).url + more),
      codes: async () => (await count()) - before,
    }
  }
  function partsOf(answer: Answer) {
    const url = new URL(answer.headers.get('location') ?? expect.fail(`no redirect: ${answer.status}`))
    expect(url.origin + url.pathname).toBe(redirectUri)
    return {
      query: Object.fromEntries(url.searchParams),
      fragment: Object.fromEntries(new URLSearchParams(url.hash.slice(1))),
    }
  }

  it.each(['token', 'id_token', 'code id_token', 'code token', 'id_token token', 'code id_token token', 'none'])(
    'response_type %s is refused in every response_mode',
    async (response_type) => {
      const { ask, codes } = await signedIn()
      expect((await ask({ response_type })).headers.get('location')).toContain('error=unsupported_response_type')
      for (const response_mode of ['query', 'fragment']) {
        const { query, fragment } = partsOf(await ask({ response_type, response_mode }))
        const said = { ...query, ...fragment }
        expect(Object.keys(said).sort(), response_mode).toEqual(noCode)
        expect(said['error'], response_mode).toMatch(/^(unsupported_response_type|invalid_request)$/)
      }
      const page = await ask({ response_type, response_mode: 'form_post' })
      expect(page.headers.get('location')).toBeNull()
      const names = [...page.text.matchAll(/<input type="hidden" name="([^"]+)"/g)].map(([, name]) => name)
      expect(names.sort()).toEqual(noCode)
      expect(await codes()).toBe(0)
    },
  )

  it('response_mode fragment puts code, state and iss behind the #, and nothing before it', async () => {
    const { ask } = await signedIn()
    const { query, fragment } = partsOf(await ask({ response_mode: 'fragment' }))
    expect(query).toEqual({})
    expect(fragment).toEqual({ code: expect.any(String), state: 'a-state', iss: server.issuer })
    const inQuery = partsOf(await ask({ response_mode: 'query' }))
    expect(inQuery.fragment).toEqual({})
    expect(Object.keys(inQuery.query).sort()).toEqual(['code', 'iss', 'state'])
    const refused = partsOf(await ask({ response_mode: 'fragment', scope: 'openid admin:write' }))
    expect(refused.query).toEqual({})
    expect(Object.keys(refused.fragment)).toEqual(expect.arrayContaining(['error', 'iss', 'state']))
    expect(refused.fragment).not.toHaveProperty('code')
  })

  it('response_mode fragment sends nobody to an address that is not registered', async () => {
    const { ask, codes } = await signedIn()
    const answer = await ask({ response_mode: 'fragment', redirect_uri: `${redirectUri}#` })
    expect(answer.status).toBe(400)
    expect(answer.headers.get('location')).toBeNull()
    expect(await codes()).toBe(0)
  })

  it.each(unknownModes)('response_mode %s is refused, and no code is made', async (response_mode) => {
    const { ask, codes } = await signedIn()
    const { query, fragment } = partsOf(await ask({ response_mode }))
    expect(fragment).toEqual({})
    expect(Object.keys(query).sort()).toEqual(noCode)
    expect(query).toMatchObject({ error: 'unsupported_response_mode' })
    expect(await codes()).toBe(0)
    const pushed = await push({ response_mode })
    expect(pushed).toMatchObject({ status: 400, body: { error: 'unsupported_response_mode' } })
  })

  it('response_mode said twice is refused, and beside a pushed request it counts for nothing', async () => {
    const { ask, codes } = await signedIn()
    const twice = await ask({ response_mode: 'query' }, '&response_mode=fragment')
    expect(partsOf(twice).query).toMatchObject({ error: 'invalid_request' })
    expect(await codes()).toBe(0)
    const { body } = await push({ response_mode: 'fragment' })
    const { browser } = await obtainCode(server, 'first')
    const beside = { client_id: 'first', request_uri: String(body['request_uri']), response_mode: 'query' }
    const { query, fragment } = partsOf(await browser.request(`/oauth/authorize?${new URLSearchParams(beside)}`))
    expect(query).toEqual({})
    expect(fragment).toHaveProperty('code')
  })

  it('grant password is refused', async () => {
    expect(
      (await post(server, '/oauth/token', 'first', { grant_type: 'password', username: 'a', password: 'b' })).body[
        'error'
      ],
    ).toBe('unsupported_grant_type')
  })

  const push = (extra: Record<string, string>) => {
    const { searchParams } = new URL(authorizationUrl(server, 'first', extra).url)
    return post(server, '/oauth/par', 'first', Object.fromEntries(searchParams))
  }
})

describe('D5: methods', () => {
  const postOnly = ['token', 'par', 'device', 'introspect', 'revoke', 'register'].map((name) => `/oauth/${name}`)
  const send = (method: string, path: string) => fetch(server.issuer + path, { method })

  it.each(postOnly)('%s says 405 and what it takes to all but POST', async (path) => {
    for (const method of ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE']) {
      const answer = await send(method, `${path}?client_id=api&client_secret=${secretOf('api')}`)
      expect(answer.status, method).toBe(405)
      expect(answer.headers.get('allow'), method).toBe('POST')
      expect(answer.headers.get('cache-control'), method).toBe('no-store')
      const text = await answer.text()
      if (method === 'HEAD') expect(text).toBe('')
      else expect(JSON.parse(text)).toEqual({ error: 'invalid_request', error_description: expect.any(String) })
    }
    const taken = await send('POST', path)
    expect([400, 401]).toContain(taken.status)
    expect(taken.headers.get('allow')).toBeNull()
  })

  it('knows nothing of them at other paths, and leaves a browser’s preflight to the provider', async () => {
    expect((await send('GET', '/oauth/tokens')).status).toBe(404)
    expect((await send('GET', '/oauth/userinfo')).status).toBe(401)
    const headers = { origin: 'https://app.example', 'access-control-request-method': 'POST' }
    const preflight = await fetch(`${server.issuer}/oauth/token`, { method: 'OPTIONS', headers })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-methods')).toBe('POST')
  })
})

describe('F07: odd sizes', () => {
  it.each([
    ['a scope of 100 kB', () => open('ehr', { scope: 'x'.repeat(100_000) })],
    ['deep claims', () => open('ehr', { claims: '['.repeat(3_000) + ']'.repeat(3_000) })],
    [
      'a body of 100 kB',
      () => post(server, '/oauth/token', 'first', { grant_type: 'authorization_code', code: 'x'.repeat(100_000) }),
    ],
  ])('%s gives 4xx or an error redirect', async (_name, send) => {
    const { status } = await send()
    expect([303, 400, 413, 414, 431]).toContain(status)
  })
})

describe('F08: client authentication', () => {
  const send = (headers: Record<string, string>, form: Record<string, string> = {}) =>
    fetch(`${server.issuer}/oauth/token`, {
      method: 'POST',
      headers,
      body: new URLSearchParams({ grant_type: 'client_credentials', ...form }),
    })
  it.each([
    ['two mechanisms', { authorization: basic('api') }, { client_id: 'api', client_secret: secretOf('api') }],
    ['a wrong secret', { authorization: basic('api', 'wrong') }, {}],
    ['an empty secret', { authorization: basic('api', '') }, {}],
    ['Basic that is not base64', { authorization: 'Basic $$$' }, {}],
    ['the stored digest as secret', { authorization: basic('api', 'h1.00000000.xyz') }, {}],
    ['nothing', {}, {}],
  ])('%s is refused', async (_name, headers, form) => {
    const answer = await send(headers as Record<string, string>, form as Record<string, string>)
    expect([400, 401]).toContain(answer.status)
  })
  it('a secret in the query does not count', async () => {
    const answer = await fetch(`${server.issuer}/oauth/token?client_id=api&client_secret=${secretOf('api')}`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'client_credentials' }),
    })
    expect(answer.status).toBe(400)
  })
})

describe('F09: kinds of tokens do not cross', () => {
  it('refuses one as another', async () => {
    const tokens = await obtainTokens(server, 'first')
    const sessionId = tokens.browser.cookies.find((cookie) => cookie.name === 'mlpipes_session')?.value ?? ''
    for (const wrong of [tokens.access_token, tokens.id_token, sessionId]) {
      expect(
        (await post(server, '/oauth/token', 'first', { grant_type: 'refresh_token', refresh_token: wrong })).body[
          'error'
        ],
      ).toBe('invalid_grant')
      expect((await redeem(server, 'first', wrong, 'v'.repeat(43))).body['error']).toBe('invalid_grant')
    }
    for (const wrong of [
      tokens.id_token,
      tokens.refresh_token ?? '',
      sessionId,
      tokens.access_token.slice(0, -1),
      `${tokens.access_token}x`,
    ]) {
      const userinfo = await fetch(`${server.issuer}/oauth/userinfo`, { headers: { authorization: `Bearer ${wrong}` } })
      expect(userinfo.status).toBe(401)
    }
  })
})

describe('F11: introspection is denied by default', () => {
  it.each(['nosy', 'foreign'])('%s learns nothing', async (caller) => {
    const tokens = await obtainTokens(server, 'first')
    expect(await introspect(server, tokens.access_token, caller)).toEqual({ active: false })
    const denied = async () => (await server.audit('introspection.denied'))[0]
    await expect.poll(denied).toMatchObject({ clientId: caller, outcome: 'failure' })
  })
  it('own reaches the caller’s tokens only', async () => {
    const mine = await obtainTokens(server, 'ehr')
    const others = await obtainTokens(server, 'first')
    expect((await introspect(server, mine.access_token, 'ehr'))['active']).toBe(true)
    expect(await introspect(server, others.access_token, 'ehr')).toEqual({ active: false })
  })
  it('a token of nobody is inactive', async () => {
    expect(await introspect(server, 'x'.repeat(43))).toEqual({ active: false })
  })
  it('a person who was disabled has no active token, and comes back when enabled', async () => {
    const tokens = await obtainTokens(server, 'first')
    const lee = {
      email: 'lee@mercy.example',
      name: 'Dr Lee',
      organization: 'mercy',
      roles: ['member', 'physician'],
      emailVerified: true,
    }
    await server.apply({ accounts: [{ ...lee, disabled: true }] })
    expect(await introspect(server, tokens.access_token)).toEqual({ active: false })
    expect(
      (
        await post(server, '/oauth/token', 'first', {
          grant_type: 'refresh_token',
          refresh_token: tokens.refresh_token ?? '',
        })
      ).status,
    ).toBe(400)
    const silent = await tokens.browser.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)
    expect(silent.headers.get('location')).toContain('error=login_required')
    await server.apply({ accounts: [lee] })
  })
})

describe('F12: revocation', () => {
  it('by another client changes nothing; garbage and repetition are fine', async () => {
    const tokens = await obtainTokens(server, 'first')
    await post(server, '/oauth/revoke', 'certification', { token: tokens.access_token })
    expect((await introspect(server, tokens.access_token))['active']).toBe(true)
    for (const token of ['garbage', tokens.access_token, tokens.access_token])
      expect((await post(server, '/oauth/revoke', 'first', { token })).status).toBe(200)
    expect(await introspect(server, tokens.access_token)).toEqual({ active: false })
  })
})

describe('F14: a client id never looks like an account', () => {
  it('is refused by apply', async () => {
    const client = {
      client_id: 'acc_AAAAAAAAAAAAAAAAAAAAAA',
      client_secret: 'long-enough-secret',
      client_name: 'X',
      organization: 'mercy',
      grant_types: ['client_credentials' as const],
    }
    await expect(server.apply({ clients: [client] })).rejects.toThrow('acc_')
  })
})

describe('D5, D6, D9: paths, hosts and bytes', () => {
  it.each([
    '/oauth/TOKEN',
    '/OAUTH/token',
    '/oauth/token/',
    '/%6fauth/token',
    '//oauth/token',
    '/oauth//token',
    '/oauth/./token',
    '/oauth/%2e/token',
  ])('%s is the token endpoint with all its rules, or nothing', async (path) => {
    const answer = await fetch(server.issuer + path, {
      method: 'POST',
      headers: { authorization: basic('api') },
      body: new URLSearchParams({ grant_type: 'client_credentials' }),
    })
    if (answer.status === 200) expect((await server.audit('token.issued'))[0]).toMatchObject({ clientId: 'api' })
    else expect([400, 404]).toContain(answer.status)
  })
  it('another Host is refused, and forwarded headers change nothing', async () => {
    const { request } = await import('node:http')
    const status = await new Promise<number | undefined>((resolve) => {
      request(
        {
          port: server.port,
          host: '127.0.0.1',
          path: '/.well-known/openid-configuration',
          headers: { host: 'evil.example' },
        },
        (answer) => resolve(answer.statusCode),
      ).end()
    })
    expect(status).toBe(421)
    const forwarded = await fetch(`${server.issuer}/oauth/authorize?client_id=none`, {
      headers: {
        accept: 'text/html',
        'x-forwarded-host': 'evil.example',
        'x-forwarded-proto': 'https',
        forwarded: 'host=evil.example',
      },
    })
    expect(await forwarded.text()).not.toContain('evil.example')
  })
  it.each([
    ['GET', '/oauth/authorize?client_id=%00&state=%00'],
    ['GET', '/interaction/%00'],
    ['GET', '/%'],
    ['POST', '/oauth/token', 'grant_type=authorization_code&code=%00&redirect_uri=%00'],
    ['POST', '/oauth/token', 'grant_type=client_credentials&client_id=%00&client_secret=%00'],
    ['POST', '/oauth/introspect', 'client_id=api&client_secret=%ED%A0%80&token=%00'],
    ['POST', '/oauth/authorize', 'client_id=%00'],
    ['POST', '/interaction/x/password', 'csrf=%00'],
  ])('%s %s %s never gives 5xx', async (...[method, path, body]: readonly string[]) => {
    const answer = await fetch(server.issuer + path, {
      method: method ?? 'GET',
      redirect: 'manual',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      ...(body ? { body } : {}),
    })
    expect(answer.status).toBeLessThan(500)
  })
  it('NUL inside an authorization request that came by POST gives 4xx', async () => {
    const browser = new Browser(server)
    const answer = await browser.follow(
      await browser.request('/oauth/authorize', { form: { client_id: 'a\0b', state: '\0' } }),
    )
    expect(answer.status).toBeLessThan(500)
  })
  it('NUL in a token or code with a right client gives invalid_grant', async () => {
    const answer = await post(server, '/oauth/token', 'first', {
      grant_type: 'authorization_code',
      code: 'a\0b',
      redirect_uri: redirectUri,
    })
    expect(answer.status).toBe(400)
    expect((await post(server, '/oauth/introspect', 'api', { token: '\0' })).status).toBeLessThan(500)
  })
})

describe('F88: no secret in logs, audit rows or tables', () => {
  it('finds none of the values that were used', async () => {
    const tokens = await obtainTokens(server, 'first', { state: 'canary-state-value' })
    const sessionId = tokens.browser.cookies.find((cookie) => cookie.name === 'mlpipes_session')?.value ?? ''
    const secrets = [
      tokens.access_token,
      tokens.refresh_token ?? '',
      sessionId,
      secretOf('first'),
      'Correct-Horse-9-Battery',
    ]
    const tables = [
      'accounts',
      'password_credentials',
      'clients',
      'oidc_payloads',
      'sessions',
      'audit_events',
      'sign_in_flows',
      'sign_in_attempts',
      'signing_keys',
      'totp_credentials',
    ] as const
    const dumps = await Promise.all(
      tables.map((table) => server.database.kysely.selectFrom(table).selectAll().execute()),
    )
    const dump = JSON.stringify(dumps)
    const logs = server.logs.join('\n')
    for (const secret of [...secrets, 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP', '"d":']) {
      expect(secret.length).toBeGreaterThan(2)
      expect(dump.includes(secret), `database holds ${secret.slice(0, 6)}…`).toBe(false)
    }
    for (const secret of [...secrets, 'canary-state-value'])
      expect(logs.includes(secret), `log holds ${secret.slice(0, 6)}…`).toBe(false)
  })
})
