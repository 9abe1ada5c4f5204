// F70: every operation of the admin API, by everybody, to what is theirs, somebody else's and nobody's. An operation
// without a row fails.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { AdminOperation } from '../../src/admin/operation.ts'
import { adminOperations } from '../../src/admin/operations.ts'
import { appRows } from './app-rows.ts'
import { type Asker, askers, organizationId, peopleRows, type Row, type Target } from './matrix-rows.ts'
import { organizationRows } from './organization-rows.ts'
import { type AdminServer, type ApiAnswer, problem, startAdmin } from './support.ts'

const rows: Readonly<Record<string, Row>> = { ...peopleRows, ...organizationRows, ...appRows }

const emails: Readonly<Record<Exclude<Asker, 'nobody'>, string>> = {
  member: 'member@mercy.example',
  auditor: 'auditor@mercy.example',
  support: 'support@mercy.example',
  admin: 'admin@mercy.example',
  elsewhere: 'admin@hope.example',
  platform: 'root@platform.example',
}

it('has a row for every operation, and no row for none', () => {
  expect(Object.keys(rows).sort()).toEqual(adminOperations.map(({ id }) => id).sort())
})

describe('every operation', () => {
  let server: AdminServer
  let mercy: string
  beforeAll(async () => {
    server = await startAdmin('postgres')
    mercy = await organizationId(server, 'mercy')
  })
  afterAll(() => server.close())

  async function ask(operation: AdminOperation, asker: Asker, { params = {}, etag }: Target): Promise<ApiAnswer> {
    const token = asker === 'nobody' ? undefined : await server.tokenOf(emails[asker])
    const path = operation.path.replace(/:(\w+)/g, (_all, name: string) => params[name] ?? 'missing')
    const unique = randomBytes(9).toString('hex')
    return server.call(token, asker === 'platform' ? `${path}?organization=${mercy}` : path, {
      method: operation.method,
      ...(operation.body ? { body: rows[operation.id]?.body?.(unique) ?? {} } : {}),
      headers: etag === undefined ? {} : { 'if-match': etag },
    })
  }
  const denials = async () => {
    const statement = "select count(*) as denials from mlpipes_auth.audit_events where name = 'admin.access_denied'"
    return Number((await server.database.run(statement, []))[0]?.['denials'])
  }
  const comparable = ({ status, body }: ApiAnswer) => ({ status, body: { ...body, instance: '' } })
  const made = (row: Row, slug: 'mercy' | 'hope') => row.target?.(server, slug) ?? Promise.resolve({})
  /** Of the right shape, and nowhere. */
  const missing = ({ params = {}, etag }: Target): Target => ({
    params: Object.fromEntries(Object.entries(params).map(([name, id]) => [name, `${id.slice(0, -6)}000000`])),
    ...(etag === undefined ? {} : { etag }),
  })

  it.each(adminOperations.flatMap((operation) => askers.map((asker) => [operation.id, asker, operation] as const)))(
    '%s by %s',
    async (id, asker, operation) => {
      const row = rows[id]
      if (!row) throw new Error(`no row for ${id}`)
      const may = row.may.includes(asker) || asker === 'platform' || (asker === 'elsewhere' && !row.isPlatforms)
      const own = await made(row, asker === 'elsewhere' ? 'hope' : 'mercy')
      const other = row.target && !row.isSole ? await made(row, asker === 'elsewhere' ? 'mercy' : 'hope') : undefined
      if (asker === 'nobody' || !may) {
        const before = await denials()
        const status = asker === 'nobody' ? 401 : 403
        const answers = await Promise.all([own, other ?? own, missing(own)].map((one) => ask(operation, asker, one)))
        for (const answer of answers) expect(comparable(answer)).toEqual(comparable(answers[0] ?? answer))
        expect(answers[0]?.status).toBe(status)
        expect(await denials(), 'each denial is written down').toBe(before + (asker === 'nobody' ? 0 : 3))
        return
      }
      if (other) {
        const before = await denials()
        const absent = await ask(operation, asker, missing(own))
        expect(absent).toMatchObject({ status: 404, body: { type: problem('not_found') } })
        expect(await denials(), 'what is nowhere is no denial').toBe(before)
        expect(comparable(await ask(operation, asker, other)), 'like what is nowhere').toEqual(comparable(absent))
        expect(await denials(), 'what is elsewhere is one').toBe(before + (row.isLocal ? 0 : 1))
      }
      expect(await ask(operation, asker, own)).toMatchObject({ status: row.status })
      if (row.signsOut) server.forgetTokens()
    },
  )
})
