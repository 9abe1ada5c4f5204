// What may be used once is used once, under 20 parallel requests on a warm pool of a real PostgreSQL.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { spendTotpStep } from '../../src/credentials/totp.ts'
import { Browser, introspect, obtainCode, obtainTokens, post, redeem } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

const parallel = 20
const rounds = 5

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres', { poolSize: 25 })
  // A cold pool connects one by one and hides the race.
  await Promise.all(Array.from({ length: 25 }, () => server.database.run('select pg_sleep(0.05)', [])))
})
afterAll(() => server.close())

const together = <T>(work: () => Promise<T>) => Promise.all(Array.from({ length: parallel }, work))

describe('F03: an authorization code', () => {
  it('is redeemed once, and the replay ends what it gave', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const { code, verifier } = await obtainCode(server, 'first')
      const answers = await together(() => redeem(server, 'first', code, verifier))
      const winners = answers.filter((answer) => answer.status === 200)
      expect(winners).toHaveLength(1)
      expect(answers.filter((answer) => answer.body['error'] === 'invalid_grant')).toHaveLength(parallel - 1)
      expect(await introspect(server, String(winners[0]?.body['access_token']))).toEqual({ active: false })
    }
  })
})

describe('F04: a refresh token', () => {
  it('has one successor, and an honest race keeps the family alive', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const { refresh_token: token = '' } = await obtainTokens(server, 'first', {}, new Browser(server))
      const answers = await together(() =>
        post(server, '/oauth/token', 'first', { grant_type: 'refresh_token', refresh_token: token }),
      )
      const winners = answers.filter((answer) => answer.status === 200)
      expect(winners).toHaveLength(1)
      const next = String(winners[0]?.body['refresh_token'])
      const again = await post(server, '/oauth/token', 'first', { grant_type: 'refresh_token', refresh_token: next })
      expect(again.status).toBe(200)
    }
    expect((await server.audit('token.reuse_detected')).length).toBeGreaterThan(0)
  })

  it('used again later ends the family', async () => {
    const first = await obtainTokens(server, 'first', {}, new Browser(server))
    const form = { grant_type: 'refresh_token', refresh_token: first.refresh_token ?? '' }
    const second = await post(server, '/oauth/token', 'first', form)
    expect(second.status).toBe(200)
    await server.database.kysely
      .updateTable('oidc_payloads')
      .set({ consumed_at: new Date(Date.now() - 60_000) })
      .where('consumed_at', 'is not', null)
      .execute()
    expect((await post(server, '/oauth/token', 'first', form)).body['error']).toBe('invalid_grant')
    const successor = { grant_type: 'refresh_token', refresh_token: String(second.body['refresh_token']) }
    expect((await post(server, '/oauth/token', 'first', successor)).body['error']).toBe('invalid_grant')
    expect(await introspect(server, String(second.body['access_token']))).toEqual({ active: false })
  })
})

describe('F60: a TOTP step', () => {
  it('is spent once', async () => {
    const row = await server.database.kysely.selectFrom('totp_credentials').select('id').executeTakeFirstOrThrow()
    const spent = await together(() =>
      server.database.kysely.transaction().execute((tx) => spendTotpStep(tx, { id: row.id, step: 1_000_000 })),
    )
    expect(spent.filter(Boolean)).toHaveLength(1)
    const older = await server.database.kysely
      .transaction()
      .execute((tx) => spendTotpStep(tx, { id: row.id, step: 999_999 }))
    expect(older, 'an older step after a newer one').toBe(false)
  })
})
