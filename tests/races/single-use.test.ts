// What may be used once is used once, under 20 parallel requests on a warm pool of a real PostgreSQL.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { spendTotpStep } from '../../src/credentials/totp.ts'
import { sha256 } from '../../src/crypto/secrets.ts'
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
  const refresh = (token: unknown) =>
    post(server, '/oauth/token', 'first', { grant_type: 'refresh_token', refresh_token: String(token) })
  const refused = { status: 400, body: { error: 'invalid_grant' } }

  /** What the log says about uses of this token after the first. */
  async function reuses(token: string) {
    const hash = sha256(token)
    return (await server.audit('token.reuse_detected')).filter(
      (event) => Reflect.get(Object(event.details), 'tokenHash') === hash,
    )
  }
  const reuse = (token: string, withinGrace: boolean) => ({
    outcome: 'failure',
    actorType: 'client',
    actorId: 'first',
    accountId: expect.stringMatching(/^acc_/),
    clientId: 'first',
    details: { kind: 'RefreshToken', withinGrace, tokenHash: sha256(token) },
  })

  /** Tokens of a person, and those that their refresh token was exchanged for so many seconds ago. */
  async function exchanged(secondsAgo: number) {
    const { refresh_token: token = '', access_token: accessToken } = await obtainTokens(server, 'first')
    const next = await refresh(token)
    expect(next.status).toBe(200)
    const moved = await server.database.run(
      `update mlpipes_auth.oidc_payloads set consumed_at = now() - $2::integer * interval '1 second'
        where id_hash = $1 and consumed_at is not null returning 1`,
      [sha256(token), secondsAgo],
    )
    expect(moved).toHaveLength(1)
    return { token, next: next.body, accessTokens: [accessToken, String(next.body['access_token'])] }
  }

  it('has one successor, and an honest race keeps the family alive', async () => {
    const revokedBefore = await server.audit('token.revoked')
    for (let round = 0; round < rounds; round += 1) {
      const { refresh_token: token = '' } = await obtainTokens(server, 'first', {}, new Browser(server))
      const answers = await together(() => refresh(token))
      const winners = answers.filter((answer) => answer.status === 200)
      expect(winners).toHaveLength(1)
      const losers = answers.filter((answer) => answer.status !== 200)
      expect(losers).toHaveLength(parallel - 1)
      for (const loser of losers) expect(loser).toMatchObject(refused)
      const events = await reuses(token)
      expect(events).toHaveLength(parallel - 1)
      for (const event of events) expect(event).toMatchObject(reuse(token, true))
      expect(await introspect(server, String(winners[0]?.body['access_token']))).toMatchObject({ active: true })
      expect((await refresh(winners[0]?.body['refresh_token'])).status).toBe(200)
    }
    expect(await server.audit('token.revoked')).toEqual(revokedBefore)
  })

  // Seconds are rounded to whole ones: 8 leave a slow machine one and a half.
  it('used again within 10 seconds is refused, and ends nothing', async () => {
    const { token, next, accessTokens } = await exchanged(8)
    expect(await refresh(token)).toMatchObject(refused)
    expect(await reuses(token)).toMatchObject([reuse(token, true)])
    for (const accessToken of accessTokens)
      expect(await introspect(server, accessToken)).toMatchObject({ active: true })
    expect((await refresh(next['refresh_token'])).status).toBe(200)
  })

  it('used again after 10 seconds ends the family', async () => {
    const { token, next, accessTokens } = await exchanged(10)
    expect(await refresh(token)).toMatchObject(refused)
    const [reused, ...more] = await reuses(token)
    expect(reused).toMatchObject({ ...reuse(token, false), requestId: expect.any(String) })
    expect(more).toEqual([])
    // In the same breath: this token itself, and whatever else its grant gave, by kind.
    const revoked = (await server.audit('token.revoked')).filter((event) => event.requestId === reused?.requestId)
    expect(revoked.map((event) => event.details)).toEqual(
      expect.arrayContaining([
        { kind: 'RefreshToken', tokenHash: sha256(token) },
        { kind: 'RefreshToken' },
        { kind: 'AccessToken' },
      ]),
    )
    expect(revoked).toHaveLength(3)
    for (const accessToken of accessTokens) expect(await introspect(server, accessToken)).toEqual({ active: false })
    expect(await refresh(next['refresh_token'])).toMatchObject(refused)
    expect(await refresh(token), 'and for good').toMatchObject(refused)
  })

  it('used again by 20 after 10 seconds gives none of them anything', async () => {
    const { token, next, accessTokens } = await exchanged(60)
    for (const answer of await together(() => refresh(token))) expect(answer).toMatchObject(refused)
    // The first of them ended it, and there was nothing left to use again.
    expect(await reuses(token)).toMatchObject([reuse(token, false)])
    for (const accessToken of accessTokens) expect(await introspect(server, accessToken)).toEqual({ active: false })
    expect(await refresh(next['refresh_token'])).toMatchObject(refused)
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
