// The role of one organisation is a transaction's and nobody's after it: on warm connections, after errors, with statements
// that are planned already; the application's own statements cost what they cost without row-level security.
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { examine } from '../../src/cli/doctor.ts'
import { parseConfig } from '../../src/config.ts'
import { appRole, type Database, openPostgres, organizationRole, runIn, type Tx } from '../../src/db/database.ts'
import { migrate, migrationState } from '../../src/db/migrate.ts'
import { beyond, confineTo, transactFor } from '../../src/db/organization-transaction.ts'
import { transact } from '../../src/db/transaction.ts'
import { introspect, obtainTokens } from '../support/client.ts'
import { denied, type Isolated, openIsolated } from '../support/isolated.ts'
import { databaseKinds, startServer } from '../support/server.ts'
import { type StoredRow, scopedTables } from '../support/two-organizations.ts'

const whoAmI = `select current_user as role, coalesce(current_setting('mlpipes_auth.organization', true), '') as organization,
  pg_backend_pid() as backend, $1::text as asked`
const listed = 'select id from mlpipes_auth.organizations where id like $1 order by id'
const idsOf = (rows: readonly StoredRow[]) => rows.map((row) => row['id'])
const everyone = ['org_a', 'org_b']

describe.each(databaseKinds)('transactions of one organisation on %s', (kind) => {
  let isolated: Isolated
  /** One connection, so that whatever a transaction leaves behind meets the next. */
  let app: Database
  beforeAll(async () => {
    isolated = await openIsolated(kind)
    const { urls } = isolated
    app = urls ? openPostgres({ url: urls.app, poolSize: 1, role: 'app', onIdleError: () => undefined }) : isolated.app
  })
  afterAll(async () => {
    if (app !== isolated.app) await app.close()
    await isolated.close()
  })

  async function expectNothingLeft(): Promise<void> {
    expect(await app.run(whoAmI, [''])).toMatchObject([{ role: appRole, organization: '' }])
    expect(idsOf(await app.run(listed, ['org_%']))).toEqual(everyone)
  }
  const inA = <T>(work: (tx: Tx) => Promise<T>) => transactFor(app.kysely, 'org_a', work)
  const nonsense = 'select 1 / $1::integer'

  it('see their organisation and leave nothing behind, on the same connection', async () => {
    await expectNothingLeft()
    const [before] = await app.run(whoAmI, [''])
    const [inside] = await inA((tx) => runIn(tx, whoAmI, ['']))
    expect(inside).toMatchObject({ role: organizationRole, organization: 'org_a', backend: before?.['backend'] })
    await expectNothingLeft()
  })

  it.each<[string, (tx: Tx) => Promise<unknown>]>([
    ['a throw', () => Promise.reject(new Error('no'))],
    ['a statement that fails', (tx) => runIn(tx, nonsense, [0])],
    ['a statement that is refused', (tx) => runIn(tx, 'select kid from mlpipes_auth.signing_keys', [])],
    [
      'statements sent at once, of which one fails',
      (tx) => Promise.all([runIn(tx, listed, ['%']), runIn(tx, nonsense, [0]), runIn(tx, whoAmI, [''])]),
    ],
    ['a throw beyond it', (tx) => beyond(tx, 'org_a', () => Promise.reject(new Error('no')))],
    ['a failure beyond it', (tx) => beyond(tx, 'org_a', () => runIn(tx, nonsense, [0]))],
  ])('leave nothing behind after %s', async (_what, work) => {
    await expect(inA(work)).rejects.toThrow()
    await expectNothingLeft()
  })

  it('leave nothing behind when begin and the change of role go out together and the latter fails', async () => {
    const bad = transact(app.kysely, (tx) => sql`select set_config('role', ${'no_such_role'}, true)`.execute(tx))
    await expect(bad).rejects.toThrow(/no_such_role/)
    await expectNothingLeft()
    // Nor does one that works, when what follows in the same flight does not.
    const both = transact(app.kysely, (tx) => Promise.all([confineTo(tx, 'org_a'), runIn(tx, nonsense, [0])]))
    await expect(both).rejects.toThrow(/zero/)
    await expectNothingLeft()
  })

  it('end with a savepoint that is rolled back, as far as it is concerned', async () => {
    const seen = await transact(app.kysely, async (tx) => {
      await sql`savepoint here`.execute(tx)
      await confineTo(tx, 'org_a')
      const inside = await runIn(tx, listed, ['%'])
      await sql`rollback to savepoint here`.execute(tx)
      return [idsOf(inside), idsOf(await runIn(tx, listed, ['%']))]
    })
    expect(seen).toEqual([['org_a'], everyone])
  })

  it('plan a statement anew for whoever runs it', async () => {
    // More often than a generic plan takes to be chosen.
    for (let round = 0; round < 8; round += 1) {
      expect(idsOf(await app.run(listed, ['org_%']))).toEqual(everyone)
      expect(idsOf(await inA((tx) => runIn(tx, listed, ['org_%'])))).toEqual(['org_a'])
      expect(idsOf(await transactFor(app.kysely, 'org_b', (tx) => runIn(tx, listed, ['org_%'])))).toEqual(['org_b'])
    }
  })

  it('keep to themselves side by side, and beyond reaches everything and comes back', async () => {
    const asked = Array.from({ length: 60 }, (_, index) => (index % 2 === 0 ? 'org_a' : 'org_b'))
    const seen = await Promise.all(
      asked.map((organization) =>
        transactFor(isolated.app.kysely, organization, async (tx) => {
          const first = idsOf(await runIn(tx, listed, ['org_%']))
          const all = await beyond(tx, organization, async () => idsOf(await runIn(tx, listed, ['org_%'])))
          return [first, all, idsOf(await runIn(tx, listed, ['org_%']))]
        }),
      ),
    )
    expect(seen).toEqual(asked.map((organization) => [[organization], everyone, [organization]]))
  })

  it.each(['', 'org_', 'org_%', 'ORG_A', 'no such', `org_a' or '1'='1`])('see nothing as "%s"', async (name) => {
    for (const table of ['organizations', 'accounts', 'sessions', 'audit_events'])
      expect(await transactFor(app.kysely, name, (tx) => runIn(tx, `select 1 from mlpipes_auth.${table}`, []))).toEqual(
        [],
      )
  })

  it('see nothing in that role when no organisation was ever named', async () => {
    const seen = await transact(app.kysely, async (tx) => {
      await sql.raw(`set local role ${organizationRole}`).execute(tx)
      return runIn(tx, 'select 1 from mlpipes_auth.accounts', [])
    })
    expect(seen).toEqual([])
  })

  // What this does not protect against: the login may take the app role back, or else `beyond` and the next transaction
  // could not. Whoever can have it run SQL of theirs is not held by it.
  it('can be left by whoever writes the SQL, to the app role and no further', async () => {
    const roles = await inA(async (tx) => {
      await sql.raw(`set local role ${appRole}`).execute(tx)
      return runIn(tx, whoAmI, [''])
    })
    expect(roles).toMatchObject([{ role: appRole }])
    if (kind === 'postgres')
      await expect(inA((tx) => sql`set local role auth_owner`.execute(tx))).rejects.toMatchObject({ code: denied })
    await expectNothingLeft()
  })

  it('guests are seen, and managed at home alone', async () => {
    const [seen, changed] = await inA(async (tx) => [
      await runIn(tx, 'select name from mlpipes_auth.accounts where id = $1', ['acc_b2']),
      await runIn(tx, 'update mlpipes_auth.accounts set name = $2 where id = $1 returning id', ['acc_b2', 'Mallory']),
    ])
    expect(seen).toEqual([{ name: 'Person acc_b2' }])
    expect(changed).toEqual([])
    const invited = inA((tx) =>
      runIn(tx, 'insert into mlpipes_auth.memberships (account_id, organization_id, home) values ($1, $2, false)', [
        'acc_b1',
        'org_a',
      ]),
    )
    await expect(invited).rejects.toMatchObject({ code: denied })
  })
})

