// An organisation that closes: which apps hear that their people are signed out, and that each hears once.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { transact } from '../../src/db/transaction.ts'
import { endOrganizationAccess, finishClosing, finishClosings } from '../../src/sessions/closing.ts'
import { endMembershipAccess } from '../../src/sessions/parting.ts'
import { barePostgres } from '../support/bare-database.ts'
import { authorizationUrl, Browser, introspect, obtainTokens, signIn } from '../support/client.ts'
import { databaseKinds, password, startServer, type TestServer } from '../support/server.ts'
import { app, deliveryRows, open, type Receiver, seed, startReceiver, until, verifyLogout } from './support.ts'

describe.each(databaseKinds)('an organisation that closes on %s', (kind) => {
  let server: TestServer
  let receiver: Receiver
  beforeAll(async () => {
    receiver = await startReceiver()
    const told = (id: string) => ({ backchannel_logout_uri: `${receiver.url}/${id}` })
    const file = seed(
      app('ours', told('ours')),
      app('vendor', { ...told('vendor'), organization: 'hope' }),
      app('picky', { ...told('picky'), organization: 'hope', backchannel_logout_causes: ['disabled'] }),
      app('deaf', { organization: 'hope' }),
      app('spare', told('spare')),
    )
    const vera = { email: 'vera@hope.example', name: 'Vera', organization: 'hope', password, emailVerified: true }
    server = await startServer(kind, { seed: { ...file, accounts: [...(file.accounts ?? []), vera] } })
    await server.database.run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{visitor}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email = 'ada@mercy.example' and o.slug = 'hope'`,
      [],
    )
  })
  afterAll(async () => {
    await server.close()
    await receiver.close()
  })
  beforeEach(async () => {
    await mark(false)
    // What the test before had others told may still be on its way.
    await until(async () => expect((await deliveryRows(server)).filter(isWaiting)).toEqual([]))
    receiver.calls.length = 0
  })

  const isWaiting = (row: { delivered_at: unknown; failed_at: unknown }) => !row.delivered_at && !row.failed_at
  const mark = (isClosed: boolean) =>
    server.database.run(
      `update mlpipes_auth.organizations set closed_at = case when $1::boolean then now() end where slug = 'hope'`,
      [isClosed],
    )
  async function close() {
    const [hope] = await server.database.run(`select id from mlpipes_auth.organizations where slug = 'hope'`, [])
    const organizationId = String(hope?.['id'])
    await mark(true)
    await transact(server.database.kysely, (tx) =>
      endOrganizationAccess(tx, { organizationId, actor: { type: 'system' }, origin: {} }),
    )
    await Promise.all([finishClosing(server.database, organizationId), finishClosings(server.database)])
  }
  const heard = async (uid: string) =>
    (await deliveryRows(server, uid)).map((row) => [row.client_id, row.body['cause']]).sort()
  const paths = () => receiver.calls.map((call) => call.path).sort()
  const closed = (clientId: string) => [clientId, 'organization_closed']

  it('tells its apps of everybody who was signed in there, and no others where the session goes on', async () => {
    const lee = await open(server, ['ours', 'vendor', 'picky', 'deaf'])
    const vera = await open(server, ['vendor', 'ours'], { email: 'vera@hope.example' })
    const guest = await open(server, ['ours', 'vendor'], { email: 'ada@mercy.example' })
    const inside = await guest.browser.request(
      authorizationUrl(server, 'vendor', { organization: 'hope', prompt: 'none' }).url,
    )
    expect(inside.headers.get('location')).toContain('code=')
    await close()
    expect(await heard(lee.uid)).toEqual([closed('vendor')])
    expect(await heard(guest.uid)).toEqual([closed('vendor')])
    expect(await heard(vera.uid), 'whose session ended').toEqual([closed('ours'), closed('vendor')])
    // A closed organisation's apps can do nothing more, but are told.
    await until(() => expect(paths()).toEqual(['/ours', '/vendor', '/vendor', '/vendor']))
    const sids = await Promise.all(
      receiver.calls
        .filter(({ path }) => path === '/vendor')
        .map(async (call) => (await verifyLogout(server, call, 'vendor')).payload['sid']),
    )
    expect(sids.sort()).toEqual([lee, vera, guest].map((one) => one.sidOf('vendor')).sort())
    const active = async (token = '') => (await introspect(server, token))['active']
    expect(await active(lee.tokens[0]?.access_token)).toBe(true)
    expect(await active(vera.tokens[1]?.access_token)).toBe(false)
    const silent = await lee.browser.request(authorizationUrl(server, 'ours', { prompt: 'none' }).url)
    expect(silent.headers.get('location')).toContain('code=')
  })

  it('tells every app of a session that ends, those of other organisations too, wherever it was begun', async () => {
    await server.database.run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{visitor}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email = 'vera@hope.example' and o.slug = 'mercy'`,
      [],
    )
    const there = (organization: string) => ({ organization, prompt: 'login' })
    const away = new Browser(server)
    await signIn(away, authorizationUrl(server, 'ours', there('mercy')), 'vera@hope.example')
    const guest = new Browser(server)
    await signIn(guest, authorizationUrl(server, 'ours', there('hope')), 'ada@mercy.example')
    const sessions = await server.database.run(
      `select s.uid, o.slug from mlpipes_auth.sessions s join mlpipes_auth.organizations o on o.id = s.organization_id
        where s.account_id is not null and s.ended_at is null order by s.created_at desc limit 2`,
      [],
    )
    expect(sessions.map(({ slug }) => slug)).toEqual(['hope', 'mercy'])
    await close()
    for (const { uid } of sessions) expect(await heard(String(uid))).toEqual([closed('ours')])
  })

  it('tells apps of others what they lose of a guest whose session goes on, and only them', async () => {
    const guest = await open(server, ['ours', 'spare'], { email: 'ada@mercy.example' })
    const there = await obtainTokens(server, 'ours', { organization: 'hope' }, guest.browser)
    expect((await introspect(server, there.access_token))['org_slug']).toBe('hope')
    await close()
    expect(await heard(guest.uid)).toEqual([closed('ours')])
    const active = async (token = '') => (await introspect(server, token))['active']
    expect(await active(there.access_token)).toBe(false)
    expect(await active(guest.tokens[1]?.access_token)).toBe(true)
    await close()
    expect(await heard(guest.uid), 'once').toHaveLength(1)
  })

  it('that lets a guest go tells apps of others what they lose, and only them', async () => {
    const guest = await open(server, ['ours', 'spare'], { email: 'ada@mercy.example' })
    const there = await obtainTokens(server, 'ours', { organization: 'hope' }, guest.browser)
    const [hope] = await server.database.run(`select id from mlpipes_auth.organizations where slug = 'hope'`, [])
    const by = { actor: { type: 'system' as const }, origin: {} }
    const leave = () =>
      transact(server.database.kysely, (tx) =>
        endMembershipAccess(tx, { ...by, accountId: guest.accountId, organizationId: String(hope?.['id']) }),
      )
    await leave()
    await until(() => expect(paths()).toEqual(['/ours']))
    expect(await heard(guest.uid)).toEqual([['ours', 'membership_ended']])
    const active = async (token = '') => (await introspect(server, token))['active']
    expect(await active(there.access_token)).toBe(false)
    expect(await active(guest.tokens[1]?.access_token)).toBe(true)
    await leave()
    expect(await heard(guest.uid), 'once').toHaveLength(1)
  })

  it('tells an app also when nothing is left of what it was given, and anew of who signed in since', async () => {
    const lee = await open(server, ['ours', 'vendor'])
    await server.database.run(`delete from mlpipes_auth.oidc_payloads where client_id = 'vendor'`, [])
    await close()
    await close()
    expect(await heard(lee.uid)).toEqual([closed('vendor')])
    await mark(false)
    const again = await lee.browser.request(authorizationUrl(server, 'vendor', { prompt: 'none' }).url)
    expect(again.headers.get('location')).toContain('code=')
    await close()
    expect(await heard(lee.uid)).toEqual([closed('vendor'), closed('vendor')])
    const sids = (await deliveryRows(server, lee.uid)).map(({ sid }) => sid)
    expect(new Set(sids).size).toBe(2)
  })
})

