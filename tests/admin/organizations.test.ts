// Organisations over the API: founded, found, renamed, closed on the very next request, and reopened without reviving.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { adminOperations } from '../../src/admin/operations.ts'
import { mainDatabase } from '../support/server.ts'
import { newOrganization } from './organization-rows.ts'
import { type AdminServer, problem, signIn, startAdmin } from './support.ts'

const path = '/api/admin/organizations'

describe.each(mainDatabase)('organisations on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind)
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  const root = async (at: string, sent: { method?: string; body?: unknown; headers?: Record<string, string> } = {}) =>
    server.call(await server.tokenOf('root@platform.example'), at, sent)
  const idOf = async (slug: string) =>
    String((await run('select id from mlpipes_auth.organizations where slug = $1', [slug]))[0]?.['id'])

  it('are founded once, with a policy that no floor refuses', async () => {
    const body = { slug: 'grace', name: ' Grace Hospital ', policy: { mfa: 'required' } }
    const made = await root(path, { body, headers: { 'idempotency-key': 'grace' } })
    expect(made).toMatchObject({
      status: 201,
      body: { slug: 'grace', name: 'Grace Hospital', closedAt: null, version: 1 },
    })
    const again = await root(path, { body, headers: { 'idempotency-key': 'grace' } })
    expect(again).toMatchObject({ status: 201, body: made.body })
    expect(again.headers.get('idempotency-replayed')).toBe('true')
    expect(await root(path, { body })).toMatchObject({ status: 409, body: { type: problem('already_exists') } })
    const there = await root(String(made.headers.get('location')))
    expect(there.body).toEqual(made.body)
    expect(await server.audit('organization.created')).toContainEqual(
      expect.objectContaining({ organizationId: made.body['id'], details: { slug: 'grace' } }),
    )
    const low = await root(path, { body: { slug: 'low', name: 'Low', policy: { session: { idleTimeout: 3_601 } } } })
    expect(low.body['errors']).toEqual([
      { path: 'policy.session.idleTimeout', message: 'must be at most 3600 (HIPAA mode)' },
    ])
  })

  it.each([
    ['', 'slug'],
    ['Upper', 'slug'],
    ['-a', 'slug'],
    ['a-', 'slug'],
    ['a_b', 'slug'],
    ['a'.repeat(65), 'slug'],
  ])('are not founded as %j', async (slug, at) => {
    expect(await root(path, { body: { slug, name: 'X' } })).toMatchObject({
      status: 400,
      body: { errors: [{ path: at }] },
    })
  })

  it('take the longest slug, and one of twenty founders at once gets it', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => root(path, { body: { slug: 'a'.repeat(64), name: 'Long' } })),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array.from({ length: 19 }, () => 409)])
  })

  it('are listed by slug, page by page, and found letter by letter', async () => {
    for (let n = 0; n < 5; n += 1) await root(path, { body: { slug: `list-${n}`, name: `Percent 100% ${n}_` } })
    await root(path, { body: { slug: 'list-other', name: 'Percent 1000 and 5' } })
    const slugs = (body: Record<string, unknown>) => [body['items']].flat().map((item) => Object(item).slug)
    const first = await root(`${path}?q=100%25&limit=3`)
    expect(slugs(first.body)).toEqual(['list-0', 'list-1', 'list-2'])
    const second = await root(`${path}?q=100%25&limit=3&cursor=${first.body['next']}`)
    expect(slugs(second.body)).toEqual(['list-3', 'list-4'])
    expect(second.body['next']).toBeNull()
    expect(slugs((await root(`${path}?q=LIST-3`)).body), 'slugs have no upper case').toEqual([])
    expect(slugs((await root(`${path}?q=list-3`)).body)).toEqual(['list-3'])
    expect(slugs((await root(`${path}?q=mercy%20HOSP`)).body)).toEqual(['mercy'])
    expect((await root(`${path}?q=100%25&limit=3&cursor=${first.body['next']}&status=open`)).status).toBe(400)
    const closed = await newOrganization(server, true)
    expect(slugs((await root(`${path}?status=closed&limit=100`)).body)).toHaveLength(1)
    expect((await root(`${path}?status=open&limit=100`)).text).not.toContain(closed)
  })

  it('are renamed in the version that was read', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    const before = await server.call(admin, '/api/admin/organization')
    const etag = String(before.headers.get('etag'))
    const patch = (body: unknown, version?: string) =>
      server.call(admin, '/api/admin/organization', {
        method: 'PATCH',
        body,
        headers: version ? { 'if-match': version } : {},
      })
    const done = await patch({ name: 'Mercy General' }, etag)
    expect(done).toMatchObject({ status: 200, body: { slug: 'mercy', name: 'Mercy General' } })
    expect(done.headers.get('etag')).not.toBe(etag)
    expect(await patch({ name: 'Too Late' }, etag)).toMatchObject({ status: 412 })
    expect(await patch({ name: 'Unconditional' })).toMatchObject({ status: 428 })
    expect(await patch({ slug: 'other' }, String(done.headers.get('etag')))).toMatchObject({ status: 400 })
    expect(await patch({ name: 'x\u202ey' }, String(done.headers.get('etag')))).toMatchObject({ status: 400 })
    expect((await server.audit('organization.updated'))[0]).toMatchObject({
      details: { slug: 'mercy', changed: ['name'] },
    })
  })

  it('close for everybody on the next request, and reopening revives nothing', async () => {
    const hope = await idOf('hope')
    await run(
      `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
       values ('wh_hope', $1, 'https://hooks.example/', '{organization.closed,organization.reopened}', 'x')`,
      [hope],
    )
    await run(
      "insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, '{org_admin}')",
      [server.ids.get('victim@mercy.example'), hope],
    )
    const person = await signIn(server, 'admin@hope.example')
    const offline = await signIn(server, 'victim@mercy.example', {
      organization: 'hope',
      scope: 'openid offline_access admin:read',
      prompt: 'consent',
    })
    const status = async (token: string) => (await server.call(token, '/api/admin/me')).status
    expect([await status(person), await status(offline)]).toEqual([200, 200])

    const closed = await root(`${path}/${hope}/close`, { body: {} })
    expect(closed).toMatchObject({ status: 200, body: { id: hope, slug: 'hope' } })
    expect(closed.body['closedAt']).not.toBeNull()
    expect([await status(person), await status(offline)]).toEqual([401, 401])
    await expect(signIn(server, 'member@hope.example')).rejects.toThrow('no code')
    const again = await root(`${path}/${hope}/close`, { body: {} })
    expect(again.body, 'closing what is closed changes nothing').toEqual(closed.body)
    const rename = { method: 'PATCH', body: { name: 'Other' }, headers: { 'if-match': '"1"' } }
    expect((await root(`/api/admin/organization?organization=${hope}`, rename)).status, 'nobody acts in it').toBe(404)

    const reopened = await root(`${path}/${hope}/reopen`, { body: {} })
    expect(reopened).toMatchObject({ status: 200, body: { id: hope, closedAt: null } })
    expect([await status(person), await status(offline)], 'nothing comes back').toEqual([401, 401])
    expect(await root(`${path}/${hope}/reopen`, { body: {} })).toMatchObject({ status: 200, body: reopened.body })
    expect(await status(await signIn(server, 'admin@hope.example'))).toBe(200)

    const told = await run(
      "select body ->> 'type' as type from mlpipes_auth.deliveries where webhook_id = 'wh_hope' order by id",
    )
    expect(told).toEqual([{ type: 'organization.closed' }, { type: 'organization.reopened' }])
    for (const name of ['organization.closed', 'organization.reopened'])
      expect((await server.audit(name)).map(({ organizationId, details }) => [organizationId, details])).toEqual([
        [hope, { slug: 'hope' }],
      ])
  })

  it('are read when they are closed: themselves, their policy and their log, by the platform, and nothing else', async () => {
    const id = await newOrganization(server)
    await root(`${path}/${id}/close`, { body: {} })
    const reads = adminOperations.filter((one) => one.method === 'GET' && !one.path.includes(':') && !one.reach)
    const read: string[] = []
    for (const operation of reads) {
      const { status } = await root(`${operation.path}?organization=${id}`)
      expect([200, 404], operation.id).toContain(status)
      if (status === 200) read.push(operation.id)
      const admin = await server.tokenOf('admin@mercy.example')
      expect((await server.call(admin, `${operation.path}?organization=${id}`)).status).toBe(403)
    }
    expect(read.sort()).toEqual(['exportAuditEvents', 'getOrganization', 'getPolicy', 'listAuditEvents'])
    expect((await root(`/api/admin/organization?organization=${id}`)).body).toMatchObject({
      id,
      closedAt: expect.any(String),
    })
    const log = await root(`/api/audit/logs?organization=${id}&name=organization.closed`)
    expect(log.body['items']).toMatchObject([{ organizationId: id, name: 'organization.closed' }])
    const file = await root(`/api/audit/export?organization=${id}`)
    expect(file.text).toContain('"organization.closed"')
    for (const name of ['audit.read', 'audit.exported'])
      expect((await server.audit(name))[0]).toMatchObject({ organizationId: id })
    for (const [method, at] of [
      ['PATCH', '/api/admin/organization'],
      ['PUT', '/api/admin/policy'],
      ['POST', '/api/admin/policy/preview'],
      ['POST', '/api/admin/users'],
    ] as const)
      expect((await root(`${at}?organization=${id}`, { method, body: {} })).status, at).toBe(404)
  })

  it('are not closed from within, nor without a step-up, and ids of none are none', async () => {
    const platform = await idOf('platform')
    expect(await root(`${path}/${platform}/close`, { body: {} })).toMatchObject({
      status: 409,
      body: { type: problem('not_possible') },
    })
    for (const act of ['close', 'reopen']) {
      expect((await root(`${path}/org_missing/${act}`, { body: {} })).status).toBe(404)
      expect((await root(`${path}/${encodeURIComponent("' or 1=1")}/${act}`, { body: {} })).status).toBe(404)
    }
    const id = await newOrganization(server)
    await run('update mlpipes_auth.clients set permissions = $1 where client_id = $2', [
      ['platform:organizations'],
      'weak',
    ])
    const weak = await server.serviceToken('weak')
    expect(await server.call(weak, `${path}/${id}/close`, { body: {} })).toMatchObject({
      status: 403,
      body: { type: problem('client_too_weak') },
    })
  })

  it('are closed by one of twenty, and told of once', async () => {
    const id = await newOrganization(server)
    const answers = await Promise.all(Array.from({ length: 20 }, () => root(`${path}/${id}/close`, { body: {} })))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect((await server.audit('organization.closed')).filter((event) => event.organizationId === id)).toHaveLength(1)
  })
})
