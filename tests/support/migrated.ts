// Migrated databases for one test file. To make one takes seconds of a core, so a run makes one of each kind and every file
// begins with a copy.
import { openAsBlob } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { PGlite } from '@electric-sql/pglite'
import { Kysely, PGliteDialect } from 'kysely'
import pg from 'pg'
import { openPglite, openPostgres, schemaName } from '../../src/db/database.ts'
import { migrate } from '../../src/db/migrate.ts'
import { createDatabase, type TestDatabase } from './postgres.ts'

/** Writes the dump of a migrated embedded database. */
export async function dumpMigrated(file: string): Promise<void> {
  const pglite = await PGlite.create()
  await pglite.exec(`create schema ${schemaName}; set search_path = ${schemaName}, pg_catalog, pg_temp`)
  await migrate(new Kysely({ dialect: new PGliteDialect({ pglite }) }))
  const dump = await pglite.dumpDataDir('none')
  await writeFile(file, dump.stream())
  await pglite.close()
}

/** As the owner has it; `becomeApp` is what comes next. */
export async function migratedPglite(dump: string): ReturnType<typeof openPglite> {
  return openPglite(undefined, await openAsBlob(dump))
}

const template = 'migrated'
// What anybody may do in a database stands beside it and is not copied with it.
const copyRights = `select format('revoke temporary on database %I from public', $1::text) as statement
    where not has_database_privilege('auth_login', '${template}', 'temporary')`

/** On a cluster of its own the first to ask makes the template. */
export async function migratedPostgres(adminUrl: string): Promise<TestDatabase> {
  const admin = new pg.Client({ connectionString: adminUrl })
  await admin.connect()
  try {
    await admin.query('select pg_advisory_lock(4712)')
    const { rowCount } = await admin.query('select from pg_database where datname = $1', [template])
    if (rowCount === 0) await makeTemplate(adminUrl, admin)
    const made = await createDatabase(adminUrl, { template })
    for (const { statement } of (await admin.query(copyRights, [made.name])).rows) await admin.query(statement)
    return made
  } finally {
    await admin.end()
  }
}

async function makeTemplate(adminUrl: string, admin: pg.Client): Promise<void> {
  const { name, ownerUrl } = await createDatabase(adminUrl)
  const owner = openPostgres({ url: ownerUrl, poolSize: 1, role: 'owner', onIdleError: () => undefined })
  await migrate(owner.kysely)
  await owner.close()
  await admin.query(`alter database ${name} rename to ${template}`)
}