it('leaves the owner, whom FORCE holds too, every row and every right', async () => {
  const isolated = await openIsolated('postgres')
  const owner = openPostgres({
    url: isolated.urls?.owner ?? '',
    poolSize: 1,
    role: 'owner',
    onIdleError: () => undefined,
  })
  for (const table of Object.keys(scopedTables)) {
    const count = `select count(*)::integer as rows from mlpipes_auth.${table}`
    const all = await isolated.asAdministrator((tx) => runIn(tx, count, []))
    expect(Number(all[0]?.['rows']), table).toBeGreaterThan(0)
    expect(await owner.run(count, []), table).toEqual(all)
  }
  const touch = 'update mlpipes_auth.accounts set updated_at = now() where true returning id'
  expect((await owner.run(touch, [])).length).toBe(6)
  // What pg_dump sets, so that it stops rather than leave rows out (docs/operating.md).
  const dump = transact(owner.kysely, async (tx) => {
    await sql`set local row_security = off`.execute(tx)
    return runIn(tx, 'select id from mlpipes_auth.accounts', [])
  })
  await expect(dump).rejects.toMatchObject({ code: denied })
  expect(await migrate(owner.kysely)).toEqual([])
  expect((await migrationState(owner.kysely)).pending).toEqual([])
  await owner.close()
  await isolated.close()
})

