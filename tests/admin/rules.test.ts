// F71, F73: nobody gives what they do not hold, nobody acts on somebody who holds more, an administrator is always left,
// and what changes who holds what needs a second factor of the last minutes.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newGuest, newPerson, organizationId } from './matrix-rows.ts'
import { type AdminServer, problem, signIn, startAdmin } from './support.ts'

describe('the rules for administrators', () => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin('postgres')
  })
  afterAll(() => server.close())

  const id = (email: string) => server.ids.get(email) ?? ''
  const as = (name: string) => server.tokenOf(name)
  const etagOf = async (token: string, path: string) => (await server.call(token, path)).headers.get('etag') ?? ''
  async function setRoles(token: string, accountId: string, roles: readonly string[], query = '') {
    const path = `/api/admin/users/${accountId}`
    const headers = { 'if-match': await etagOf(token, `${path}${query}`) }
    return server.call(token, `${path}/roles${query}`, { method: 'PUT', body: { roles }, headers })
  }
  const run = (statement: string, values: unknown[]) => server.database.run(statement, values)
  /** An administrator whose role is of the organisation's own making. */
  async function custom(email: string, permissions: readonly string[]) {
    const role = `made${Math.random().toString(36).slice(2, 10)}`
    await run('insert into mlpipes_auth.organization_roles (organization_id, name, permissions) values ($1, $2, $3)', [
      await organizationId(server, 'mercy'),
      role,
      [...permissions],
    ])
    await run('update mlpipes_auth.memberships set roles = $2 where account_id = $1 and home', [id(email), [role]])
  }
  const restore = (email: string, roles: readonly string[]) =>
    run('update mlpipes_auth.memberships set roles = $2 where account_id = $1 and home', [id(email), [...roles]])

  it('lets nobody give what they do not hold, in any way', async () => {
    await custom('support@mercy.example', ['user:read', 'user:create', 'membership:write', 'role:read', 'role:write'])
    const token = await as('support@mercy.example')
    const person = await newPerson(server, 'mercy')
    const forbidden = { status: 403, body: { type: problem('forbidden') } }
    expect(await setRoles(token, person, ['org_admin'])).toMatchObject(forbidden)
    expect(await setRoles(token, id('support@mercy.example'), ['org_admin'])).toMatchObject(forbidden)
    expect(await setRoles(token, person, ['auditor'])).toMatchObject(forbidden)
    const invited = { email: 'x@new.example', roles: ['org_admin'] }
    expect(await server.call(token, '/api/admin/invitations', { body: invited })).toMatchObject(forbidden)
    expect(await server.call(token, '/api/admin/users', { body: { ...invited, name: 'X' } })).toMatchObject(forbidden)
    const body = { name: 'sneaky', permissions: ['user:read', 'policy:write'] }
    const answer = await server.call(token, '/api/admin/roles', { body })
    expect(answer).toMatchObject({ ...forbidden, body: { permission: 'policy:write' } })
    expect(
      await server.call(token, '/api/admin/roles', { body: { ...body, permissions: ['user:read'] } }),
    ).toMatchObject({
      status: 201,
    })
    // What grants nothing may be given, and so may what one holds.
    expect((await setRoles(token, person, ['physician', 'sneaky'])).status).toBe(200)
    await restore('support@mercy.example', ['support'])
    expect(await run('select 1 from mlpipes_auth.accounts where email = $1', ['x@new.example'])).toEqual([])
  })

  it('lets no role of an organisation reach the platform, and nobody but the platform give its roles', async () => {
    const admin = await as('admin@mercy.example')
    const person = await newPerson(server, 'mercy')
    expect(await setRoles(admin, person, ['platform_admin'])).toMatchObject({
      status: 403,
      body: { permission: 'platform:organizations' },
    })
    const body = { name: 'beyond', permissions: ['platform:organizations'] }
    expect((await server.call(admin, '/api/admin/roles', { body })).status).toBe(400)
    const root = await as('root@platform.example')
    const there = `?organization=${await organizationId(server, 'mercy')}`
    expect((await setRoles(root, person, ['platform_admin'], there)).status).toBe(200)
    // Who holds more than an administrator is not theirs to act on.
    expect(await setRoles(admin, person, [])).toMatchObject({ status: 403 })
    expect(await server.call(admin, `/api/admin/users/${person}/disable`, { body: {} })).toMatchObject({ status: 403 })
    expect((await setRoles(root, person, [], there)).status).toBe(200)
  })

  it('keeps support from acting on administrators, here and as guests elsewhere', async () => {
    const support = await as('support@mercy.example')
    const guestAdmin = await newPerson(server, 'mercy')
    await run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, '{org_admin}')`,
      [guestAdmin, await organizationId(server, 'hope')],
    )
    for (const target of [id('second@mercy.example'), guestAdmin])
      for (const act of ['reset-mfa', 'reset-password', 'require-password-change', 'end-sessions']) {
        const answer = await server.call(support, `/api/admin/users/${target}/${act}`, { body: {} })
        expect(answer, act).toMatchObject({ status: 403, body: { type: problem('forbidden') } })
      }
    const [denied] = await server.audit('admin.access_denied')
    expect(denied?.details).toMatchObject({ reason: 'forbidden', target: guestAdmin })
    await run('delete from mlpipes_auth.memberships where account_id = $1 and not home', [guestAdmin])
    const factors = 'select count(*)::integer as n from mlpipes_auth.totp_credentials where account_id = $1'
    expect((await run(factors, [id('second@mercy.example')]))[0]).toEqual({ n: 1 })
  })

  it('lets nobody change the name or the details of somebody who holds more, but their own', async () => {
    await custom('support@mercy.example', ['user:read', 'user:update'])
    const support = await as('support@mercy.example')
    const patch = async (accountId: string, body: object) => {
      const path = `/api/admin/users/${accountId}`
      return server.call(support, path, {
        method: 'PATCH',
        body,
        headers: { 'if-match': await etagOf(support, path) },
      })
    }
    const guestAdmin = await newPerson(server, 'mercy')
    const admins = [id('second@mercy.example'), guestAdmin, id('support@mercy.example')]
    for (const account of admins.slice(1))
      await run(
        `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, '{org_admin}')`,
        [account, await organizationId(server, 'hope')],
      )
    for (const account of admins.slice(0, 2))
      for (const body of [{ name: 'Somebody Else' }, { metadata: { npi: '1234567893' } }, {}])
        expect(await patch(account, body)).toMatchObject({ status: 403, body: { type: problem('forbidden') } })
    expect((await server.audit('admin.access_denied'))[0]?.details).toMatchObject({
      operation: 'updateUser',
      reason: 'forbidden',
      target: guestAdmin,
    })
    const own = id('support@mercy.example')
    expect(await patch(own, { name: 'My Own' }), 'whatever they hold elsewhere').toMatchObject({ status: 200 })
    expect(await patch(await newPerson(server, 'mercy'), { name: 'Colleague' })).toMatchObject({ status: 200 })
    await run('delete from mlpipes_auth.memberships where account_id = any($1) and not home', [admins])
    await restore('support@mercy.example', ['support'])
  })

  it('F73: leaves an administrator, when two demote each other twenty times at once', async () => {
    const names = ['admin@mercy.example', 'second@mercy.example'] as const
    const tokens = await Promise.all(names.map(as))
    const attempts = Array.from({ length: 20 }, (_, n) => {
      const [by, other] = n % 2 === 0 ? [tokens[0], names[1]] : [tokens[1], names[0]]
      const etag = etagOf(by ?? '', `/api/admin/users/${id(other)}`)
      return etag.then((tag) =>
        server.call(by, `/api/admin/users/${id(other)}/roles`, {
          method: 'PUT',
          body: { roles: ['member'] },
          headers: { 'if-match': tag === '' ? '"1.1"' : tag },
        }),
      )
    })
    const statuses = (await Promise.all(attempts)).map(({ status }) => status)
    expect(statuses.filter((status) => status === 200)).toHaveLength(1)
    for (const status of statuses) expect([200, 403, 409, 412]).toContain(status)
    const left = await run(
      `select account_id from mlpipes_auth.memberships where organization_id = $1 and 'org_admin' = any(roles)`,
      [await organizationId(server, 'mercy')],
    )
    expect(left).toHaveLength(1)
    for (const name of names) await restore(name, ['org_admin'])
  })

  it('F73: lets the last one neither go, nor be switched off, nor be let go as a guest', async () => {
    const hope = await as('admin@hope.example')
    const last = { status: 409, body: { type: problem('last_administrator') } }
    expect(await setRoles(hope, id('admin@hope.example'), ['member'])).toMatchObject(last)
    expect(await server.call(hope, `/api/admin/users/${id('admin@hope.example')}/disable`, { body: {} })).toMatchObject(
      last,
    )
    const root = await as('root@platform.example')
    expect(await setRoles(root, id('root@platform.example'), [])).toMatchObject(last)
    expect(
      await server.call(root, `/api/admin/users/${id('root@platform.example')}/disable`, { body: {} }),
    ).toMatchObject(last)
    expect((await server.call(root, '/api/admin/me')).status).toBe(200)
    // Somebody who is switched off administers nothing, so does not count.
    const off = await newPerson(server, 'hope', ['org_admin'])
    await run('update mlpipes_auth.accounts set disabled_at = now() where id = $1', [off])
    expect(await setRoles(hope, id('admin@hope.example'), ['member'])).toMatchObject(last)
    const guest = await newGuest(server, 'hope', ['org_admin'])
    expect((await setRoles(hope, id('admin@hope.example'), ['org_admin', 'physician'])).status).toBe(200)
    await run('update mlpipes_auth.memberships set roles = $2 where account_id = $1', [
      id('admin@hope.example'),
      ['member'],
    ])
    const there = `?organization=${await organizationId(server, 'hope')}`
    const etag = await etagOf(root, `/api/admin/guests/${guest}${there}`)
    const gone = await server.call(root, `/api/admin/guests/${guest}${there}`, {
      method: 'DELETE',
      headers: { 'if-match': etag },
    })
    expect(gone).toMatchObject(last)
    await restore('admin@hope.example', ['org_admin'])
  })

  describe('step-up (RFC 9470)', () => {
    it('is asked for once five minutes are over, and says how', async () => {
      const token = await signIn(server, 'admin@mercy.example')
      const person = await newPerson(server, 'mercy')
      server.clock.now = new Date(Date.now() + 301_000)
      try {
        const answer = await setRoles(token, person, ['support'])
        expect(answer).toMatchObject({ status: 401, body: { type: problem('step_up_required') } })
        expect(answer.headers.get('www-authenticate')).toMatch(
          /^Bearer error="insufficient_user_authentication", .*acr_values="urn:mlpipes:acr:mfa", max_age="300"$/,
        )
        const invited = { email: 'late@new.example', roles: ['support'] }
        expect((await server.call(token, '/api/admin/invitations', { body: invited })).status).toBe(401)
        // What gives nothing away needs none.
        const plain = { email: 'late@new.example', roles: ['physician'] }
        expect((await server.call(token, '/api/admin/invitations', { body: plain })).status).toBe(201)
      } finally {
        server.clock.now = undefined
      }
      expect((await setRoles(token, person, ['support'])).status).toBe(200)
    })

    it('is not met by a password alone', async () => {
      await server.apply({
        accounts: [
          {
            email: 'single@mercy.example',
            name: 'Single Factor',
            password: 'Correct-Horse-9-Battery',
            organization: 'mercy',
            roles: ['org_admin'],
            emailVerified: true,
          },
        ],
      })
      const token = await signIn(server, 'single@mercy.example')
      expect((await server.call(token, '/api/admin/me')).status).toBe(200)
      const person = await newPerson(server, 'mercy')
      expect(await setRoles(token, person, ['support'])).toMatchObject({ status: 401 })
    })

    it('asks private_key_jwt of a client', async () => {
      const held = ['user:read', 'membership:write', 'user:disable', 'session:read']
      for (const client of ['weak', 'strong'])
        await run('update mlpipes_auth.clients set permissions = $2 where client_id = $1', [client, held])
      const person = await newPerson(server, 'mercy')
      const weak = await server.serviceToken('weak')
      const strong = await server.serviceToken('strong')
      expect(await setRoles(weak, person, ['physician'])).toMatchObject({
        status: 403,
        body: { type: problem('client_too_weak') },
      })
      expect((await server.call(weak, `/api/admin/users/${person}/disable`, { body: {} })).status).toBe(200)
      expect((await setRoles(strong, person, ['physician'])).status).toBe(200)
      expect(await setRoles(strong, person, ['support'])).toMatchObject({
        status: 403,
        body: { type: problem('forbidden') },
      })
    })
  })

  describe('roles of an organisation', () => {
    it('act at the next request of whoever has them, and are not deleted while somebody does', async () => {
      const admin = await as('admin@mercy.example')
      const made = await server.call(admin, '/api/admin/roles', { body: { name: 'desk', permissions: ['user:read'] } })
      expect(made).toMatchObject({ status: 201, body: { builtIn: false, permissions: ['user:read'] } })
      expect(made.headers.get('location')).toBe('/api/admin/roles/desk')
      await restore('member@mercy.example', ['desk'])
      const desk = await as('member@mercy.example')
      expect((await server.call(desk, '/api/admin/users')).status).toBe(200)
      const remove = (etag: string) =>
        server.call(admin, '/api/admin/roles/desk', { method: 'DELETE', headers: { 'if-match': etag } })
      expect(await remove('"1"')).toMatchObject({ status: 409, body: { type: problem('in_use') } })
      const body = { permissions: ['session:read'] }
      const changed = await server.call(admin, '/api/admin/roles/desk', {
        method: 'PATCH',
        body,
        headers: { 'if-match': '"1"' },
      })
      expect(changed.headers.get('etag')).toBe('"2"')
      expect((await server.call(desk, '/api/admin/users')).status).toBe(403)
      await restore('member@mercy.example', ['member'])
      expect((await remove('"1"')).status).toBe(412)
      expect((await remove('"2"')).status).toBe(204)
      expect((await server.call(admin, '/api/admin/roles/desk')).status).toBe(404)
    })

    it('cannot take the name of a built-in one or of another', async () => {
      const admin = await as('admin@mercy.example')
      const create = (name: string) => server.call(admin, '/api/admin/roles', { body: { name, permissions: [] } })
      for (const name of ['org_admin', 'member', 'platform_admin'])
        expect(await create(name)).toMatchObject({ status: 409, body: { type: problem('already_exists') } })
      const answers = await Promise.all(Array.from({ length: 20 }, () => create('same')))
      expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array.from({ length: 19 }, () => 409)])
      const builtIn = await server.call(admin, '/api/admin/roles/org_admin')
      expect(builtIn).toMatchObject({ status: 200, body: { builtIn: true } })
      expect(builtIn.headers.get('etag')).toBeNull()
    })
  })
})
