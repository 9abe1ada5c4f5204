// Somebody is always left to run the platform and every organisation that is open. The way round it was the home: whoever
// administers as a guest acts only for as long as their home is open and has not switched them off, and closing a home asked
// nobody. So the last platform_admin, at home in a hospital, could close the hospital and with it the platform.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { mainDatabase, password } from '../support/server.ts'
import { seededSecret } from '../support/totp.ts'
import { organizationId } from './matrix-rows.ts'
import { type AdminServer, problem, seed, signIn, startAdmin } from './support.ts'

const last = { status: 409, body: { type: problem('last_administrator') } }
const organizations = '/api/admin/organizations'

describe.each(mainDatabase)('administrators who are guests on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind, {
      ...seed,
      organizations: [...(seed.organizations ?? []), ...['north', 'south'].map((slug) => ({ slug, name: slug }))],
    })
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  const setRoles = (email: string, slug: string, roles: readonly string[]) =>
    run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
       select a.id, o.id, a.organization_id = o.id, $3 from mlpipes_auth.accounts a, mlpipes_auth.organizations o
       where a.email = $1 and o.slug = $2
       on conflict (account_id, organization_id) do update set roles = excluded.roles`,
      [email, slug, [...roles]],
    )
  const closed = async () =>
    (await run('select slug from mlpipes_auth.organizations where closed_at is not null order by slug')).map((row) =>
      String(row['slug']),
    )
  const close = async (token: string, slug: string) =>
    server.call(token, `${organizations}/${await organizationId(server, slug)}/close`, { body: {} })
  const root = () => signIn(server, 'root@platform.example')
  beforeEach(async () => {
    await run('update mlpipes_auth.organizations set closed_at = null where closed_at is not null')
    await run('update mlpipes_auth.accounts set disabled_at = null where disabled_at is not null')
    await run('delete from mlpipes_auth.memberships where not home')
    await setRoles('root@platform.example', 'platform', ['platform_admin'])
    await setRoles('admin@hope.example', 'hope', ['org_admin'])
    await setRoles('member@hope.example', 'hope', ['member'])
  })
  /** Somebody at home in an organisation who runs the platform as its guest; with the token for it. */
  async function keeper(slug: string) {
    const email = `keeper@${slug}.example`
    const account = { email, name: 'Keeper', password, organization: slug, roles: ['member'], emailVerified: true }
    await server.apply({ accounts: [{ ...account, totpSecret: seededSecret }] })
    await setRoles(email, 'platform', ['platform_admin'])
    const [row] = await run('select id from mlpipes_auth.accounts where email = $1', [email])
    return { id: String(row?.['id']), token: await signIn(server, email, { organization: 'platform' }) }
  }

  it('do not close the organisation that they are at home in', async () => {
    const { token } = await keeper('north')
    const answer = await close(token, 'north')
    expect(answer).toMatchObject({ status: 409, body: { type: problem('not_possible') } })
    expect(answer.body['errors']).toEqual([{ path: '', message: 'an organisation is not closed from within itself' }])
    expect(await closed()).toEqual([])
    expect((await server.call(token, '/api/admin/me')).status).toBe(200)
  })

  it('are not closed out of the platform, the last of them', async () => {
    await run("update mlpipes_auth.clients set permissions = '{platform:organizations}' where client_id = 'strong'")
    await setRoles('root@platform.example', 'platform', ['member'])
    await keeper('north')
    const service = await server.serviceToken('strong')
    const answer = await close(service, 'north')
    expect(answer).toMatchObject(last)
    expect(answer.body['errors']).toEqual([{ path: '', message: 'nobody would be left to run the platform' }])
    expect(await close(service, 'platform'), 'they hold it there').toMatchObject(last)
    expect(await closed()).toEqual([])
    expect((await server.audit('admin.access_denied'))[0]?.details).toMatchObject({
      operation: 'closeOrganization',
      reason: 'last_administrator',
    })
    // One who is switched off runs nothing.
    await setRoles('root@platform.example', 'platform', ['platform_admin'])
    const off = 'update mlpipes_auth.accounts set disabled_at = case when $2::boolean then now() end where email = $1'
    await run(off, ['root@platform.example', true])
    expect(await close(service, 'north')).toMatchObject(last)
    await run(off, ['root@platform.example', false])
    expect((await close(service, 'north')).status).toBe(200)
  })

  it('are not both closed out, when two close each other’s home at once', async () => {
    const [north, south] = [await keeper('north'), await keeper('south')]
    await setRoles('root@platform.example', 'platform', ['member'])
    const attempts = Array.from({ length: 20 }, (_, n) =>
      n % 2 === 0 ? close(north.token, 'south') : close(south.token, 'north'),
    )
    for (const { status } of await Promise.all(attempts)) expect([200, 401, 409]).toContain(status)
    expect(await closed()).toHaveLength(1)
  })

  it('are not the last of another organisation when theirs is closed; it is named, and closing waits for a successor', async () => {
    await setRoles('victim@mercy.example', 'hope', ['org_admin'])
    await setRoles('admin@hope.example', 'hope', ['member'])
    const token = await root()
    const answer = await close(token, 'mercy')
    expect(answer).toMatchObject(last)
    expect(answer.body['errors']).toEqual([{ path: '', message: 'without an org_admin would be left: hope' }])
    expect(answer.text, 'who it is stays untold').not.toContain('victim')
    expect(await closed()).toEqual([])
    expect(await server.audit('organization.closed').then((rows) => rows[0]?.details)).not.toMatchObject({
      slug: 'mercy',
    })
    await setRoles('admin@hope.example', 'hope', ['org_admin'])
    expect((await close(token, 'mercy')).status).toBe(200)
  })

  it('are left where they are needed, when the other one is demoted while theirs is closed', async () => {
    await setRoles('victim@mercy.example', 'hope', ['org_admin'])
    const token = await root()
    const hope = `?organization=${await organizationId(server, 'hope')}`
    const path = `/api/admin/users/${server.ids.get('admin@hope.example')}`
    const etag = (await server.call(token, `${path}${hope}`)).headers.get('etag') ?? ''
    const demote = () =>
      server.call(token, `${path}/roles${hope}`, {
        method: 'PUT',
        body: { roles: ['member'] },
        headers: { 'if-match': etag },
      })
    const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => (n % 2 ? demote() : close(token, 'mercy'))))
    for (const { status } of answers) expect([200, 409, 412]).toContain(status)
    const left = await run(
      `select a.email from mlpipes_auth.memberships m join mlpipes_auth.accounts a on a.id = m.account_id
         join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
       where m.organization_id = $1 and 'org_admin' = any(m.roles)`,
      [await organizationId(server, 'hope')],
    )
    expect(left).toHaveLength(1)
  })

  it('are cut off by their home all the same; the platform then appoints another', async () => {
    await setRoles('victim@mercy.example', 'hope', ['org_admin'])
    await setRoles('admin@hope.example', 'hope', ['member'])
    const home = await signIn(server, 'admin@mercy.example')
    const victim = `/api/admin/users/${server.ids.get('victim@mercy.example')}`
    expect(await server.call(home, `${victim}/disable`, { body: {} })).toMatchObject({
      status: 200,
      body: { disabledAt: expect.any(String) },
    })
    const token = await root()
    const hope = `?organization=${await organizationId(server, 'hope')}`
    const path = `/api/admin/users/${server.ids.get('member@hope.example')}`
    const etag = (await server.call(token, `${path}${hope}`)).headers.get('etag') ?? ''
    const given = await server.call(token, `${path}/roles${hope}`, {
      method: 'PUT',
      body: { roles: ['org_admin'] },
      headers: { 'if-match': etag },
    })
    expect(given).toMatchObject({ status: 200, body: { roles: ['org_admin'] } })
    const successor = await signIn(server, 'member@hope.example')
    expect((await server.call(successor, '/api/admin/users')).status).toBe(200)
  })

  it('are not switched off by their home, the last who runs the platform', async () => {
    const { id, token } = await keeper('north')
    await setRoles('root@platform.example', 'platform', ['member'])
    const north = `?organization=${await organizationId(server, 'north')}`
    const disable = () => server.call(token, `/api/admin/users/${id}/disable${north}`, { body: {} })
    expect(await disable()).toMatchObject(last)
    expect((await server.call(token, '/api/admin/me')).status).toBe(200)
    await setRoles('root@platform.example', 'platform', ['platform_admin'])
    expect((await disable()).status).toBe(200)
  })
})
