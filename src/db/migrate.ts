// Migrations: SQL files under migrations/, forward only, fed to Kysely's Migrator, which takes an advisory lock so that
// several replicas may migrate at once.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Kysely, sql } from 'kysely'
import { type Migration, Migrator } from 'kysely/migration'
import { appRole, type Db, schemaName } from './database.ts'

const folder = join(import.meta.dirname, '../../migrations')
const statementSeparator = /^-- next$/m

async function readMigrations(): Promise<Record<string, Migration>> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  const entries = names.map(async (name): Promise<[string, Migration]> => {
    const text = await readFile(join(folder, name), 'utf8')
    const statements = text.split(statementSeparator).map((statement) => statement.trim())
    return [name.replace(/\.sql$/, ''), { up: (db) => runAll(db, statements) }]
  })
  return Object.fromEntries(await Promise.all(entries))
}

async function runAll(db: Kysely<unknown>, statements: readonly string[]): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}

function createMigrator(db: Db): Migrator {
  return new Migrator({
    db,
    provider: { getMigrations: readMigrations },
    migrationTableSchema: schemaName,
    migrationTableName: 'schema_migrations',
    migrationLockTableName: 'schema_migrations_lock',
  })
}

/** Applies what is missing, as the owner role. Returns the names applied. Throws what the database said. */
export async function migrate(db: Db): Promise<string[]> {
  await sql.raw(`create schema if not exists ${schemaName}`).execute(db)
  const { error, results } = await createMigrator(db).migrateToLatest()
  if (error) throw error
  if (results && results.length > 0) {
    await sql.raw(`grant select on ${schemaName}.schema_migrations to ${appRole}`).execute(db)
  }
  return (results ?? []).filter((result) => result.status === 'Success').map((result) => result.migrationName)
}

export interface MigrationState {
  readonly applied: readonly string[]
  readonly pending: readonly string[]
}

/** What stands in the database against what this release brings. Reads only. */
export async function migrationState(db: Db): Promise<MigrationState> {
  const known = Object.keys(await readMigrations())
  const applied = await appliedNames(db)
  return { applied, pending: known.filter((name) => !applied.includes(name)) }
}

async function appliedNames(db: Db): Promise<string[]> {
  const found = await sql<{
    present: boolean
  }>`select to_regclass(${`${schemaName}.schema_migrations`}) is not null as present`.execute(db)
  if (!found.rows[0]?.present) return []
  const rows = await sql<{
    name: string
  }>`select name from ${sql.table(`${schemaName}.schema_migrations`)} order by name`.execute(db)
  return rows.rows.map((row) => row.name)
}