it('is what doctor looks at', async () => {
  const isolated = await openIsolated('postgres')
  const config = parseConfig({ NODE_ENV: 'test', DATABASE_URL: isolated.urls?.app ?? '' })
  const finding = async () => (await examine(config)).find(({ check }) => check === 'isolation')
  expect(await finding()).toMatchObject({ ok: true })
  const webhooks = (what: string) =>
    isolated.asAdministrator((tx) => runIn(tx, `alter table mlpipes_auth.webhooks ${what} row level security`, []))
  await webhooks('no force')
  expect(await finding()).toMatchObject({ ok: false, detail: expect.stringContaining('webhooks') })
  await webhooks('force')
  const { name } = (await isolated.asAdministrator((tx) => runIn(tx, anyPartition, [])))[0] ?? {}
  await isolated.asAdministrator((tx) => runIn(tx, `alter table ${name} disable row level security`, []))
  expect(await finding()).toMatchObject({ ok: false, detail: expect.stringContaining('audit_events_') })
  await isolated.close()
})
const anyPartition = `select inhrelid::regclass::text as name from pg_inherits
  where inhparent = 'mlpipes_auth.audit_events'::regclass limit 1`

describe('plans of the application', () => {
  it('are those without row-level security', async () => {
    const server = await startServer('pglite')
    const { database } = server
    const run = vi.spyOn(database, 'run')
    const tokens = await obtainTokens(server, 'ehr')
    expect(await introspect(server, tokens.access_token)).toMatchObject({ active: true })
    const statements = new Map(run.mock.calls.map(([statement, values]) => [statement, values]))
    run.mockRestore()
    const hot = [
      'oidc_payloads p',
      'from mlpipes_auth.sessions',
      'join mlpipes_auth.memberships',
      'from mlpipes_auth.clients',
    ]
    for (const table of hot)
      expect(
        [...statements.keys()].some((statement) => statement.includes(table)),
        table,
      ).toBe(true)
    for (const [statement, values] of statements) {
      const plan = await transact(database.kysely, (tx) => explain(tx, statement, values))
      expect(plan).not.toMatch(/current_setting|current_organization/)
      expect(plan, statement).toBe(await transact(database.kysely, (tx) => explainWithout(tx, statement, values)))
    }
    await server.close()
  })

  async function explain(tx: Tx, statement: string, values: readonly unknown[]): Promise<string> {
    await sql`set local enable_seqscan = off`.execute(tx)
    const rows = await runIn(tx, `explain (costs off, verbose) ${statement}`, values)
    return rows.map((row) => String(row['QUERY PLAN'])).join('\n')
  }

  async function explainWithout(tx: Tx, statement: string, values: readonly unknown[]): Promise<string> {
    await sql`set local role none`.execute(tx)
    for (const table of Object.keys(scopedTables))
      await sql.raw(`alter table mlpipes_auth.${table} disable row level security`).execute(tx)
    await sql.raw(`set local role ${appRole}`).execute(tx)
    const plan = await explain(tx, statement, values)
    await sql`set local role none`.execute(tx)
    for (const table of Object.keys(scopedTables))
      await sql.raw(`alter table mlpipes_auth.${table} enable row level security`).execute(tx)
    return plan
  }
})
