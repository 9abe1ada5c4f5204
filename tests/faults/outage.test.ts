// What a database outage does: 503 while it lasts, no dead process, no half state, recovery by itself.
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { authorizationUrl, Browser, basic, introspect, obtainTokens, post } from '../support/client.ts'
import { startPostgres } from '../support/postgres.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres', { poolSize: 4 })
})
afterAll(() => server.close())

const asAdmin = async (query: string) => {
  const admin = new pg.Client({ connectionString: inject('postgresAdminUrl') })
  await admin.connect()
  await admin.query(query, [new URL(server.appUrl ?? '').pathname.slice(1)])
  await admin.end()
}

describe('F94, D8: connections that are cut', () => {
  it('idle ones are replaced, and the next request works', async () => {
    expect((await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })).status).toBe(200)
    await asAdmin('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1')
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect((await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })).status).toBe(200)
  })

  it('one that is cut between two statements of a transaction ends that transaction alone', async () => {
    const cut = server.database.kysely.transaction().execute(async (tx) => {
      await tx.selectFrom('accounts').select('id').execute()
      await asAdmin('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1')
      await new Promise((resolve) => setTimeout(resolve, 200))
      await tx.selectFrom('accounts').select('id').execute()
    })
    await expect(cut).rejects.toThrow()
    expect((await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })).status).toBe(200)
  })
})

describe('F93: a pool without a free connection', () => {
  it('answers 503 in time, stays live, and recovers', async () => {
    const held = Array.from({ length: 4 }, () => server.database.run('select pg_sleep(9)', []))
    await new Promise((resolve) => setTimeout(resolve, 100))
    const refused = await fetch(`${server.issuer}/oauth/introspect`, {
      method: 'POST',
      headers: { authorization: basic('api') },
      body: new URLSearchParams({ token: 'x' }),
    })
    expect(refused.status).toBe(503)
    expect(refused.headers.get('retry-after')).toBeTruthy()
    expect(await refused.json()).toMatchObject({ error: 'temporarily_unavailable' })
    const page = await new Browser(server).request(authorizationUrl(server, 'first').url)
    expect(page.status).toBe(503)
    expect(page.text).toContain('Request id')
    expect((await fetch(`${server.issuer}/healthz`)).status).toBe(200)
    await Promise.all(held)
    expect((await fetch(`${server.issuer}/readyz`)).status).toBe(200)
    expect((await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })).status).toBe(200)
  })
})

describe('F85: an audit row that cannot be written', () => {
  it('takes the act with it: no token without its row', async () => {
    const tokens = await obtainTokens(server, 'first')
    const owner = new pg.Client({ connectionString: server.ownerUrl })
    await owner.connect()
    await owner.query('revoke insert on mlpipes_auth.audit_events from mlpipes_auth_app')
    await owner.query(
      'revoke insert (name, outcome, actor_type, actor_id, account_id, organization_id, session_uid, client_id, ip, user_agent, request_id, details) on mlpipes_auth.audit_events from mlpipes_auth_app',
    )
    const count = async () =>
      Number((await owner.query('select count(*) from mlpipes_auth.oidc_payloads')).rows[0]?.count)
    const before = await count()
    const form = { grant_type: 'refresh_token', refresh_token: tokens.refresh_token ?? '' }
    expect((await post(server, '/oauth/token', 'first', form)).status).toBeGreaterThanOrEqual(500)
    expect(
      (await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })).status,
    ).toBeGreaterThanOrEqual(500)
    expect(await count()).toBe(before)
    await owner.query(
      'grant insert (name, outcome, actor_type, actor_id, account_id, organization_id, session_uid, client_id, ip, user_agent, request_id, details) on mlpipes_auth.audit_events to mlpipes_auth_app',
    )
    await owner.end()
    const refreshed = await post(server, '/oauth/token', 'first', form)
    expect(refreshed.status, 'the refresh token was not spent').toBe(200)
    expect((await introspect(server, String(refreshed.body['access_token'])))['active']).toBe(true)
  })
})

describe('F94: a database that goes away and comes back', () => {
  it('gives 503 meanwhile and works again by itself', async () => {
    const postgres = await startPostgres()
    const own = await startServer('postgres', { adminUrl: postgres.adminUrl })
    const ask = async () => (await post(own, '/oauth/token', 'api', { grant_type: 'client_credentials' })).status
    expect(await ask()).toBe(200)
    const back = postgres.restart()
    const seen = new Set<number>()
    let isBack = false
    back.then(() => {
      isBack = true
    })
    while (!isBack) seen.add(await ask())
    expect([...seen].filter((status) => status !== 200 && status !== 503)).toEqual([])
    expect(seen).toContain(503)
    expect(await ask()).toBe(200)
    await own.close()
    await postgres.stop()
  })
})
