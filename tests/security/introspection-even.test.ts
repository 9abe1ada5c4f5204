// F11: who may not see a token learns nothing of it, neither by what the answer says nor by what was done for it. Time itself
// is not measured: what takes time is counted, and what must not be waited for is held back.
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createAside } from '../../src/audit/aside.ts'
import { basic, obtainTokens, post } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

const statements: string[] = []
const { query } = pg.Client.prototype
/** While it is there, rows of refused introspections wait for it. */
let gate: Promise<void> | undefined
let server: TestServer
/** By what they are. */
let tokens: Readonly<Record<string, string>>

beforeAll(async () => {
  // Before the first connection: each binds what it finds here.
  Object.defineProperty(pg.Client.prototype, 'query', {
    configurable: true,
    value(this: pg.Client, ...args: unknown[]) {
      const [first] = args
      statements.push(typeof first === 'string' ? first : String(Reflect.get(Object(first), 'text')))
      if (!gate || !JSON.stringify(args).includes('introspection.denied')) return Reflect.apply(query, this, args)
      return gate.then(() => Reflect.apply(query, this, args))
    },
  })
  server = await startServer('postgres')
  const live = await obtainTokens(server, 'first')
  const revoked = await obtainTokens(server, 'first')
  await post(server, '/oauth/revoke', 'first', { token: revoked.access_token })
  const service = await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials', scope: 'openid' })
  tokens = {
    unknown: 'x'.repeat(43),
    live: live.access_token,
    revoked: revoked.access_token,
    'of a service': String(service.body['access_token']),
  }
})
afterAll(async () => {
  Object.defineProperty(pg.Client.prototype, 'query', { configurable: true, value: query })
  await server.close()
})

const asking = (clientId: string, form: Record<string, string>, secret?: string): RequestInit => ({
  headers: { authorization: basic(clientId, secret) },
  body: new URLSearchParams(form),
})
const callers: Readonly<Record<string, (token: string) => RequestInit>> = {
  'a public client': (token) => ({ body: new URLSearchParams({ token, client_id: 'spa' }) }),
  'a client of another organisation': (token) => asking('foreign', { token }),
  'a client that may not introspect': (token) => asking('nosy', { token }),
  'a client that may see its own tokens': (token) => asking('ehr', { token }),
  'the same, where the provider answers': (token) => asking('ehr', { token, client_id: 'ehr' }),
}

/** All of an answer but the moment and the request's own id, and what was read for it. */
async function ask(request: RequestInit) {
  const from = statements.length
  const signal = AbortSignal.timeout(5_000)
  const answer = await fetch(`${server.issuer}/oauth/introspect`, { method: 'POST', signal, ...request })
  const headers = { ...Object.fromEntries(answer.headers), date: undefined, 'x-request-id': undefined }
  const text = await answer.text()
  const read = statements.slice(from).filter((one) => /^\s*select[\s\S]*(oidc_payloads|\.clients|\.accounts)/.test(one))
  return { told: { status: answer.status, headers, text }, read }
}

/** Housekeeping reads when it likes, which can only add to what is counted. */
async function askQuietly(request: RequestInit) {
  const tries = [await ask(request), await ask(request), await ask(request)]
  return tries.toSorted((one, other) => one.read.length - other.read.length)[0] ?? expect.fail('nothing was asked')
}

describe.each(Object.entries(callers))('F11: %s', (_name, requestFor) => {
  it('is told the same, and the same is read for it, whatever the token is', async () => {
    const unknown = await askQuietly(requestFor(tokens['unknown'] ?? ''))
    expect(unknown.told).toMatchObject({ status: 200, text: '{"active":false}' })
    expect(unknown.read.length).toBeGreaterThan(0)
    for (const [what, token] of Object.entries(tokens))
      expect(await askQuietly(requestFor(token)), what).toEqual(unknown)
  })

  it('does not wait for the row that says what it was refused', async () => {
    const rows = async () => (await server.audit('introspection.denied')).length
    await expect.poll(rows).toBeGreaterThan(0)
    // Those of what was asked before may still be on their way.
    let before = -1
    await vi.waitFor(
      async () => {
        const last = before
        before = await rows()
        expect(before).toBe(last)
      },
      { timeout: 10_000, interval: 200 },
    )
    const { promise, resolve: open } = Promise.withResolvers<void>()
    gate = promise
    try {
      expect((await ask(requestFor(tokens['live'] ?? ''))).told.text).toBe('{"active":false}')
      expect(await rows()).toBe(before)
    } finally {
      gate = undefined
      open()
    }
    await expect.poll(rows).toBe(before + 1)
  })
})

it('F11: a client that there is not gets the answer of a wrong secret', async () => {
  const form = { token: tokens['live'] ?? '' }
  const nobody = await ask(asking('nobody', form, 'wrong-secret-0123456789'))
  const wrong = await ask(asking('foreign', form, 'wrong-secret-0123456789'))
  expect(nobody.told.status).toBe(401)
  expect(wrong.told).toEqual(nobody.told)
})

describe('a row beside the answer', () => {
  const denied = (clientId: string) => ({
    name: 'introspection.denied' as const,
    outcome: 'failure' as const,
    actor: { type: 'client' as const, id: clientId },
    clientId,
    origin: {},
    details: { tokenHash: 'hash', policy: 'none' },
  })

  it('is written before the server stops, together with those of the same moment', async () => {
    const { database } = server
    const lost: unknown[] = []
    const from = statements.length
    const aside = createAside({ database, logger: { error: (about: unknown) => void lost.push(about) } })
    for (let index = 0; index < 20; index += 1) await aside.record(denied('beside'))
    await aside.stop()
    const written = await server.audit('introspection.denied')
    expect(written.filter(({ clientId }) => clientId === 'beside')).toHaveLength(20)
    expect(statements.slice(from).filter((one) => one.startsWith('insert into mlpipes_auth.audit_events')).length).toBe(
      1,
    )
    expect(lost).toEqual([])
  })

  it('is in the log of the process when the database does not take it, and fails nobody', async () => {
    const lost: unknown[] = []
    const run = () => Promise.reject(new Error('gone'))
    const aside = createAside({ database: { run }, logger: { error: (about: unknown) => void lost.push(about) } })
    await aside.record(denied('beside'))
    await aside.stop()
    expect(lost).toEqual([{ err: new Error('gone'), name: 'introspection.denied', clientId: 'beside' }])
  })
})
