// F95: two writers that collide. F91: JSON nested without end. F82: tables that shadow tables.
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isOutage, maxCollisionRetries, retryCollisions } from '../../src/db/pg-errors.ts'
import { transact } from '../../src/db/transaction.ts'
import { authorizationUrl, Browser, obtainTokens } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres')
})
afterAll(() => server.close())

describe('F95: a deadlock', () => {
  it('is run again by whoever PostgreSQL rolled back, and both writes stand', async () => {
    const [one = '', two = ''] = (
      await server.database.kysely.selectFrom('accounts').select('id').limit(2).execute()
    ).map((row) => row.id)
    let runs = 0
    const lockBoth = (first: string, second: string) =>
      transact(server.database.kysely, async (tx) => {
        runs += 1
        const touch = (id: string) =>
          tx.updateTable('accounts').set({ updated_at: new Date() }).where('id', '=', id).execute()
        await touch(first)
        await new Promise((resolve) => setTimeout(resolve, runs <= 2 ? 200 : 0))
        await touch(second)
        return 'done'
      })
    expect(await Promise.all([lockBoth(one, two), lockBoth(two, one)])).toEqual(['done', 'done'])
    expect(runs, 'one of them ran twice').toBe(3)
  })

  it('that never ends is an outage after the last retry', async () => {
    let runs = 0
    const failing = retryCollisions(async () => {
      runs += 1
      throw Object.assign(new Error('deadlock detected'), { code: '40P01' })
    })
    await expect(failing).rejects.toSatisfy(isOutage)
    expect(runs).toBe(1 + maxCollisionRetries)
  })

  it('anything else is not tried twice', async () => {
    let runs = 0
    const failing = retryCollisions(async () => {
      runs += 1
      throw Object.assign(new Error('duplicate key'), { code: '23505' })
    })
    await expect(failing).rejects.toThrow('duplicate key')
    expect(runs).toBe(1)
  })
})

describe('F91: claims nested without end', () => {
  const nested = (depth: number) => {
    const value = `${'['.repeat(depth)}1${']'.repeat(depth)}`
    // Three levels stand around the value.
    return `{"id_token":{"name":{"value":${value}}}}`
  }
  const ask = async (method: 'GET' | 'POST', claims: string) => {
    const browser = new Browser(server)
    const { url } = authorizationUrl(server, 'first', { claims })
    const first =
      method === 'GET'
        ? await browser.request(url)
        : await browser.request('/oauth/authorize', { form: Object.fromEntries(new URL(url).searchParams) })
    return browser.follow(first)
  }
  it('is taken up to the limit and refused one past it', async () => {
    expect((await ask('GET', nested(29))).text).toContain('name="password"')
    expect((await ask('GET', nested(30))).url).toContain('error=invalid_request')
  })
  it.each([1_000, 5_000])('is refused at %i levels by POST without a fault', async (depth) => {
    const answer = await ask('POST', nested(depth))
    expect(answer.status).toBeLessThan(500)
    expect(answer.url + answer.text).toMatch(/invalid_request|cannot be read|too/)
  })
})

describe('F82: a temporary table of the same name', () => {
  it('changes nothing, even where an administrator gave the right to make one', async () => {
    const own = await startServer('postgres', { poolSize: 1 })
    const owner = new pg.Client({ connectionString: own.ownerUrl })
    await owner.connect()
    await owner.query(
      `grant temporary on database ${new URL(own.ownerUrl ?? '').pathname.slice(1)} to mlpipes_auth_app`,
    )
    await owner.end()
    for (const table of ['audit_events', 'accounts', 'sessions', 'oidc_payloads', 'consents'])
      await own.database.run(`create temporary table ${table} (x integer)`, [])
    await obtainTokens(own, 'ehr')
    expect((await own.audit('login.succeeded')).length).toBe(1)
    const shadowed = await own.database.run('select count(*)::integer as count from pg_temp.audit_events', [])
    expect(shadowed[0]?.['count']).toBe(0)
    await own.close()
  })
})
