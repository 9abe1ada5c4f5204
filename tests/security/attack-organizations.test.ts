// Attacks on organisations that rule themselves: a weak organisation as the way into a strong one, sessions that would
// outlive or outnumber what a policy allows, and callers of the admin API who send what nobody means.
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import type { AdminOperation } from '../../src/admin/operation.ts'
import { adminOperations } from '../../src/admin/operations.ts'
import type { PolicyInput } from '../../src/organizations/policy.ts'
import { type AdminServer, seed as adminSeed, startAdmin } from '../admin/support.ts'
import { ApiClient } from '../api/support.ts'
import { type Answer, authorizationUrl, Browser, introspect, redeem } from '../support/client.ts'
import { databaseKinds, password, people, startServer, type TestServer } from '../support/server.ts'

const names = { mercy: 'Mercy Hospital', hope: 'Hope Clinic', vendor: 'Vendor Inc' } as const
const app = (client_id: string, organization: string, more = {}) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: `App ${client_id}`,
  organization,
  redirect_uris: ['http://localhost:9/callback'],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid offline_access',
  first_party: true,
  introspection: 'organization' as const,
  ...more,
})
const seed = {
  organizations: [...(people.organizations ?? []), { slug: 'vendor', name: 'Vendor Inc' }],
  accounts: people.accounts ?? [],
  clients: [
    ...(people.clients ?? []),
    app('chart', 'vendor', { redirect_uris: ['https://chart.example/callback', 'http://localhost:9/callback'] }),
    app('hopeful', 'hope'),
  ],
}

