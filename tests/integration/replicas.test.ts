// Several replicas over one database: keys, sessions and sign-ins are shared; keys rotate without a failed verification.
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { createKeys } from '../../src/oidc/keys.ts'
import { Browser, introspect, obtainTokens, post } from '../support/client.ts'
import { startServer, type TestServer, testSecret } from '../support/server.ts'

let server: TestServer
let replica: TestServer
beforeAll(async () => {
  server = await startServer('postgres')
  replica = await startServer('postgres', { share: server })
})
afterAll(async () => {
  await replica.close()
  await server.close()
})

/** Asks the second replica under the issuer's host, as a load balancer would. */
async function askReplica(
  path: string,
  init: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<{ status: number; text: string }> {
  const { request } = await import('node:http')
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: '127.0.0.1',
        port: replica.port,
        path,
        method: init.method ?? 'GET',
        headers: { ...init.headers, host: new URL(server.issuer).host },
      },
      (answer) => {
        let text = ''
        answer.on('data', (chunk: Buffer) => {
          text += chunk.toString()
        })
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text }))
      },
    )
    outgoing.on('error', reject)
    outgoing.end(init.body)
  })
}

describe('F96: two replicas', () => {
  it('share keys and tokens', async () => {
    const tokens = await obtainTokens(server, 'first')
    expect((await askReplica('/oauth/jwks')).text).toBe(await (await fetch(`${server.issuer}/oauth/jwks`)).text())
    const userinfo = await askReplica('/oauth/userinfo', {
      headers: { authorization: `Bearer ${tokens.access_token}` },
    })
    expect(userinfo.status).toBe(200)
    await post(server, '/oauth/revoke', 'first', { token: tokens.access_token })
    expect(
      (await askReplica('/oauth/userinfo', { headers: { authorization: `Bearer ${tokens.access_token}` } })).status,
    ).toBe(401)
  })

  it('rotate keys: announced first, then signing, old tokens verify throughout', async () => {
    const keys = createKeys(server.database.kysely, createSecrets(testSecret))
    const idToken = async () => (await obtainTokens(server, 'first', {}, new Browser(server))).id_token
    const old = await idToken()
    await keys.rotate()
    await expect(keys.rotate()).rejects.toThrow('under way')
    await Promise.all([server.server.refreshKeys(), replica.server.refreshKeys()])
    const published = JSON.parse((await askReplica('/oauth/jwks')).text) as { keys: { kid: string }[] }
    expect(published.keys).toHaveLength(4)
    expect(decodeProtectedHeader(await idToken()).kid, 'a new key only announces itself').toBe(
      decodeProtectedHeader(old).kid,
    )

    await server.database.kysely
      .updateTable('signing_keys')
      .set((eb) => ({ promote_at: eb.fn<Date>('now') }))
      .where('promote_at', '>', new Date())
      .execute()
    await server.database.kysely
      .updateTable('signing_keys')
      .set({ retire_at: new Date(Date.now() + 86_399_000) })
      .where('retire_at', 'is not', null)
      .execute()
    await Promise.all([server.server.refreshKeys(), replica.server.refreshKeys()])
    const fresh = await idToken()
    expect(decodeProtectedHeader(fresh).kid).not.toBe(decodeProtectedHeader(old).kid)
    const jwks = createRemoteJWKSet(new URL(`${server.issuer}/oauth/jwks`))
    for (const token of [old, fresh]) await jwtVerify(token, jwks, { issuer: server.issuer })

    await server.database.kysely
      .updateTable('signing_keys')
      .set({ retire_at: new Date(Date.now() - 1_000) })
      .where('retire_at', 'is not', null)
      .execute()
    expect(await keys.purge()).toBe(2)
    expect((await keys.list()).map((key) => key.state)).toEqual(['signing', 'signing'])
  })
})

describe('F97: stopping', () => {
  it('answers what is under way', async () => {
    const own = await startServer('postgres', { poolSize: 2 })
    const tokens = await obtainTokens(own, 'first')
    // The database is busy for a second, so that every request is under way when stopping begins.
    const busy = [1, 2].map(() => own.database.run('select pg_sleep(1)', []))
    const asked = Array.from({ length: 20 }, () => introspect(own, tokens.access_token))
    await new Promise((resolve) => setTimeout(resolve, 400))
    const closed = own.close()
    const answers = await Promise.allSettled(asked)
    await Promise.all([closed, ...busy])
    for (const answer of answers) expect(answer).toMatchObject({ status: 'fulfilled', value: { active: true } })
  })
})
