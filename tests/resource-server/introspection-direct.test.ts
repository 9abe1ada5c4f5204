// Introspection past the provider: what goes that way, what is left to the provider, and that both say the same.
import { Agent, createServer, type IncomingMessage, request, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { exportJWK, generateKeyPair } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSecrets, sha256 } from '../../src/crypto/secrets.ts'
import { createIntrospected } from '../../src/oidc/introspected.ts'
import { createDirectIntrospection } from '../../src/oidc/introspection-direct.ts'
import { createPolicies } from '../../src/organizations/organizations.ts'
import { basic, introspectBothWays, post } from '../support/client.ts'
import { startServer, type TestServer, testPlatform, testSecret } from '../support/server.ts'
import { personTokens, seed, serviceToken } from './seed.ts'

const unknownToken = 'x'.repeat(43)
let server: TestServer
let direct: Server
let directUrl: string
const tokens: Record<string, string> = {}

/** Answers like the endpoint, or says what it left unread. */
async function listen(): Promise<void> {
  const answer = createDirectIntrospection({
    issuer: server.issuer,
    secrets: createSecrets(testSecret),
    introspected: createIntrospected(server.database, createPolicies(testPlatform)),
    mayIntrospect: async () => true,
  })
  direct = createServer((incoming, response) => {
    const answered = async () => (await answer(incoming)) ?? { left: await read(incoming) }
    answered().then(
      (body) => response.end(JSON.stringify(body)),
      (error: unknown) => response.end(JSON.stringify({ error: String(error) })),
    )
  })
  await new Promise<void>((resolve) => direct.listen(0, resolve))
  directUrl = `http://localhost:${(direct.address() as AddressInfo).port}/`
}

async function read(message: IncomingMessage): Promise<string> {
  let body = ''
  for await (const chunk of message) body += String(chunk)
  return body
}

interface Request {
  readonly headers?: Record<string, string>
  readonly body?: URLSearchParams | string
}

async function ask(init: Request, query = ''): Promise<unknown> {
  const headers = { authorization: basic('api'), ...init.headers }
  const body = init.body ?? new URLSearchParams({ token: unknownToken })
  return (await fetch(`${directUrl}${query}`, { method: 'POST', headers, body })).json()
}

beforeAll(async () => {
  const { publicKey } = await generateKeyPair('ES256')
  server = await startServer('postgres', { seed: seed({ ...(await exportJWK(publicKey)), alg: 'ES256' }) })
  await listen()
  const person = await personTokens(server)
  const offline = await personTokens(server, 'first', { scope: 'openid offline_access', prompt: 'consent' })
  const own = await personTokens(server, 'asker', { scope: 'openid' })
  const revoked = await personTokens(server)
  await post(server, '/oauth/revoke', 'first', { token: revoked.access_token })
  Object.assign(tokens, {
    'of a person': person.access_token,
    'to refresh with': person.refresh_token,
    'of somebody who is away': offline.access_token,
    'to refresh with, later': offline.refresh_token,
    'of an app that asks about it': own.access_token,
    'to refresh with, of an app that asks about it': own.refresh_token,
    'of a service': await serviceToken(server, 'api'),
    'for our own API': (await personTokens(server, 'asker', { scope: 'openid admin:read' })).access_token,
    'for our own API, of an app that asks about its own': (
      await personTokens(server, 'alone', { scope: 'openid admin:read' })
    ).access_token,
    'that was taken back': revoked.access_token,
    'that nobody knows': unknownToken,
  })
})
afterAll(async () => {
  direct.close()
  await server.close()
})

it('says of every token to every caller what the provider says', async () => {
  const callers = ['api', 'first', 'ehr', 'asker', 'alone', 'nosy', 'foreign']
  const active: string[] = []
  for (const [name, token] of Object.entries(tokens))
    for (const caller of callers)
      if ((await introspectBothWays(server, token, caller))['active'] === true) active.push(`${name}: ${caller}`)
  expect(active).toEqual([
    'of a person: api',
    'of a person: asker',
    'of somebody who is away: api',
    'of somebody who is away: asker',
    'of an app that asks about it: api',
    'of an app that asks about it: asker',
    'to refresh with, of an app that asks about it: asker',
    'of a service: api',
    'of a service: asker',
    'for our own API: api',
    'for our own API: asker',
    'for our own API, of an app that asks about its own: api',
    'for our own API, of an app that asks about its own: asker',
    'for our own API, of an app that asks about its own: alone',
  ])
})

it('answers with the headers of the provider', async () => {
  const token = tokens['of a person'] ?? ''
  const [usual, byProvider] = await Promise.all(
    [{}, { client_id: 'api' }].map((more) => post(server, '/oauth/introspect', 'api', { token, ...more })),
  )
  const changing = new Set(['date', 'x-request-id'])
  const told = (headers?: Headers) => [...(headers ?? [])].filter(([name]) => !changing.has(name))
  expect(told(usual?.headers)).toEqual(told(byProvider?.headers))
})

describe('takes', () => {
  it.each<[string, Request]>([
    ['a token', {}],
    ['a token with its type', { body: new URLSearchParams({ token: unknownToken, token_type_hint: 'access_token' }) }],
    ['whatever the answer may be in', { headers: { accept: 'application/json, text/html;q=0.5' } }],
  ])('%s', async (_name, init) => {
    expect(await ask(init)).toEqual({ active: false })
  })
})

