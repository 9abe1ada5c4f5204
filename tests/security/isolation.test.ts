// Nobody sees another organisation's data, even when a statement forgets to say whose it wants: row-level security, table
// by table as the catalog lists them, on both databases, with the rights as they are and as if every right were given.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Database, organizationRole, runIn } from '../../src/db/database.ts'
import { attempt, columnsFor, denied, type Isolated, openIsolated } from '../support/isolated.ts'
import { databaseKinds } from '../support/server.ts'
import { platformTables, type StoredRow, scopedTables, type Tables } from '../support/two-organizations.ts'

const organizations = ['org_a', 'org_b'] as const
const textOf = (row: unknown) => JSON.stringify(row)
const literal = (row: StoredRow) => `'${textOf(row).replaceAll("'", "''")}'::jsonb`
const only = (columns: readonly string[]) => (row: StoredRow) =>
  Object.fromEntries(Object.entries(row).filter(([column]) => columns.includes(column)))

describe.each(databaseKinds)('isolation on %s', (kind) => {
  let isolated: Isolated
  let app: Database
  let tables: Tables
  const asAdministrator = (statement: string) => isolated.asAdministrator((tx) => runIn(tx, statement, []))
  const rowsOf = (table: string) => tables[table] ?? []
  beforeAll(async () => {
    isolated = await openIsolated(kind)
    app = isolated.app
    const read: Record<string, StoredRow[]> = {}
    for (const table of Object.keys(scopedTables)) {
      const rows = await asAdministrator(`select to_jsonb(t) as row from mlpipes_auth.${table} t`)
      read[table] = rows.map((row) => Object(row['row']))
    }
    tables = read
  })
  afterAll(() => isolated.close())

  it('knows every table: it has a rule, or a reason why it belongs to nobody', async () => {
    const rows = await asAdministrator(`select relname as name from pg_class
      where relnamespace = 'mlpipes_auth'::regnamespace and relkind in ('r', 'p') and not relispartition`)
    const known = [...Object.keys(scopedTables), ...Object.keys(platformTables)]
    expect(rows.map((row) => String(row['name'])).sort()).toEqual(known.sort())
    for (const [table, rule] of Object.entries(scopedTables)) {
      // Without rows of both, the tests below would say nothing.
      for (const organization of organizations)
        expect(
          rowsOf(table).filter((row) => rule.sees(row, organization, tables)),
          table,
        ).not.toEqual([])
    }
  })

  it('has row-level security enabled and forced on each, and no right of that role to any other', async () => {
    const rows = await asAdministrator(`select relname as name, relispartition as partition,
        relrowsecurity and relforcerowsecurity as stands,
        has_table_privilege('${organizationRole}', oid, 'select, insert, update, delete, truncate, references, trigger')
          or has_any_column_privilege('${organizationRole}', oid, 'select, insert, update, references') as reachable
      from pg_class where relnamespace = 'mlpipes_auth'::regnamespace and relkind in ('r', 'p')`)
    expect(rows.filter((row) => row['partition']).length).toBeGreaterThanOrEqual(4)
    for (const { name, partition, stands, reachable } of rows) {
      expect(stands, String(name)).toBe(String(name) in scopedTables || partition)
      if (!(String(name) in scopedTables)) expect(reachable, String(name)).toBe(false)
    }
  })

  it('keeps from that role what nothing in the administration reads', async () => {
    const kept = { password_credentials: 'hash', totp_credentials: 'sealed_secret', backup_codes: 'code_mac' }
    for (const [table, column] of Object.entries(kept))
      expect(await columnsFor(isolated, 'select', table), table).not.toContain(column)
    expect(await columnsFor(isolated, 'select', 'password_history')).toEqual([])
    for (const column of ['id', 'occurred_at'])
      expect(await columnsFor(isolated, 'insert', 'audit_events')).not.toContain(column)
  })

  describe.each(['the rights that it has', 'every right there is'])('with %s', (rights) => {
    // What the policies are worth alone, should a later migration grant more.
    beforeAll(async () => {
      if (rights === 'every right there is')
        await asAdministrator(`grant all on all tables in schema mlpipes_auth to ${organizationRole}`)
    })

    describe.each(Object.entries(scopedTables))('%s', (table, rule) => {
      const own = (organization: string) => rowsOf(table).filter((row) => rule.sees(row, organization, tables))
      const changeable = (organization: string) =>
        rowsOf(table).filter((row) => (rule.changes ?? rule.sees)(row, organization, tables))

      it.each(organizations)('shows %s its own rows and no other', async (organization) => {
        const columns = await columnsFor(isolated, 'select', table)
        const from = `(select ${columns.join(', ')} from mlpipes_auth.${table}) t`
        const seen = await attempt(app, organization, `select to_jsonb(t) as row from ${from}`)
        const expected = own(organization).map(only(columns)).map(textOf).sort()
        if (columns.length === 0) expect(table).toMatch(/^(password_history|known_devices|mail_outbox|sign_in_flows)$/)
        else expect(seen.rows.map((row) => textOf(row['row'])).sort()).toEqual(expected)
        const nothing = await attempt(app, '', `select 1 from ${from}`)
        expect(nothing.rows).toEqual([])
      })

      it.each(organizations)('lets %s change and remove its own rows and no other', async (organization) => {
        const count = changeable(organization).length
        const [column] = await columnsFor(isolated, 'update', table)
        const set = `${column ?? 'ctid'} = ${column ?? 'ctid'}`
        const updated = await attempt(app, organization, `update mlpipes_auth.${table} set ${set}`)
        expect(updated.changed).toBe(column === undefined ? 0 : count)
        const deleted = await attempt(app, organization, `delete from mlpipes_auth.${table}`)
        // An organisation is held by what refers to it.
        if (deleted.code === undefined) expect(deleted.changed).toBe(count)
        else
          expect(deleted.code).toBe(table === 'organizations' && rights !== 'the rights that it has' ? '23503' : denied)
        const others = rowsOf(table).filter((row) => !changeable(organization).includes(row))
        if (others.length === 0) return
        const aimed = `where to_jsonb(t) in (${others.map(literal).join(', ')})`
        for (const statement of [`update mlpipes_auth.${table} t set ${set}`, `delete from mlpipes_auth.${table} t`])
          expect((await attempt(app, organization, `${statement} ${aimed}`)).changed).toBe(0)
      })

      it.each(organizations)('lets %s add rows of its own and no other', async (organization) => {
        const columns = await columnsFor(isolated, 'insert', table)
        const adds = rule.adds ?? rule.changes ?? rule.sees
        const into = `insert into mlpipes_auth.${table} (${columns.join(', ')}) select ${columns.join(', ')}`
        for (const row of columns.length === 0 ? [] : rowsOf(table)) {
          const insert = `${into} from jsonb_populate_record(null::mlpipes_auth.${table}, ${literal(row)})`
          const { code } = await attempt(app, organization, insert)
          // Its own may be there already; a policy would have refused it before that was found.
          if (adds(row, organization, tables)) expect([undefined, '23505'], textOf(row)).toContain(code)
          else expect(code, textOf(row)).toBe(denied)
          expect((await attempt(app, '', insert)).code, textOf(row)).toBe(denied)
        }
      })
    })

    it.each([
      'accounts',
      'memberships',
      'clients',
      'organization_roles',
      'organization_domains',
      'webhooks',
      'deliveries',
      'idempotency_keys',
    ])('gives none of its %s to another', async (table) => {
      const moved = await attempt(app, 'org_a', `update mlpipes_auth.${table} set organization_id = 'org_b'`)
      expect(moved.code).toBe(denied)
    })

    it('closes the partitions of the audit log to both roles, those made later too', async () => {
      await asAdministrator(`do $$ begin execute (select 'drop table mlpipes_auth.' || max(relname) from pg_class
        where relname ~ '^audit_events_[0-9]{6}$' and relnamespace = 'mlpipes_auth'::regnamespace); end $$`)
      expect(await app.run('select mlpipes_auth.ensure_audit_partitions() as made', [])).toEqual([{ made: 1 }])
      const partitions =
        await asAdministrator(`select inhrelid::regclass::text as name, relrowsecurity and relforcerowsecurity as stands
        from pg_inherits join pg_class on oid = inhrelid where inhparent = 'mlpipes_auth.audit_events'::regclass`)
      expect(partitions.length).toBeGreaterThanOrEqual(4)
      for (const { name, stands } of partitions) {
        expect(stands, String(name)).toBe(true)
        expect((await attempt(app, 'org_a', `select 1 from ${name}`)).rows).toEqual([])
        await expect(app.run(`select 1 from ${name}`, [])).rejects.toMatchObject({ code: denied })
      }
    })
  })
})
