// The audit log over the API: by filter, page by page, as a file; each reading is in it, and nobody reads another's.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { csvCell } from '../../src/admin/audit-export.ts'
import { idParam } from '../../src/admin/operation.ts'
import { slugSchema } from '../../src/organizations/organizations.ts'
import { mainDatabase } from '../support/server.ts'
import { newOrganization } from './organization-rows.ts'
import { type AdminServer, problem, startAdmin } from './support.ts'

const path = '/api/audit/logs'
const listed = z.object({
  items: z.array(z.looseObject({ id: z.string(), name: z.string(), occurredAt: z.string() })),
  next: z.string().nullable(),
})

describe('a cell of a CSV file', () => {
  it.each([
    ['plain', 'plain'],
    ['=cmd|1', "'=cmd|1"],
    ['+1', "'+1"],
    ['-1', "'-1"],
    ['@sum', "'@sum"],
    ['\tx', "'\tx"],
    ['\rx', `"'\rx"`],
    ['＝cmd', "'＝cmd"],
    ['a=b', 'a=b'],
    ['say "x", y', '"say ""x"", y"'],
    ['=a,"b"', `"'=a,""b"""`],
    ['', ''],
  ])('F79: %j is %j', (value, cell) => expect(csvCell(value)).toBe(cell))
})

