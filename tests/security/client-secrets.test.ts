// F08: guessing at the secret of a client. So many wrong ones from one network, and none is looked at for a while.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSecretGuesses } from '../../src/credentials/client-secrets.ts'
import { throttleLimits } from '../../src/credentials/throttle.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { basic, post, type Tokens } from '../support/client.ts'
import { type Replicas, startReplicas } from '../support/replicas.ts'
import { people, secretOf, type TestServer, testSecret } from '../support/server.ts'

const { tries, windowSeconds } = throttleLimits.wrongSecretsPerClientAndAddress
const unknownToken = 'x'.repeat(43)
const form = { grant_type: 'client_credentials', scope: 'openid' }
const inBody = {
  client_id: 'in-body',
  client_secret: secretOf('in-body'),
  client_name: 'In Body',
  organization: 'mercy',
  token_endpoint_auth_method: 'client_secret_post' as const,
  grant_types: ['client_credentials' as const],
  scope: 'openid',
}

let server: TestServer
let replicas: Replicas
/** A network that no other test has come from. */
let home: string
let networks = 0
beforeAll(async () => {
  const environment = { TRUSTED_PROXIES: '127.0.0.1' }
  replicas = await startReplicas({ environment, seed: { ...people, clients: [...(people.clients ?? []), inBody] } })
  server = replicas.here
})
beforeEach(() => {
  networks += 1
  home = `198.51.100.${networks}`
  server.clock.now = undefined
  replicas.ask('here')
})
afterAll(() => replicas.close())

interface Sending {
  readonly from?: string
  readonly path?: string
  readonly form?: Record<string, string>
}
/** Asks for a token, or whatever `path` gives, with this secret in the header. */
const send = (id: string, secret: string, sending: Sending = {}): Promise<Tokens> => {
  const { from = home, path = '/oauth/token' } = sending
  return post(server, path, id, sending.form ?? form, {
    authorization: basic(id, secret),
    'x-forwarded-for': from,
  })
}
const fail = async (count: number, sending: Sending = {}) => {
  const statuses: number[] = []
  for (let index = 0; index < count; index += 1)
    statuses.push((await send('api', `wrong-secret-${index}`, sending)).status)
  return statuses
}
const rows = async () =>
  (await server.database.run('select sum(failures)::integer as failures from mlpipes_auth.sign_in_attempts', []))[0]