describe.each(databaseKinds)('a weak organisation beside a strong one on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
    await run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{visitor}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email = 'lee@mercy.example' and o.slug = 'hope'`,
    )
  })
  afterAll(() => server.close())
  beforeEach(() => policies({}))

  const run = (statement: string, values: readonly unknown[] = []) => server.database.run(statement, values)
  const policies = (written: Readonly<Record<string, PolicyInput>>) =>
    server.apply({
      organizations: Object.entries(names).map(([slug, name]) => ({ slug, name, policy: written[slug] ?? {} })),
    })
  const start = async (browser: Browser, client: string, extra: Record<string, string | undefined> = {}) => {
    const authorization = authorizationUrl(server, client, { scope: 'openid', ...extra })
    return { authorization, page: await browser.follow(await browser.request(authorization.url)) }
  }
  const enter = (browser: Browser, page: Answer, email = 'lee@mercy.example') =>
    browser.submit(page, '/password', { email, password })
  const tokensOf = async (client: string, started: { authorization: { verifier: string } }, landing: Answer) => {
    const code = new URL(landing.url).searchParams.get('code') ?? ''
    const { body } = await redeem(server, client, code, started.authorization.verifier)
    return body as { access_token: string; refresh_token: string; id_token: string }
  }
  const isActive = async (token: string, caller: string) => (await introspect(server, token, caller))['active']

  // Somebody signs in to the organisation that allows any number of sessions, and comes to the one that allows one by
  // single sign-on from each of them.
  it('counts sessions that were begun elsewhere among those that an organisation allows at once', async () => {
    await policies({ hope: { session: { maxConcurrent: 1 } } })
    const tokens: string[] = []
    for (let index = 0; index < 3; index += 1) {
      const browser = new Browser(server)
      const home = await start(browser, 'first')
      await enter(browser, home.page)
      const there = await start(browser, 'hopeful')
      tokens.push((await tokensOf('hopeful', there, there.page)).access_token)
    }
    const active = await Promise.all(tokens.map((token) => isActive(token, 'hopeful')))
    expect(active).toEqual([false, false, true])
    // And a sign-in there counts those that came by single sign-on.
    const browser = new Browser(server)
    const direct = await start(browser, 'hopeful')
    const { access_token: newest } = await tokensOf('hopeful', direct, await enter(browser, direct.page))
    expect(await isActive(newest, 'hopeful')).toBe(true)
    expect(await isActive(tokens[2] ?? '', 'hopeful')).toBe(false)
  })

  // The API makes its session past the provider's endpoints, where nothing says which app it is for.
  it('holds a session of the JSON API to the organisation of the app that began it', async () => {
    await policies({ vendor: { session: { idleTimeout: 300, absoluteLifetime: 3_600, maxConcurrent: 1 } } })
    const sessionsOf = () =>
      run(
        `select idle_seconds, absolute_seconds, array(select o.slug from mlpipes_auth.session_organizations x
            join mlpipes_auth.organizations o on o.id = x.organization_id where x.session_uid = s.uid) as also
          from mlpipes_auth.sessions s where ended_at is null and account_id =
            (select id from mlpipes_auth.accounts where email = 'hugo@hope.example')`,
      )
    for (let index = 0; index < 2; index += 1) {
      const client = new ApiClient(server)
      const headers = { origin: 'https://chart.example' }
      const done = await client.post('/signin', { email: 'hugo@hope.example', password }, headers)
      expect(done.body).toMatchObject({ status: 'complete' })
    }
    expect(await sessionsOf()).toEqual([{ idle_seconds: 300, absolute_seconds: 3_600, also: ['vendor'] }])
  })

  // What one organisation counts as activity kept a session alive that another one lets nobody extend.
  it('extends no session by a weak organisation that a strong one lets nobody extend', async () => {
    await policies({ hope: { session: { extendOnActivity: false, idleTimeout: 600 } } })
    const browser = new Browser(server)
    const home = await start(browser, 'first')
    const weak = await tokensOf('first', home, await enter(browser, home.page))
    const there = await start(browser, 'hopeful')
    const strong = await tokensOf('hopeful', there, there.page)
    await run(`update mlpipes_auth.sessions set last_activity_at = now() - interval '550 seconds',
      idle_expires_at = now() + interval '50 seconds' where ended_at is null`)
    expect(await isActive(weak.access_token, 'api')).toBe(true)
    expect(await isActive(strong.access_token, 'hopeful')).toBe(true)
    const [row] =
      await run(`select idle_expires_at <= now() + interval '60 seconds' as held from mlpipes_auth.sessions s
      where ended_at is null order by created_at desc limit 1`)
    expect(row).toEqual({ held: true })
  })
})

/** Values that somebody sends who means no good, of every kind. */
const odd = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    0,
    -1,
    1e308,
    '',
    ' ',
    '\0',
    '\ud800',
    'null',
    '../..',
    '%00',
    '__proto__',
    [],
    {},
  ),
  fc.constantFrom<unknown>('9'.repeat(400), 'é'.repeat(64), [[[[1]]]], { $ne: 1 }, 2_147_483_648, 0.5, '-0'),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.jsonValue({ maxDepth: 2 }),
)

interface Shape {
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly Shape[]
  readonly oneOf?: readonly Shape[]
  readonly properties?: Readonly<Record<string, Shape>>
  readonly items?: Shape
  readonly minLength?: number
  readonly maxLength?: number
}
const words = fc.constantFrom(
  'mercy',
  'member',
  'nurse',
  'hope.example',
  'new@hope.example',
  'https://1.1.1.1/callback',
  'https://localhost./x',
  'openid admin:write',
  '10.0.0.0/8',
  '10.0.0.1/8',
  '::ffff:10.0.0.0/104',
  '::/0',
  '2026-01-01T00:00:00+23:00',
  '2026-01-01T00:00:00-15:59',
  `2026-01-01T00:00:00.${'1'.repeat(200)}Z`,
  '0001-01-01T00:00:00Z',
  '::ffff:1.2.3.4',
  'fe80::1%eth0',
  'ABCDEFGH',
)

/** Something that a schema takes, more or less. */
function like(shape: Shape): fc.Arbitrary<unknown> {
  const variants = shape.anyOf ?? shape.oneOf
  if (variants) return fc.oneof(...variants.map(like))
  if (shape.enum) return fc.constantFrom(...shape.enum)
  if (shape.properties)
    return fc.record(Object.fromEntries(Object.entries(shape.properties).map(([name, one]) => [name, spoilt(one)])), {
      requiredKeys: [],
    })
  if (shape.type === 'array') return fc.array(like(shape.items ?? {}), { maxLength: 4 })
  if (shape.type === 'boolean') return fc.boolean()
  if (shape.type === 'integer' || shape.type === 'number') return fc.integer({ min: 0, max: 100_000 })
  if (shape.type === 'string') return fc.oneof(words, words, fc.string({ maxLength: 20 }))
  return odd
}
const spoilt = (shape: Shape) => fc.oneof({ weight: 5, arbitrary: like(shape) }, { weight: 1, arbitrary: odd })
const shapeOf = (schema: z.ZodType | undefined): Shape =>
  schema ? (z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Shape) : {}

describe.each(databaseKinds)('what nobody means, sent to the admin API on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind, adminSeed)
  })
  afterAll(() => server.close())

  const askers = ['root@platform.example', 'admin@hope.example', 'member@hope.example'] as const
  const ids = fc.constantFrom<(server: AdminServer) => string>(
    ({ ids: known }) => known.get('member@hope.example') ?? '',
    ({ ids: known }) => known.get('admin@mercy.example') ?? '',
    () => 'nurse',
    () => 'strong',
    () => '\u0001',
    () => 'a\u007fb/c',
    () => '\ud800',
    () => '..',
    () => '9'.repeat(128),
    () => 'constructor',
  )
  const mend = async () => {
    await server.database.run(`update mlpipes_auth.organizations set closed_at = null, policy = '{}'`, [])
    await server.database.run('update mlpipes_auth.accounts set disabled_at = null, factor_reset_until = null', [])
    await server.database.run('update mlpipes_auth.password_credentials set must_change = false', [])
    // Roles, and second factors that a call took away from whoever asks next.
    await server.apply({ accounts: adminSeed.accounts ?? [] })
    await server.database.run(
      `update mlpipes_auth.memberships m set roles = '{org_admin}' from mlpipes_auth.accounts a
        where a.id = m.account_id and a.email = 'admin@hope.example'`,
      [],
    )
  }
  const send = async (operation: AdminOperation, asker: string, request: Request) => {
    const names = [...operation.path.matchAll(/:(\w+)/g)]
    const path = names.reduce(
      (text, [name], index) =>
        text.replace(name, encodeURIComponent((request.ids[index] ?? (() => 'x'))(server).toWellFormed())),
      operation.path as string,
    )
    const query = new URLSearchParams(
      Object.entries(request.query).flatMap(([name, value]) =>
        [value].flat().map((one): [string, string] => [name, typeof one === 'string' ? one : JSON.stringify(one)]),
      ),
    )
    const once = async () =>
      server.call(await server.tokenOf(asker), `${path}?${query}`, {
        method: operation.method,
        ...(operation.body ? { body: request.body ?? null } : {}),
        headers: request.headers,
      })
    const answer = await once()
    if (answer.status !== 401 || answer.body['type'] !== 'urn:mlpipes:error:caller_unknown') return answer
    await mend()
    server.forgetTokens()
    return once()
  }
  interface Request {
    readonly ids: readonly ((server: AdminServer) => string)[]
    readonly query: Readonly<Record<string, unknown>>
    readonly body: unknown
    readonly headers: Record<string, string>
  }

  // What holds somebody's session may be the policy of another hospital, and which one is not this one's to know.
  it('explains a session without telling where else its person has a place', async () => {
    await mend()
    await server.tokenOf('member@mercy.example')
    const [row] = await server.database.run(
      `with place as (insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
          select $1, id, false, '{visitor}' from mlpipes_auth.organizations where slug = 'hope')
        insert into mlpipes_auth.session_organizations (session_uid, organization_id)
          select s.uid, o.id from mlpipes_auth.sessions s, mlpipes_auth.organizations o
          where s.account_id = $1 and s.ended_at is null and o.slug = 'hope' returning session_uid`,
      [server.ids.get('member@mercy.example')],
    )
    const policy = JSON.stringify({ session: { idleTimeout: 300 } })
    await server.database.run(`update mlpipes_auth.organizations set policy = $1::jsonb where slug = 'mercy'`, [policy])
    const seenBy = async (email: string) => {
      const body = { session: String(row?.['session_uid']) }
      const organization = email.startsWith('root') ? '?organization=' : ''
      const [hope] = await server.database.run(`select id from mlpipes_auth.organizations where slug = 'hope'`, [])
      const path = `/api/admin/explain${organization && `${organization}${String(hope?.['id'])}`}`
      return server.call(await server.tokenOf(email), path, { body })
    }
    const own = await seenBy('admin@hope.example')
    expect(own.status, own.text).toBe(200)
    expect(own.body['session']).toMatchObject({ organizations: ['hope', 'platform'] })
    expect(own.text).toContain('other membership')
    expect(own.text).not.toContain('mercy')
    const platform = await seenBy('root@platform.example')
    expect(platform.body['session']).toMatchObject({ organizations: ['hope', 'mercy', 'platform'] })
    expect(platform.text).toContain('"decidedBy":["mercy"]')
    await server.database.run('delete from mlpipes_auth.memberships where not home', [])
  })

  // RFC 3339 lets a time be a whole day away from UTC and say any fraction of a second; PostgreSQL refuses both.
  it('reads no time that the database cannot', async () => {
    const token = await server.tokenOf('admin@hope.example')
    const statuses = async (times: readonly string[]) =>
      Promise.all(
        times.flatMap((time) =>
          ['logs?from=', 'logs?to=', 'export?from='].map(
            async (path) => (await server.call(token, `/api/audit/${path}${encodeURIComponent(time)}`)).status,
          ),
        ),
      )
    const refused = ['00:00:00+15:00', '00:00:00-23:59', `00:00:00.${'1'.repeat(7)}Z`, `00:00:00.${'1'.repeat(300)}Z`]
    const taken = ['00:00:00+14:59', '00:00:00-14:59', '00:00:00.123456Z', '23:59:59Z']
    expect(new Set(await statuses(refused.map((time) => `2026-01-01T${time}`)))).toEqual(new Set([400]))
    expect(new Set(await statuses(taken.map((time) => `2026-01-01T${time}`)))).toEqual(new Set([200]))
  })

  // The router refused these before any hook, in its own words and without one of the headers that every answer has.
  it.each([
    [`/api/admin/users/${'9'.repeat(129)}`, 404, 'application/problem+json; charset=utf-8'],
    ['/api/admin/users/%ff', 400, 'application/problem+json; charset=utf-8'],
    [`/interaction/${'9'.repeat(129)}`, 404, 'text/html; charset=utf-8'],
  ])('answers %s as it answers everything', async (path, status, type) => {
    const answer = await fetch(`${server.issuer}${path}`, { headers: { accept: 'text/html' } })
    expect(answer.status).toBe(status)
    expect(answer.headers.get('content-type')).toBe(type)
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(await answer.text()).toContain(answer.headers.get('x-request-id'))
  })

  // The one other administrator was a guest, whose own hospital had been closed: nobody could sign in to administer.
  it('leaves no organisation to a guest whose own organisation is closed', async () => {
    await mend()
    await server.database.run(
      `with home as (update mlpipes_auth.organizations set closed_at = now() where slug = 'mercy' returning id)
        insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
          select $1, id, false, '{org_admin}' from mlpipes_auth.organizations where slug = 'hope'`,
      [server.ids.get('victim@mercy.example')],
    )
    const token = await server.tokenOf('admin@hope.example')
    const path = `/api/admin/users/${server.ids.get('admin@hope.example')}`
    const etag = (await server.call(token, path)).headers.get('etag') ?? ''
    const sent = { method: 'PUT', body: { roles: ['member'] }, headers: { 'if-match': etag } }
    const refused = await server.call(token, `${path}/roles`, sent)
    expect(refused.body['type'], refused.text).toBe('urn:mlpipes:error:last_administrator')
    await server.database.run('delete from mlpipes_auth.memberships where not home', [])
    await mend()
  })

  it.each(adminOperations.map((operation) => [operation.id, operation] as const))(
    '%s is never a fault',
    async (_id, operation) => {
      await mend()
      const known = shapeOf(operation.query).properties ?? {}
      const request = fc.record({
        ids: fc.array(ids, { minLength: 2, maxLength: 2 }),
        query: fc.oneof(
          {
            weight: 3,
            arbitrary: fc.record(
              Object.fromEntries(Object.keys(known).map((name) => [name, fc.oneof(spoilt(known[name] ?? {}), words)])),
              { requiredKeys: [] },
            ),
          },
          {
            weight: 1,
            arbitrary: fc.dictionary(
              fc.constantFrom('organization', 'limit', 'cursor', 'x', '__proto__'),
              fc.oneof(words, fc.string()),
            ),
          },
        ),
        body: fc.oneof({ weight: 6, arbitrary: like(shapeOf(operation.body)) }, { weight: 1, arbitrary: odd }),
        headers: fc.record(
          {
            'if-match': fc.constantFrom('"1"', '"1.1"', '"2147483648"', '"0"', 'W/"1"', '*', '"1", "2"'),
            'idempotency-key': fc.constantFrom('a', 'x'.repeat(255), 'x'.repeat(256), 'é'),
            'user-agent': fc.constantFrom('=cmd|x', 'a'.repeat(2_000), '\u00e9'),
          },
          { requiredKeys: [] },
        ),
      })
      await fc.assert(
        fc.asyncProperty(fc.constantFrom(...askers), request, async (asker, sent) => {
          const answer = await send(operation, asker, sent)
          expect(answer.status, `${asker} ${answer.text}`).toBeLessThan(500)
        }),
        { numRuns: 12 },
      )
    },
  )
})