describe.each(mainDatabase)('the audit log on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind)
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  const root = async (at: string) => server.call(await server.tokenOf('root@platform.example'), at)
  /** An organisation with as many events, all of one transaction and so of one time. */
  async function withEvents(count: number, agent = 'Agent') {
    const id = await newOrganization(server)
    await run(
      `insert into mlpipes_auth.audit_events (name, outcome, actor_type, actor_id, account_id, organization_id, client_id, session_uid, ip, user_agent, details)
       select case when n % 2 = 0 then 'login.succeeded' else 'login.failed' end, case when n % 2 = 0 then 'success' else 'failure' end,
         'account', 'acc_' || n % 3, 'acc_' || n % 3, $1, 'app_' || n % 5, 'uid_' || n, ('192.0.2.' || n % 4)::inet, $2, jsonb_build_object('n', n)
       from generate_series(1, $3::integer) as n`,
      [id, agent, count],
    )
    return id
  }
  const read = async (organization: string, query = '') => {
    const answer = await root(`${path}?organization=${organization}${query}`)
    expect(answer.status, answer.text).toBe(200)
    return listed.parse(answer.body)
  }

  it('is read newest first, every event once, also where all have one time', async () => {
    const id = await withEvents(25)
    const seen: string[] = []
    let cursor = ''
    do {
      const page = await read(id, `&limit=10&name=login.succeeded&name=login.failed${cursor}`)
      seen.push(...page.items.map((item) => item.id))
      cursor = page.next === null ? '' : `&cursor=${page.next}`
    } while (cursor !== '')
    expect(seen).toHaveLength(25)
    expect(new Set(seen).size).toBe(25)
    expect(seen.map(Number)).toEqual(seen.map(Number).toSorted((a, b) => b - a))
  })

  it.each([
    ['&name=login.failed', 10],
    ['&name=login.failed&name=login.succeeded', 20],
    ['&outcome=success', 10],
    ['&accountId=acc_1', 7],
    ['&clientId=app_0', 4],
    ['&sessionUid=uid_7', 1],
    ['&ip=192.0.2.3', 5],
    ['&accountId=acc_1&outcome=failure&ip=192.0.2.3', 2],
    ['&from=2020-01-01T00:00:00Z&outcome=failure', 10],
    ['&to=2020-01-01T00:00:00%2B02:00', 0],
    ['&from=2999-01-01T00:00:00Z', 0],
    ['&accountId=acc_9', 0],
  ])('is filtered by %s', async (query, count) => {
    expect((await read(await withEvents(20), query)).items).toHaveLength(count)
  })

  it.each([
    'name=no.such.event',
    `${Array.from({ length: 11 }, () => 'name=login.failed').join('&')}`,
    'outcome=maybe',
    'ip=999.1.1.1',
    'from=yesterday',
    'from=9999-01-01T00:00:00Z',
    'accountId=%20',
    'limit=101',
    'cursor=x.y',
    'surprise=1',
  ])('refuses %s', async (query) => {
    const admin = await server.tokenOf('admin@mercy.example')
    expect(await server.call(admin, `${path}?${query}`)).toMatchObject({
      status: 400,
      body: { type: problem('input_invalid') },
    })
  })

  it('has its own reading in it, with the filter', async () => {
    const auditor = await server.tokenOf('auditor@mercy.example')
    const names = Array.from({ length: 10 }, () => 'name=client_authentication.failed').join('&')
    await server.call(auditor, `${path}?${names}&from=2020-01-01T00:00:00Z&limit=5`)
    const [event] = await server.audit('audit.read')
    expect(event).toMatchObject({
      actorId: server.ids.get('auditor@mercy.example'),
      details: { filter: { from: '2020-01-01T00:00:00Z' }, count: 0 },
    })
    expect(String(Object(Object(event?.details).filter).name)).toHaveLength(256)
  })

  it('is the organisation’s own', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    const { body } = await server.call(admin, `${path}?limit=100`)
    const [row] = await run("select id from mlpipes_auth.organizations where slug = 'mercy'")
    const owners = new Set([body['items']].flat().map((item) => Object(item).organizationId))
    expect(owners).toEqual(new Set([row?.['id']]))
    const other = await withEvents(3)
    expect((await server.call(admin, `${path}?organization=${other}`)).status).toBe(403)
    expect((await server.call(admin, `/api/audit/export?organization=${other}`)).status).toBe(403)
  })

  // Sign-ins with an unknown address, keys, unknown clients: nobody could read what belongs to no organisation.
  it('is read and exported beyond organisations by the platform: what belongs to none', async () => {
    const none = `organization=${encodeURIComponent('@none')}`
    await run(
      `insert into mlpipes_auth.audit_events (name, outcome, actor_type, organization_id, client_id)
       select 'login.failed', 'failure', 'anonymous', owner, 'app_nobody' from generate_series(1, 1200)
       cross join unnest(array[null, (select id from mlpipes_auth.organizations where slug = 'mercy')]) as owner`,
    )
    const keys = listed.parse((await root(`${path}?${none}&name=keys.created`)).body)
    expect(keys.items.length).toBeGreaterThan(0)
    const first = listed.parse((await root(`${path}?${none}&limit=100&clientId=app_nobody`)).body)
    expect(first.items).toHaveLength(100)
    const next = await root(`${path}?${none}&limit=100&clientId=app_nobody&cursor=${first.next}`)
    const both = [...first.items, ...listed.parse(next.body).items]
    expect(new Set(both.map(({ id }) => id)).size).toBe(200)
    for (const item of [...keys.items, ...both]) expect(item['organizationId']).toBeNull()
    const elsewhere = await root(`${path}?limit=100&clientId=app_nobody&cursor=${first.next}`)
    expect(elsewhere.status, 'a cursor is for one log').toBe(400)
    const file = await root(`/api/audit/export?${none}&clientId=app_nobody`)
    const lines = file.text.trim().split('\n')
    expect(lines).toHaveLength(1_200)
    for (const line of lines) expect(Object(JSON.parse(line)).organizationId).toBeNull()
    expect(file.headers.get('content-disposition')).toMatch(/"audit-without-organization-\d{4}-\d\d-\d\d\.ndjson"/)

    const [home] = await run("select id from mlpipes_auth.organizations where slug = 'platform'")
    for (const [name, count] of [
      ['audit.read', 100],
      ['audit.exported', 1_200],
    ] as const)
      expect((await server.audit(name))[0], 'in the log of whoever read it').toMatchObject({
        organizationId: home?.['id'],
        actorId: server.ids.get('root@platform.example'),
        details: { filter: { organization: '@none', clientId: 'app_nobody' }, count },
      })
  })

  it('is nobody else’s to read beyond organisations, and nothing else is asked of none', async () => {
    for (const at of [path, '/api/audit/export']) {
      for (const email of ['admin@mercy.example', 'auditor@mercy.example'])
        expect(await server.call(await server.tokenOf(email), `${at}?organization=@none`)).toMatchObject({
          status: 403,
          body: { permission: 'platform:organizations' },
        })
      await run("update mlpipes_auth.clients set permissions = '{platform:organizations}' where client_id = 'weak'")
      const service = await server.serviceToken('weak')
      expect(await server.call(service, `${at}?organization=@none`), 'nor with the platform alone').toMatchObject({
        status: 403,
        body: { permission: at === path ? 'audit:read' : 'audit:export' },
      })
    }
    for (const at of ['/api/admin/users', '/api/admin/organization', '/api/admin/policy', '/api/admin/sessions'])
      expect((await root(`${at}?organization=@none`)).status, at).toBe(404)
    const id = idParam.safeParse('@none')
    expect([id.success, slugSchema.safeParse('@none').success], 'no organisation is called that').toEqual([
      false,
      false,
    ])
  })

  it.each(['ndjson', 'csv'])(
    'is exported as %s, in batches, with its own event before the first line',
    async (format) => {
      const id = await withEvents(2_345, '=cmd|"/c calc"!A1, agent')
      const token = await server.tokenOf('root@platform.example')
      const answer = await fetch(`${server.issuer}/api/audit/export?organization=${id}&format=${format}`, {
        headers: { authorization: `Bearer ${token}` },
      })
      expect(answer.status).toBe(200)
      expect(answer.headers.get('content-disposition')).toMatch(/^attachment; filename="audit-o-\w+-\d{4}-\d\d-\d\d\./)
      expect(answer.headers.get('x-export-truncated')).toBe('false')
      expect(answer.headers.get('cache-control')).toBe('no-store')
      const lines = (await answer.text()).split(/\r?\n/).filter((line) => line !== '')
      if (format === 'csv') {
        expect(answer.headers.get('content-type')).toContain('text/csv')
        expect(lines.shift()).toMatch(/^occurredAt,id,name,/)
        expect(lines[0]).toContain(`"'=cmd|""/c calc""!A1, agent"`)
      } else {
        expect(answer.headers.get('content-type')).toContain('application/x-ndjson')
        const ids = lines.map((line) => Number(Object(JSON.parse(line)).id))
        expect(new Set(ids).size).toBe(2_345)
      }
      expect(lines).toHaveLength(2_345)
      const events = (await server.audit('audit.exported')).filter((event) => event.organizationId === id)
      expect(events).toMatchObject([{ details: { filter: { format }, count: 2_345 } }])
    },
  )

  it('is exported by its filter, and by nobody who may only read', async () => {
    const id = await withEvents(10)
    const admin = await root(`/api/audit/export?organization=${id}&outcome=failure&to=2999-01-01T00:00:00Z`)
    expect(admin.text.trim().split('\n')).toHaveLength(5)
    expect((await root(`/api/audit/export?organization=${id}&format=xml`)).status).toBe(400)
    const support = await server.tokenOf('support@mercy.example')
    expect(await server.call(support, '/api/audit/export')).toMatchObject({
      status: 403,
      body: { permission: 'audit:export' },
    })
  })
})