describe('wrong secrets of a client', () => {
  it('are taken at the limit, and one past it stops even the right one, until the window is over', async () => {
    expect(await fail(tries - 1)).toEqual(Array(tries - 1).fill(401))
    expect((await send('api', secretOf('api'))).status, 'the right one, before the limit').toBe(200)
    expect(await fail(1)).toEqual([401])
    const refused = await send('api', 'wrong-secret')
    expect(refused).toMatchObject({ status: 429, body: { error: 'temporarily_unavailable' } })
    const seconds = Number(refused.headers.get('retry-after'))
    expect(seconds).toBeGreaterThan(0)
    expect(seconds).toBeLessThanOrEqual(windowSeconds)
    expect((await send('api', secretOf('api'))).status, 'the right one, after it').toBe(429)
    await server.database.run('update mlpipes_auth.sign_in_attempts set window_ends_at = now()', [])
    server.clock.now = new Date(Date.now() + windowSeconds * 1_000)
    expect((await send('api', secretOf('api'))).status, 'when it is over').toBe(200)
    expect(await fail(1)).toEqual([401])
    expect((await send('api', secretOf('api'))).status).toBe(200)
  })

  it('stop neither another client nor another network', async () => {
    await fail(tries)
    expect((await send('api', secretOf('api'))).status).toBe(429)
    expect((await send('nosy', secretOf('nosy'))).status).toBe(200)
    expect((await send('api', secretOf('api'), { from: '203.0.113.7' })).status).toBe(200)
  })

  it('count together from one /64, and apart from the next', async () => {
    for (let index = 0; index < tries; index += 1)
      expect((await send('api', 'wrong-secret', { from: `2001:db8:0:1::${index + 1}` })).status).toBe(401)
    expect((await send('api', secretOf('api'), { from: '2001:db8:0:1:ffff::1' })).status).toBe(429)
    expect((await send('api', secretOf('api'), { from: '2001:db8:0:2::1' })).status).toBe(200)
  })

  it.each(['/oauth/token', '/oauth/introspect', '/oauth/par', '/oauth/device', '/oauth/revoke'])(
    'count at %s, and stop it and all others',
    async (path) => {
      const sending = { path, form: { token: unknownToken, ...form } }
      expect(await fail(tries, sending)).toEqual(Array(tries).fill(401))
      for (const other of ['/oauth/token', '/oauth/introspect', '/oauth/par', '/oauth/device', '/oauth/revoke'])
        expect((await send('api', secretOf('api'), { ...sending, path: other })).status, other).toBe(429)
    },
  )

  it('stop the introspection that goes past the provider', async () => {
    const usual = { path: '/oauth/introspect', form: { token: unknownToken } }
    expect(await send('api', secretOf('api'), usual)).toMatchObject({ status: 200, body: { active: false } })
    expect(await fail(tries, usual)).toEqual(Array(tries).fill(401))
    const refused = await send('api', secretOf('api'), usual)
    expect(refused).toMatchObject({ status: 429, body: { error: 'temporarily_unavailable' } })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await send('api', secretOf('api'), { ...usual, from: '203.0.113.7' })).status).toBe(200)
    expect((await send('foreign', secretOf('foreign'), usual)).status).toBe(200)
  })

  it('count in the body as in the header', async () => {
    const ask = (client_secret: string) =>
      post(
        server,
        '/oauth/token',
        'in-body',
        { ...form, client_id: 'in-body', client_secret },
        { 'x-forwarded-for': home, authorization: '' },
      )
    for (let index = 0; index < tries; index += 1) expect((await ask('wrong-secret')).status).toBe(401)
    expect((await ask(secretOf('in-body'))).status).toBe(429)
  })

  it('get no further when they are sent at once', async () => {
    const answers = await Promise.all(Array.from({ length: 3 * tries }, (_, index) => send('api', `wrong-${index}`)))
    const statuses = answers.map(({ status }) => status).sort()
    expect(statuses).toEqual([...Array(tries).fill(401), ...Array(2 * tries).fill(429)])
  })

  it('of all replicas are one count, which each learns at its next wrong one', async () => {
    expect(await fail(tries - 1)).toEqual(Array(tries - 1).fill(401))
    replicas.ask('there')
    expect(await fail(2)).toEqual([401, 429])
    expect((await send('api', secretOf('api'))).status).toBe(429)
    replicas.ask('here')
    expect(await fail(2)).toEqual([401, 429])
  })

  it('write, and nothing else does: neither the right one, nor a refused one, nor a client that there is not', async () => {
    const before = await rows()
    await send('api', secretOf('api'))
    await send('api', secretOf('api'), { path: '/oauth/introspect', form: { token: unknownToken } })
    await send('nobody', 'wrong-secret')
    expect(await rows()).toEqual(before)
    await fail(tries)
    const full = await rows()
    expect(Number(full?.['failures'])).toBe(Number(before?.['failures']) + tries)
    await fail(3)
    expect(await rows()).toEqual(full)
  })
})

describe('what a replica keeps in mind', () => {
  const kept = (mostRemembered: number, now: () => Date = () => new Date()) => {
    const { database } = server
    const limit = { tries: 1, windowSeconds: 60 }
    return createSecretGuesses({ database, secrets: createSecrets(testSecret), now, limit, mostRemembered })
  }

  it('is bounded: beyond that the oldest is forgotten here, and known again from the database', async () => {
    const guesses = kept(2)
    const paused = () => ['one', 'two', 'three'].filter((id) => guesses.pauseSeconds(id, home) !== undefined)
    expect(guesses.isQuiet()).toBe(true)
    await guesses.count('one', home)
    await guesses.count('two', home)
    expect(paused()).toEqual(['one', 'two'])
    await guesses.count('three', home)
    expect(paused()).toEqual(['two', 'three'])
    await guesses.count('one', home)
    expect(paused()).toEqual(['one', 'three'])
  })

  it('goes when its window is over', async () => {
    let now = new Date()
    const guesses = kept(3, () => now)
    for (const id of ['four', 'five', 'six']) await guesses.count(id, home)
    now = new Date(Date.now() + 61_000)
    expect(guesses.pauseSeconds('four', home)).toBeUndefined()
    now = new Date()
    await guesses.count('seven', home)
    expect(guesses.pauseSeconds('four', home), 'the oldest').toBeUndefined()
    expect(guesses.pauseSeconds('five', home)).toBeGreaterThan(0)
  })

  // A database that answers nothing must not keep a count open for ever.
  it('counts nothing that the database did not take', async () => {
    const refusing = { ...server.database, run: () => Promise.reject(new Error('gone')) }
    const limit = { tries: 1, windowSeconds: 60 }
    const parts = { database: refusing, secrets: createSecrets(testSecret), now: () => new Date(), limit }
    const guesses = createSecretGuesses(parts)
    const counting = guesses.count('eight', home)
    expect(guesses.pauseSeconds('eight', home), 'while it is asked').toBe(1)
    await expect(counting).rejects.toThrow('gone')
    expect(guesses.pauseSeconds('eight', home)).toBeUndefined()
  })
})