it('a vendor that closes is heard of once in each of many sessions, whatever stops the closing', async () => {
  const [here, there] = await barePostgres(2)
  if (!here || !there) throw new Error('no databases')
  const count = async (what: string) =>
    Number((await here.run(`select count(*) as n from mlpipes_auth.${what}`, []))[0]?.['n'])
  await here.run(
    `insert into mlpipes_auth.organizations (id, slug, name) values ('org_home', 'home', 'Home'), ('org_vendor', 'vendor', 'Vendor')`,
    [],
  )
  await here.run(
    `insert into mlpipes_auth.clients (client_id, organization_id, name, metadata)
      select id, organization, id, jsonb_build_object('backchannel_logout_uri', 'https://app.example/logout')
      from (values ('one', 'org_vendor'), ('other', 'org_vendor'), ('home', 'org_home')) as t (id, organization)`,
    [],
  )
  await here.run(
    `insert into mlpipes_auth.accounts (id, email, email_normalized, name, organization_id)
      values ('acc_1', 'a@home.example', 'a@home.example', 'Somebody', 'org_home')`,
    [],
  )
  await here.run(
    `with made as (
        insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, signed_in_at, idle_expires_at, absolute_expires_at)
        select 's' || n, 's' || n, '{"authorizations": {"one": {"sid": "1"}, "other": {"sid": "2"}, "home": {"sid": "3"}}}',
          'acc_1', 'org_home', now(), now() + interval '1 hour', now() + interval '1 hour' from generate_series(1, 1200) n returning uid)
      insert into mlpipes_auth.session_organizations (session_uid, organization_id) select uid, 'org_vendor' from made`,
    [],
  )
  await here.run(
    `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, account_id, client_id, expires_at)
      select 'Grant', 'g' || n, '{}', 'acc_1', 'one', now() + interval '1 hour' from generate_series(1, 2500) n`,
    [],
  )
  await here.run(`update mlpipes_auth.organizations set closed_at = now() where id = 'org_vendor'`, [])
  const closing = { organizationId: 'org_vendor', actor: { type: 'system' as const }, origin: {} }
  const first = await transact(here.kysely, (tx) => endOrganizationAccess(tx, closing))
  expect(first).toEqual({ sessions: 0, tokens: 0, isDone: false })
  expect(await count('deliveries')).toBe(1_000)
  await Promise.all([finishClosings(here), finishClosings(there)])
  expect(await count('deliveries')).toBe(2_400)
  const [each] = await here.run('select count(distinct (session_uid, client_id)) as n from mlpipes_auth.deliveries', [])
  expect(Number(each?.['n'])).toBe(2_400)
  expect(await count(`deliveries where client_id = 'home'`)).toBe(0)
  expect(await count('oidc_payloads')).toBe(0)
  expect(await count('sessions where ended_at is null')).toBe(1_200)
  expect(await here.run(`select distinct payload from mlpipes_auth.sessions`, [])).toEqual([
    { payload: { authorizations: { home: { sid: '3' } } } },
  ])
  await Promise.all([here.close(), there.close()])
})