describe('leaves to the provider, unread,', () => {
  const form = (body: string, headers: Record<string, string> = {}): Request => ({
    body,
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
  })
  const usual = `token=${unknownToken}`
  it.each<[string, Request]>([
    ['a wrong secret', form(usual, { authorization: basic('api', 'another-secret-0123456789') })],
    ['an empty secret', form(usual, { authorization: basic('api', '') })],
    ['an unknown client', form(usual, { authorization: basic('nobody', 'nobody-secret-0123456789') })],
    ['a client that has a key', form(usual, { authorization: basic('keyed', 'keyed-secret-0123456789') })],
    ['a public client', form(usual, { authorization: basic('spa', 'spa-secret-0123456789') })],
    ['our own pages', form(usual, { authorization: basic('mlpipes-account', 'x') })],
    ['a bearer', form(usual, { authorization: `Bearer ${unknownToken}` })],
    ['nobody', form(usual, { authorization: '' })],
    ['credentials that are to be decoded', form(usual, { authorization: basic('a%70i') })],
    ['credentials in the form', form(`${usual}&client_id=api`)],
    ['credentials with bad padding', form(usual, { authorization: `${basic('api')}=` })],
    ['a form that begins as a query does', form(`?${usual}`)],
    ['two tokens', form(`${usual}&${usual}`)],
    ['a short token', form('token=short')],
    ['a JWT', form(`token=${'a'.repeat(20)}.${'b'.repeat(20)}.c`)],
    ['no token', form('token_type_hint=access_token')],
    ['what nobody knows', form(`${usual}&more=1`)],
    ['a client that wants signed answers', form(usual, { authorization: basic('signed') })],
    ['a page of a browser', form(usual, { origin: 'https://app.example' })],
    ['a proof', form(usual, { dpop: 'a.b.c' })],
    ['JSON', form(usual, { 'content-type': 'application/json' })],
    ['a long form', form(`${usual}&token_type_hint=${'x'.repeat(2_048)}`)],
  ])('%s', async (_name, init) => {
    expect(await ask(init)).toEqual({ left: init.body })
  })

  it('more in the address', async () => {
    expect(await ask({}, '?more')).toHaveProperty('left')
  })

  it('a token to refresh with, and one that says what is not known here', async () => {
    const body = (name: string) => new URLSearchParams({ token: tokens[name] ?? '' })
    expect(await ask({ body: body('to refresh with') })).toHaveProperty('left')
    const odd = { body: body('of an app that asks about it') }
    expect(await ask(odd)).toMatchObject({ active: true })
    const hash = sha256(tokens['of an app that asks about it'] ?? '')
    const say = (members: object) =>
      server.database.run('update mlpipes_auth.oidc_payloads set payload = payload || $2::jsonb where id_hash = $1', [
        hash,
        JSON.stringify(members),
      ])
    await say({ kind: 'ClientCredentials' })
    expect(await ask(odd)).toHaveProperty('left')
    await say({ kind: 'AccessToken', nbf: 1 })
    expect(await ask(odd)).toHaveProperty('left')
  })

  it('a form that comes in pieces', async () => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(usual))
        controller.close()
      },
    })
    const headers = { authorization: basic('api'), 'content-type': 'application/x-www-form-urlencoded' }
    const answer = await fetch(directUrl, { method: 'POST', headers, body, duplex: 'half' } as RequestInit)
    expect(await answer.json()).toEqual({ left: usual })
  })
})

it('answers by turns on one connection, however it was asked', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const send = (body: string) =>
    new Promise<string>((resolve, reject) => {
      const headers = { authorization: basic('api'), 'content-type': 'application/x-www-form-urlencoded' }
      const sent = request(`${server.issuer}/oauth/introspect`, { method: 'POST', agent, headers }, (answer) => {
        read(answer).then(resolve, reject)
      })
      sent.on('error', reject).end(body)
    })
  const usual = `token=${tokens['of a person']}`
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, turn) => send(turn % 2 === 0 ? usual : `${usual}&client_id=api`)),
  )
  agent.destroy()
  expect(answers.filter((answer) => answer.includes('"active":true'))).toHaveLength(20)
})

it('tells an app of no fault when somebody goes away before saying what they ask', async () => {
  const socket = connect(server.port, '127.0.0.1')
  const head = [
    'POST /oauth/introspect HTTP/1.1',
    `Host: ${new URL(server.issuer).host}`,
    `Authorization: ${basic('first')}`,
  ]
  socket.write(
    `${[...head, 'Content-Type: application/x-www-form-urlencoded', 'Content-Length: 49'].join('\r\n')}\r\n\r\n`,
  )
  await expect.poll(() => server.database.run('select 1', []).then(() => socket.readyState)).toBe('open')
  await new Promise((resolve) => setTimeout(resolve, 100))
  socket.resetAndDestroy()
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  expect(await server.database.run("select 1 from mlpipes_auth.client_faults where client_id = 'first'", [])).toEqual(
    [],
  )
})

it('takes the former secret while a new one is rotated in, and not afterwards', async () => {
  const form = { body: new URLSearchParams({ token: unknownToken }), headers: { authorization: basic('nosy') } }
  const until = (interval: string) =>
    server.database.run(
      `update mlpipes_auth.clients set previous_secret_digest = coalesce(previous_secret_digest, secret_digest),
        secret_digest = $1, previous_secret_until = now() + $2::interval where client_id = 'nosy' returning 1`,
      [createSecrets(testSecret).digestClientSecret('nosy-new-secret-0123456789'), interval],
    )
  await until('1 minute')
  expect(await ask(form)).toEqual({ active: false })
  await until('-1 minute')
  expect(await ask(form)).toHaveProperty('left')
})
