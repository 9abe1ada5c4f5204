// What stands before every operation of the admin API: who calls, scope, permission, organisation, input.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, signIn } from '../support/client.ts'
import { databaseKinds } from '../support/server.ts'
import { type AdminServer, problem, type Sent, seed, startAdmin } from './support.ts'

describe.each(databaseKinds)('the admin API on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind)
  })
  afterAll(() => server.close())

  const idOf = async (slug: string) =>
    String((await server.database.run('select id from mlpipes_auth.organizations where slug = $1', [slug]))[0]?.['id'])

  it('says who calls and what they may do', async () => {
    const token = await server.tokenOf('admin@mercy.example')
    const { status, body, headers } = await server.call(token, '/api/admin/me')
    expect(status).toBe(200)
    expect(body).toMatchObject({ kind: 'account', email: 'admin@mercy.example', roles: ['org_admin'] })
    expect(body['organization']).toMatchObject({ slug: 'mercy' })
    expect(body['permissions']).toContain('user:create')
    expect(body['permissions']).not.toContain('platform:organizations')
    expect(headers.get('cache-control')).toBe('no-store')
  })

  it.each([
    ['no token', undefined, 'Bearer'],
    ['a made-up token', 'x'.repeat(43), 'Bearer error="invalid_token"'],
    ['a short token', 'x', 'Bearer error="invalid_token"'],
  ])('refuses %s with 401 and says how to come', async (_name, token, challenge) => {
    const answer = await server.call(token, '/api/admin/me')
    expect(answer).toMatchObject({ status: 401, body: { type: problem('caller_unknown') } })
    expect(answer.headers.get('www-authenticate')).toBe(challenge)
  })

  it('refuses another scheme, and an id token', async () => {
    const answer = await server.call(undefined, '/api/admin/me', { headers: { authorization: 'Basic eDp5' } })
    expect(answer.status).toBe(401)
  })

  it('asks for the scope that the method needs (RFC 6750)', async () => {
    const token = await server.tokenOf('admin@mercy.example', { scope: 'openid admin:write' })
    const answer = await server.call(token, '/api/admin/me')
    expect(answer).toMatchObject({ status: 403, body: { type: problem('scope_insufficient') } })
    expect(answer.headers.get('www-authenticate')).toBe('Bearer error="insufficient_scope", scope="admin:read"')
    const [denied] = await server.audit('admin.access_denied')
    expect(denied).toMatchObject({ details: { operation: 'getMe', reason: 'scope_insufficient' } })
  })

  it('names the permission that is missing, and writes the denial down', async () => {
    const token = await server.tokenOf('member@mercy.example')
    const answer = await server.call(token, '/api/admin/permissions')
    expect(answer).toMatchObject({ status: 403, body: { type: problem('forbidden'), permission: 'role:read' } })
    const [denied] = await server.audit('admin.access_denied')
    expect(denied).toMatchObject({
      outcome: 'failure',
      actorId: server.ids.get('member@mercy.example'),
      organizationId: await idOf('mercy'),
      requestId: answer.body['instance'],
      details: { operation: 'listPermissions', permission: 'role:read', reason: 'forbidden' },
    })
  })

  it('lists permissions for whoever may read roles', async () => {
    const token = await server.tokenOf('support@mercy.example')
    const { status, body } = await server.call(token, '/api/admin/permissions')
    expect(status).toBe(200)
    expect(body['items']).toContainEqual(
      expect.objectContaining({ name: 'platform:organizations', grantable: false, roles: ['platform_admin'] }),
    )
  })

  it('acts in another organisation for the platform alone, and tells nobody else which there are', async () => {
    const root = await server.tokenOf('root@platform.example')
    const [mercy, hope] = [await idOf('mercy'), await idOf('hope')]
    const there = await server.call(root, `/api/admin/me?organization=${hope}`)
    expect(there.body).toMatchObject({ organization: { slug: 'platform' }, actingIn: { slug: 'hope' } })
    expect((await server.call(root, '/api/admin/me?organization=org_missing')).status).toBe(404)
    expect((await server.call(root, '/api/admin/me?organization=%20%27')).status).toBe(404)
    const admin = await server.tokenOf('admin@mercy.example')
    expect((await server.call(admin, `/api/admin/me?organization=${mercy}`)).status).toBe(200)
    const other = await server.call(admin, `/api/admin/me?organization=${hope}`)
    const missing = await server.call(admin, '/api/admin/me?organization=org_missing')
    expect(other).toMatchObject({ status: 403, body: { permission: 'platform:organizations' } })
    expect({ ...other.body, instance: '' }).toEqual({ ...missing.body, instance: '' })
  })

  it('F72: refuses what it does not know in a query, by name', async () => {
    const token = await server.tokenOf('admin@mercy.example')
    for (const query of ['x=1', 'constructor=1', 'limit=5', '__proto__=1', 'organization[]=1']) {
      const answer = await server.call(token, `/api/admin/me?${query}`)
      expect(answer, query).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
      expect(answer.body['errors']).toEqual([{ path: query.split('=')[0], message: 'is not known here' }])
    }
    const twice = await server.call(token, '/api/admin/me?organization=a&organization=b')
    expect(twice.status).toBe(403)
  })

  it('lets a service client do what its registration says, at the next request and no longer', async () => {
    const token = await server.serviceToken('weak')
    expect((await server.call(token, '/api/admin/me')).body).toMatchObject({
      kind: 'client',
      id: 'weak',
      permissions: [],
    })
    expect((await server.call(token, '/api/admin/permissions')).status).toBe(403)
    const set = (names: string[]) =>
      server.database.run('update mlpipes_auth.clients set permissions = $2 where client_id = $1', ['weak', names])
    await set(['role:read', 'of:yesterday'])
    expect((await server.call(token, '/api/admin/permissions')).status).toBe(200)
    await set([])
    expect((await server.call(token, '/api/admin/permissions')).status).toBe(403)
  })

  it('takes a token no more once the role, the account, the organisation, the client or the session is gone', async () => {
    const token = await server.tokenOf('auditor@mercy.example')
    const status = async (path = '/api/admin/permissions') => (await server.call(token, path)).status
    const run = (statement: string, values: unknown[]) => server.database.run(statement, values)
    const id = server.ids.get('auditor@mercy.example')
    expect(await status()).toBe(200)
    await run("update mlpipes_auth.memberships set roles = '{member}' where account_id = $1", [id])
    expect(await status()).toBe(403)
    await run("update mlpipes_auth.memberships set roles = '{auditor}' where account_id = $1", [id])
    expect(await status()).toBe(200)
    await run('update mlpipes_auth.accounts set disabled_at = now() where id = $1', [id])
    expect(await status()).toBe(401)
    await run('update mlpipes_auth.accounts set disabled_at = null where id = $1', [id])
    await run("update mlpipes_auth.organizations set closed_at = now() where slug = 'mercy'", [])
    expect(await status()).toBe(401)
    await run("update mlpipes_auth.organizations set closed_at = null where slug = 'mercy'", [])
    await run("update mlpipes_auth.clients set disabled_at = now() where client_id = 'console'", [])
    expect(await status()).toBe(401)
    await run("update mlpipes_auth.clients set disabled_at = null where client_id = 'console'", [])
    expect(await status()).toBe(200)
    await run('update mlpipes_auth.sessions set ended_at = now() where account_id = $1', [id])
    expect(await status()).toBe(401)
  })

  it('takes the browser of a signed-in person, of our own origin only', async () => {
    const get = (headers: Record<string, string>) => server.call(undefined, '/api/admin/me', { headers })
    const { cookie } = await browserOf(nobodySpecial)
    expect((await get({ cookie })).body).toMatchObject({ email: nobodySpecial.email, scopes: null })
    expect((await get({ cookie, origin: server.issuer })).status).toBe(200)
    expect((await get({ cookie, origin: 'https://evil.example' })).status).toBe(403)
    expect((await get({ cookie, origin: 'null' })).status).toBe(403)
    // A bad token is not made good by a cookie beside it.
    expect((await get({ cookie, authorization: 'Bearer nonsense' })).status).toBe(401)
  })

  it('lets that browser change something with its CSRF token, and writes down what another page tried', async () => {
    const { cookie, token } = await browserOf(housekeeper)
    const other = await browserOf(nobodySpecial)
    const victim = String(server.ids.get('victim@mercy.example'))
    const path = `/api/admin/users/${victim}`
    const me = await server.call(undefined, '/api/admin/me', { headers: { cookie } })
    const denials = async () =>
      (await server.audit('admin.access_denied')).filter(({ actorId }) => actorId === me.body['id'])
    const change = async (headers: Record<string, string>) => {
      const read = await server.call(undefined, path, { headers: { cookie } })
      const sent: Sent = {
        method: 'PATCH',
        body: { name: 'Renamed Person' },
        headers: { cookie, 'if-match': read.headers.get('etag') ?? '', ...headers },
      }
      return { answer: await server.call(undefined, path, sent), before: read.body['name'] }
    }
    const refused: [string, Record<string, string>][] = [
      ['no token', {}],
      ['an empty one', { 'x-csrf-token': '' }],
      ["another browser's", { 'x-csrf-token': other.token }],
      ['another origin', { 'x-csrf-token': token, origin: 'https://evil.example' }],
      ['no origin that can be told', { 'x-csrf-token': token, origin: 'null' }],
      ['another site', { 'x-csrf-token': token, 'sec-fetch-site': 'cross-site' }],
      ['another host of the same site', { 'x-csrf-token': token, 'sec-fetch-site': 'same-site' }],
      [
        'another site that claims to be ours',
        { 'x-csrf-token': token, 'sec-fetch-site': 'cross-site', origin: server.issuer },
      ],
    ]
    for (const [index, [name, headers]] of refused.entries()) {
      const { answer, before } = await change(headers)
      expect(answer, name).toMatchObject({ status: 403, body: { type: problem('request_foreign') } })
      const after = await server.call(undefined, path, { headers: { cookie } })
      expect(after.body['name'], name).toBe(before)
      const rows = await denials()
      expect(rows, name).toHaveLength(index + 1)
      expect(rows[0], name).toMatchObject({
        accountId: me.body['id'],
        organizationId: await idOf('mercy'),
        sessionUid: expect.any(String),
        requestId: answer.body['instance'],
        details: { operation: 'updateUser', reason: 'request_foreign', target: victim },
      })
    }
    const ours = { 'x-csrf-token': token, origin: server.issuer, 'sec-fetch-site': 'same-origin' }
    expect((await change(ours)).answer).toMatchObject({ status: 200, body: { name: 'Renamed Person' } })
    expect((await server.audit('account.updated'))[0]).toMatchObject({ actorId: me.body['id'] })
    expect(await denials()).toHaveLength(refused.length)
    // Nobody is known by a CSRF token alone.
    const stranger = await server.call(undefined, path, {
      method: 'PATCH',
      body: {},
      headers: { 'x-csrf-token': token },
    })
    expect(stranger.status).toBe(401)
  })

  /** The console's pages in a browser of this person: its cookies and its CSRF token. */
  async function browserOf(person: typeof nobodySpecial) {
    const browser = new Browser(server)
    await server.apply({ ...seed, accounts: [{ ...person, organization: 'mercy' }] })
    await signIn(browser, authorizationUrl(server, 'console', { scope: 'openid' }), person.email)
    const { text } = await browser.request('/api/auth/csrf', { headers: { accept: 'application/json' } })
    const cookie = browser.cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
    return { cookie, token: String(JSON.parse(text).csrfToken) }
  }
})

const nobodySpecial = {
  email: 'plain@mercy.example',
  name: 'Plain Person',
  password: 'Correct-Horse-9-Battery',
  emailVerified: true,
  roles: ['support'],
}
const housekeeper = { ...nobodySpecial, email: 'house@mercy.example', name: 'House Keeper', roles: ['org_admin'] }
