// F17: one clock, the database's, for everything that is stored; a small tolerance for what others sign.
import type { webcrypto } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { introspect, obtainTokens } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

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

describe('F17: clocks', () => {
  it.each([
    [{ nbf: 5, exp: 60 }, 200],
    [{ nbf: 30, exp: 60 }, 401],
    [{ exp: -5 }, 200],
    [{ exp: -30 }, 401],
    [{ iat: 5, exp: 60 }, 200],
  ])('an assertion with times %o from now gives %i', async (times, expected) => {
    const now = Math.floor(Date.now() / 1000)
    const claims = Object.fromEntries(Object.entries(times).map(([name, seconds]) => [name, now + seconds]))
    const assertion = await new SignJWT({
      iss: 'asserting',
      sub: 'asserting',
      aud: server.issuer,
      jti: crypto.randomUUID(),
      ...claims,
    })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
      .sign(privateKey)
    const answer = await fetch(`${server.issuer}/oauth/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'client_credentials',
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: assertion,
      }),
    })
    expect(answer.status).toBe(expected)
  })

  it.each([-60, 0, 60])('a replica whose clock is %i s off gives a session the same length', async (seconds) => {
    server.clock.now = new Date(Date.now() + seconds * 1_000)
    await obtainTokens(server, 'first')
    server.clock.now = undefined
    const event = (await server.audit('session.created'))[0]
    const row = await server.database.kysely
      .selectFrom('sessions')
      .select([
        sql<number>`extract(epoch from absolute_expires_at - created_at)::float`.as('absolute'),
        sql<number>`extract(epoch from signed_in_at - created_at)::float`.as('signed_in'),
      ])
      .where('uid', '=', event?.sessionUid ?? '')
      .executeTakeFirstOrThrow()
    expect(event?.details).toMatchObject({ absoluteSeconds: Math.round(row.absolute - row.signed_in) })
    expect(Math.abs(row.signed_in)).toBeLessThan(5)
  })

  it('the tolerance does not reach what is stored: a token that expired this second is inactive', async () => {
    const { access_token } = await obtainTokens(server, 'first')
    await server.database.kysely
      .updateTable('oidc_payloads')
      .set({ expires_at: sql<Date>`now()` })
      .where('model', '=', 'AccessToken')
      .execute()
    expect(await introspect(server, access_token)).toEqual({ active: false })
  })
})
