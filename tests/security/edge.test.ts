// Security cases of the edge, of client assertions and of hashing, by their ids.
import type { webcrypto } from 'node:crypto'
import { connect } from 'node:net'
import argon2 from 'argon2'
import fc from 'fast-check'
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createPasswords } from '../../src/credentials/password.ts'
import { authorizationUrl, Browser, signIn } from '../support/client.ts'
import { cheapHash, password, startServer, type TestServer } from '../support/server.ts'

let server: TestServer
let privateKey: webcrypto.CryptoKey
beforeAll(async () => {
  server = await startServer('postgres')
  const pair = await generateKeyPair('ES256', { extractable: true })
  privateKey = pair.privateKey
  const jwk = { ...(await exportJWK(pair.publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' }
  await server.apply({
    clients: [
      {
        client_id: 'asserting',
        client_name: 'A',
        organization: 'mercy',
        token_endpoint_auth_method: 'private_key_jwt',
        grant_types: ['client_credentials'],
        jwks: { keys: [jwk] },
        scope: 'openid',
      },
    ],
  })
})
afterAll(() => server.close())

describe('F10: client assertions', () => {
  const present = async (assertion: string) => {
    const form = {
      grant_type: 'client_credentials',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
    }
    return (await fetch(`${server.issuer}/oauth/token`, { method: 'POST', body: new URLSearchParams(form) })).status
  }
  const claims = (extra: object = {}) => ({
    iss: 'asserting',
    sub: 'asserting',
    aud: server.issuer,
    jti: crypto.randomUUID(),
    ...extra,
  })
  const sign = (
    payload: object,
    header: object = {},
    key: webcrypto.CryptoKey | Uint8Array = privateKey,
    expires: string | number = '1m',
  ) =>
    new SignJWT({ ...payload })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', ...header })
      .setIssuedAt()
      .setExpirationTime(expires)
      .sign(key)

  it('a good one is taken, once, under 20 parallel requests', async () => {
    expect(await present(await sign(claims()))).toBe(200)
    const same = await sign(claims())
    const answers = await Promise.all(Array.from({ length: 20 }, () => present(same)))
    expect(answers.filter((status) => status === 200)).toHaveLength(1)
    expect(answers.filter((status) => status >= 500)).toEqual([])
  })
  it.each([
    ['alg none', () => Promise.resolve(new UnsecuredJWT(claims()).setIssuedAt().setExpirationTime('1m').encode())],
    [
      'HS256 with something public',
      () => sign(claims(), { alg: 'HS256' }, new TextEncoder().encode('asserting-asserting-asserting-asserting')),
    ],
    ['an unknown kid', () => sign(claims(), { kid: '../../etc/passwd' })],
    ['a kid of SQL', () => sign(claims(), { kid: "' or 1=1 --" })],
    ['another key under the right kid', async () => sign(claims(), {}, (await generateKeyPair('ES256')).privateKey)],
    ['another audience', () => sign(claims({ aud: 'https://evil.example' }))],
    ['another subject', () => sign(claims({ sub: 'api' }))],
    ['an assertion that has expired', () => sign(claims(), {}, privateKey, Math.floor(Date.now() / 1000) - 60)],
  ])('%s is refused', async (_name, make) => {
    expect([400, 401]).toContain(await present(await make()))
  })
})

describe('F40: many sign-ins at once', () => {
  it('are hashed a few at a time, queued up to a limit, and turned away beyond it', async () => {
    const passwords = await createPasswords({ memoryKib: 19_456, passes: 2 })
    const answers = await Promise.allSettled(Array.from({ length: 300 }, () => passwords.check('x', undefined)))
    const refused = answers.filter((answer) => answer.status === 'rejected')
    expect(refused.length).toBeGreaterThan(100)
    for (const answer of refused)
      expect(answer.reason).toMatchObject({ code: 'busy', status: 503, retryAfterSeconds: 5 })
  })
})

describe('F41: hashes of older parameters', () => {
  it('are renewed at sign-in when they are weaker, and left alone when they are stronger', async () => {
    const hashOf = async (email: string) => {
      const row = await server.database.kysely
        .selectFrom('accounts as a')
        .innerJoin('password_credentials as p', 'p.account_id', 'a.id')
        .select('p.hash')
        .where('a.email_normalized', '=', email)
        .executeTakeFirstOrThrow()
      return row.hash
    }
    const weak = await argon2.hash(password, { memoryCost: 1_024, timeCost: 1, parallelism: 1 })
    const strong = await argon2.hash(password, { memoryCost: 4_096, timeCost: 3, parallelism: 1 })
    const account = (email: string, phc: string) => ({ email, name: 'P', organization: 'mercy', password: phc })
    await server.apply({ accounts: [account('weak@mercy.example', weak), account('strong@mercy.example', strong)] })
    for (const email of ['weak@mercy.example', 'strong@mercy.example']) {
      expect((await signIn(new Browser(server), authorizationUrl(server, 'first'), email)).url).toContain('code=')
    }
    expect(await hashOf('weak@mercy.example')).toContain(`m=${cheapHash.memoryKib},t=${cheapHash.passes}`.split(',')[0])
    expect(await hashOf('weak@mercy.example')).not.toBe(weak)
    expect(await hashOf('strong@mercy.example')).toBe(strong)
    expect((await server.audit('password.rehashed')).length).toBe(1)
  })
})

describe('F23: two tabs', () => {
  it('finish on their own, each with its own answer', async () => {
    const browser = new Browser(server)
    const [one, two] = [authorizationUrl(server, 'first'), authorizationUrl(server, 'certification')]
    const first = await browser.follow(await browser.request(one.url))
    const second = await browser.follow(await browser.request(two.url))
    const done = await browser.submit(second, '/password', { email: 'lee@mercy.example', password })
    expect(new URL(done.url).searchParams.get('state')).toBe(new URL(two.url).searchParams.get('state'))
    const late = await browser.submit(first, '/password', { email: 'ada@mercy.example', password })
    expect(new URL(late.url).searchParams.get('state') ?? late.text).not.toBe(
      new URL(two.url).searchParams.get('state'),
    )
    const replayed = await browser.request(`${new URL(second.url).pathname}`)
    expect(replayed.status).toBe(400)
  })
})

describe('F90: any bytes', () => {
  const paths = [
    '/oauth/authorize',
    '/oauth/token',
    '/oauth/introspect',
    '/oauth/revoke',
    '/oauth/userinfo',
    '/oauth/logout',
    '/oauth/logout/confirm',
    '/oauth/nowhere',
    '/interaction/x',
    '/interaction/x/password',
    '/interaction/x/totp',
    '/interaction/x/consent',
    '/interaction/x/cancel',
    '/',
    '/readyz',
    '/dev/mailbox.json',
    '/assets/%2e%2e/package.json',
  ]
  const names = [
    'client_id',
    'state',
    'code',
    'scope',
    'claims',
    'token',
    'prompt',
    'max_age',
    'id_token_hint',
    'request',
    'redirect_uri',
    'grant_type',
    'email',
    'password',
    'csrf',
    'xsrf',
    'posted',
    '__proto__',
  ]
  const parameters = fc.array(
    fc.tuple(
      fc.constantFrom(...names),
      fc.oneof(
        fc.string({ unit: 'binary', maxLength: 50 }),
        fc.constantFrom('\0', 'first', 'authorization_code', '{"a":', 'x'.repeat(5_000)),
      ),
    ),
    { maxLength: 6 },
  )
  it('never give 5xx', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...paths),
        fc.constantFrom('GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'HEAD'),
        parameters,
        parameters,
        async (path, method, query, form) => {
          const search = new URLSearchParams(
            query.map(([name, value]): [string, string] => [name, value.toWellFormed()]),
          ).toString()
          const body = new URLSearchParams(form.map(([name, value]): [string, string] => [name, value.toWellFormed()]))
          const answer = await fetch(`${server.issuer}${path}?${search}`, {
            method,
            redirect: 'manual',
            ...(['POST', 'PUT', 'DELETE'].includes(method) ? { body } : {}),
          })
          const text = await answer.text()
          expect(answer.status, `${method} ${path}?${search} ${body}`).toBeLessThan(500)
          expect(text).not.toMatch(/at .*\.(ts|js):\d+/)
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe('F92: a peer that sends its headers slowly', () => {
  it('is cut off, while others are served', async () => {
    const began = Date.now()
    const socket = connect(server.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write(`POST /oauth/token HTTP/1.1\r\nHost: ${new URL(server.issuer).host}\r\n`)
    const drip = setInterval(() => socket.write('X-A: b\r\n'), 500)
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    expect((await fetch(`${server.issuer}/healthz`)).status).toBe(200)
    await closed
    clearInterval(drip)
    expect(Date.now() - began).toBeLessThan(45_000)
  })
})

describe('C3: the client address', () => {
  it.each([
    ['127.0.0.1', '203.0.113.7', '203.0.113.7'],
    ['127.0.0.0/8', '198.51.100.1, 203.0.113.7', '203.0.113.7'],
    ['127.0.0.1', 'not an address', '127.0.0.1'],
    ['10.0.0.0/8', '203.0.113.7', '127.0.0.1'],
    ['', '203.0.113.7', '127.0.0.1'],
  ])('with trusted proxies "%s" and X-Forwarded-For "%s" is %s', async (trusted, forwarded, expected) => {
    const own = await startServer('pglite', { environment: { TRUSTED_PROXIES: trusted } })
    const page = await new Browser(own).request(authorizationUrl(own, 'first', { response_type: 'token' }).url)
    expect(page.status).toBe(303)
    const browser = new Browser(own)
    const form = await browser.follow(await browser.request(authorizationUrl(own, 'first').url))
    const csrf = /name="csrf" value="([^"]+)"/.exec(form.text)?.[1] ?? ''
    await browser.request(`${new URL(form.url).pathname}/password`, {
      form: { csrf, email: 'c3@mercy.example', password: 'x' },
      headers: { 'x-forwarded-for': forwarded },
    })
    expect((await own.audit('login.failed'))[0]?.ip).toBe(expected)
    await own.close()
  })
})
