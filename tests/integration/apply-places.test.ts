// The places that an apply file gives and takes: in the audit log and told to webhooks as when an administrator does it. A
// file that moved somebody to another organisation left them signed in for the one they came from.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, obtainTokens, signIn } from '../support/client.ts'
import { databaseKinds, password, startServer, type TestServer } from '../support/server.ts'

describe.each(databaseKinds)('places that a file gives on %s', (kind) => {
  let server: TestServer
  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  beforeAll(async () => {
    server = await startServer(kind)
    await run(
      `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
        select 'wh_' || slug, id, 'https://127.0.0.1:9', '{membership.created,membership.updated,membership.ended}', 'sealed'
        from mlpipes_auth.organizations where slug in ('mercy', 'hope')`,
    )
  })
  afterAll(() => server.close())
  beforeEach(() => run('delete from mlpipes_auth.deliveries'))

  let count = 0
  const somebody = (extra: object = {}) => {
    count += 1
    const email = `placed${count}@mercy.example`
    const person = { email, name: 'Placed', organization: 'mercy', emailVerified: true, password, ...extra }
    return { email, apply: (change: object = {}) => server.apply({ accounts: [{ ...person, ...change }] }) }
  }
  const idOf = async (email: string) =>
    String((await run('select id from mlpipes_auth.accounts where email = $1', [email]))[0]?.['id'])
  /** Newest last: what stands in the log of places, each with its organisation. */
  const logged = (email: string) =>
    run(
      `select e.name, o.slug, e.actor_type, e.details from mlpipes_auth.audit_events e
        join mlpipes_auth.organizations o on o.id = e.organization_id join mlpipes_auth.accounts a on a.id = e.account_id
        where a.email = $1 and e.name like 'membership.%' order by e.id`,
      [email],
    )
  const told = async () =>
    (await run('select webhook_id, body from mlpipes_auth.deliveries where webhook_id is not null order by id')).map(
      (row) => ({ hook: row['webhook_id'], ...Object(row['body']) }),
    )
  const by = { actor_type: 'operator' }

  it('are told of with a new account, once', async () => {
    const { email, apply } = somebody({ roles: ['nurse'] })
    await apply()
    await apply()
    const roles = ['nurse']
    expect(await logged(email)).toEqual([{ ...by, name: 'membership.created', slug: 'mercy', details: { roles } }])
    const data = { accountId: await idOf(email), roles }
    expect(await told()).toEqual([{ hook: 'wh_mercy', type: 'membership.created', data }])
  })

  it('are told of when their roles change, and not when anything else does', async () => {
    const { email, apply } = somebody({ roles: ['nurse'] })
    await apply()
    await run('delete from mlpipes_auth.deliveries')
    await apply({ name: 'Renamed' })
    expect(await told()).toEqual([])
    await apply({ roles: ['nurse', 'physician'] })
    const details = { roles: ['nurse', 'physician'], rolesBefore: ['nurse'] }
    expect((await logged(email)).slice(1)).toEqual([{ ...by, name: 'membership.updated', slug: 'mercy', details }])
    const data = { accountId: await idOf(email), ...details }
    expect(await told()).toEqual([{ hook: 'wh_mercy', type: 'membership.updated', data }])
    const [place] = await run('select version from mlpipes_auth.memberships where account_id = $1', [data.accountId])
    expect(place, 'a change that an administrator under way has to see').toEqual({ version: 2 })
  })

  it('end with all that they gave when somebody moves to another organisation', async () => {
    const { email, apply } = somebody()
    await apply()
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'), email)
    const { access_token } = await obtainTokens(
      server,
      'first',
      { scope: 'openid offline_access', prompt: 'consent' },
      browser,
    )
    await run('delete from mlpipes_auth.deliveries')
    await apply({ organization: 'hope', roles: ['visitor'] })
    expect((await logged(email)).slice(1)).toEqual([
      { ...by, name: 'membership.ended', slug: 'mercy', details: { roles: ['member'] } },
      { ...by, name: 'membership.created', slug: 'hope', details: { roles: ['visitor'] } },
    ])
    const accountId = await idOf(email)
    expect(await told()).toEqual([
      { hook: 'wh_mercy', type: 'membership.ended', data: { accountId } },
      { hook: 'wh_hope', type: 'membership.created', data: { accountId, roles: ['visitor'] } },
    ])
    const sessions = await run('select end_reason from mlpipes_auth.sessions where account_id = $1', [accountId])
    expect(sessions).toEqual([{ end_reason: 'membership_ended' }])
    expect((await introspect(server, access_token))['active']).toBe(false)
    const places = await run('select home, roles from mlpipes_auth.memberships where account_id = $1', [accountId])
    expect(places).toEqual([{ home: true, roles: ['visitor'] }])
    expect((await signIn(new Browser(server), authorizationUrl(server, 'first'), email)).url).toContain('code=')
  })

  it('stay what they are when a guest comes home with the same roles', async () => {
    const { email, apply } = somebody()
    await apply()
    await run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{member}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email = $1 and o.slug = 'hope'`,
      [email],
    )
    await apply({ organization: 'hope' })
    expect((await logged(email)).slice(1)).toMatchObject([{ name: 'membership.ended', slug: 'mercy' }])
    const places = await run('select home from mlpipes_auth.memberships where account_id = $1', [await idOf(email)])
    expect(places).toEqual([{ home: true }])
  })
})
