// A migrated database with two organisations in it, for tests of row-level security: as the application has it, and with
// every right beside it.
import { sql } from 'kysely'
import { inject } from 'vitest'
import { type Database, openPostgres, organizationRole, runIn, type Tx } from '../../src/db/database.ts'
import { transactFor } from '../../src/db/organization-transaction.ts'
import { transact } from '../../src/db/transaction.ts'
import { migratedPglite, migratedPostgres } from './migrated.ts'
import { fillTwoOrganizations, type StoredRow } from './two-organizations.ts'

/** SQLSTATE of what rights or policies refuse. */
export const denied = '42501'
const ignore = () => undefined

export interface Isolated {
  readonly app: Database
  /** Does something with every right, on a connection of its own where there is more than one. */
  asAdministrator<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  readonly urls: { readonly app: string; readonly owner: string } | undefined
  close(): Promise<void>
}

/** A migrated and filled database, without a server. */
export async function openIsolated(kind: 'postgres' | 'pglite'): Promise<Isolated> {
  if (kind === 'pglite') {
    const app = await migratedPglite(inject('pgliteDump'))
    await fillTwoOrganizations(app)
    await app.becomeApp()
    const asAdministrator = <T>(work: (tx: Tx) => Promise<T>) =>
      transact(app.kysely, async (tx) => {
        await sql`set local role none`.execute(tx)
        return work(tx)
      })
    return { app, asAdministrator, urls: undefined, close: app.close }
  }
  const adminUrl = inject('postgresAdminUrl')
  const { name, ownerUrl, appUrl } = await migratedPostgres(adminUrl)
  const open = (url: string, role: 'owner' | 'app', poolSize: number) =>
    openPostgres({ url, role, poolSize, onIdleError: ignore })
  const owner = open(ownerUrl, 'owner', 1)
  // As the owner, who is no superuser: FORCE holds them too, and they must not lose sight of the rows.
  await fillTwoOrganizations(owner)
  await owner.close()
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  const administrator = open(url.href, 'owner', 1)
  const app = open(appUrl, 'app', 4)
  return {
    app,
    asAdministrator: (work) => transact(administrator.kysely, work),
    urls: { app: appUrl, owner: ownerUrl },
    async close() {
      await app.close()
      await administrator.close()
    },
  }
}

class Undo extends Error {}

export interface Outcome {
  readonly rows: readonly StoredRow[]
  readonly changed: number
  /** SQLSTATE of the refusal. */
  readonly code?: unknown
}

/** Runs one statement for an organisation and undoes it. */
export async function attempt(app: Database, organization: string, statement: string): Promise<Outcome> {
  let outcome: Outcome = { rows: [], changed: 0 }
  const work = async (tx: Tx) => {
    try {
      const { rows, numAffectedRows = 0n } = await sql.raw<StoredRow>(statement).execute(tx)
      outcome = { rows, changed: Number(numAffectedRows) }
    } catch (error) {
      outcome = { rows: [], changed: 0, code: Reflect.get(Object(error), 'code') }
    }
    throw new Undo()
  }
  await transactFor(app.kysely, organization, work).catch((error: unknown) => {
    if (!(error instanceof Undo)) throw error
  })
  return outcome
}

/** The columns of a table that the organisation's role has this right to. */
export async function columnsFor({ asAdministrator }: Isolated, right: 'select' | 'insert' | 'update', table: string) {
  const rows = await asAdministrator((tx) =>
    runIn(
      tx,
      `select attname as name from pg_attribute where attrelid = ('mlpipes_auth.' || $1::text)::regclass and attnum > 0
        and not attisdropped and ($2::text = 'select' or attidentity = '' and attgenerated = '')
        and has_column_privilege('${organizationRole}', attrelid, attnum, $2) order by attnum`,
      [table, right],
    ),
  )
  return rows.map((row) => String(row['name']))
}
