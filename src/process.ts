// What a process of this program holds: its secret, its database in the right role, and how both are let go.
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import { type Config, ConfigError } from './config.ts'
import { type Database, openPglite, openPostgres } from './db/database.ts'
import { migrate, migrationState } from './db/migrate.ts'

/** The secret of the configuration, or in development the one kept in the data directory (made on first use). */
export async function resolveSecret(config: Config): Promise<string> {
  if (config.secret !== undefined) return config.secret
  if (config.production) throw new ConfigError(['MLPIPES_AUTH_SECRET: is required when NODE_ENV=production'])
  const file = join(config.dataDir, 'secret')
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 })
  // "wx" makes exactly one of two processes write it; the other reads what was written.
  await writeFile(file, randomBytes(48).toString('base64url'), { mode: 0o600, flag: 'wx' }).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    },
  )
  await chmod(file, 0o600)
  return (await readFile(file, 'utf8')).trim()
}

/** Thrown when the schema is older than this release; `mlpipes-auth migrate` mends it. */
export class SchemaTooOld extends Error {}

/**
 * Opens the database as the app role. The embedded database is migrated first; on PostgreSQL an old schema is refused.
 */
export async function openDatabase(config: Config, logger: FastifyBaseLogger): Promise<Database> {
  if (config.databaseUrl === undefined) return openEmbedded(config)
  const database = openPostgres({
    url: config.databaseUrl,
    poolSize: config.databasePoolSize,
    role: 'app',
    onIdleError: (error) => logger.warn({ err: error }, 'a database connection was lost'),
  })
  const { pending } = await migrationState(database.kysely).catch(async (error: unknown) => {
    await database.close()
    throw error
  })
  if (pending.length > 0) {
    await database.close()
    throw new SchemaTooOld(
      `the database schema is older than this release (missing: ${pending.join(', ')}); run: mlpipes-auth migrate`,
    )
  }
  return database
}

async function openEmbedded(config: Config): Promise<Database> {
  const folder = join(config.dataDir, 'pglite')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const database = await openPglite(folder)
  await migrate(database.kysely)
  await database.becomeApp()
  return database
}

/** Opens the database as the owner role, for migrating. */
export async function openAsOwner(config: Config): Promise<Database> {
  if (config.databaseAdminUrl === undefined) {
    await mkdir(join(config.dataDir, 'pglite'), { recursive: true, mode: 0o700 })
    return openPglite(join(config.dataDir, 'pglite'))
  }
  return openPostgres({ url: config.databaseAdminUrl, poolSize: 2, role: 'owner', onIdleError: () => undefined })
}
