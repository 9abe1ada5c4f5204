// The database of one process: PostgreSQL through a pool, or PGlite inside the process. Chosen here and nowhere else.
import { CompiledQuery, Kysely, PGliteDialect, PostgresDialect, sql, type Transaction } from 'kysely'
import pg from 'pg'
import { retryCollisions } from './pg-errors.ts'
import type { Schema } from './schema.ts'
import { byName, tune } from './wire.ts'

export const schemaName = 'mlpipes_auth'
export const appRole = 'mlpipes_auth_app'
/** What the app role becomes for a transaction of one organisation: organization-transaction.ts. */
export const organizationRole = 'mlpipes_auth_organization'

export type Db = Kysely<Schema>
export type Tx = Transaction<Schema>
export type Row = Record<string, unknown>

export interface Database {
  readonly kind: 'postgres' | 'pglite'
  readonly kysely: Db
  /** Runs a statement of ours outside any transaction, without Kysely's share of the cost. `values` are scalars or arrays of scalars. */
  run(statement: string, values: readonly unknown[]): Promise<Row[]>
  close(): Promise<void>
}

export interface PostgresOptions {
  readonly url: string
  readonly poolSize: number
  /** The owner works as itself and may take its time; the application works as the app role under time-outs. */
  readonly role: 'owner' | 'app'
  /** Told of connections that broke while idle. Without a listener such a break would end the process (D8). */
  onIdleError(error: Error): void
}

const acquireTimeoutMs = 3_000
const statementTimeoutMs = 10_000
const lockTimeoutMs = 5_000
const idleInTransactionTimeoutMs = 15_000

/** Opens a pool on PostgreSQL. No connection is made until the first statement. */
export function openPostgres(options: PostgresOptions): Database {
  const session = [`search_path=${schemaName},pg_catalog,pg_temp`, 'timezone=UTC']
  // Left to itself PostgreSQL plans what is asked with arrays anew each time, since a plan for the one item that is asked looks
  // cheaper than one for ten: 1.4 ms of an introspection's 1.9. Where one plan does not suit all, a transaction says so
  // (organization-transaction.ts). Nor does a request take more than one of its cores, or compile what takes some milliseconds.
  const planning = ['plan_cache_mode=force_generic_plan', 'max_parallel_workers_per_gather=0', 'jit=off']
  if (options.role === 'app') session.push(`role=${appRole}`, `lock_timeout=${lockTimeoutMs}`, ...planning)
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.poolSize,
    connectionTimeoutMillis: acquireTimeoutMs,
    idleTimeoutMillis: 30_000,
    application_name: 'mlpipes-auth',
    pipeline: true,
    options: session.map((setting) => `-c ${setting}`).join(' '),
    ...(options.role === 'app'
      ? {
          statement_timeout: statementTimeoutMs,
          query_timeout: statementTimeoutMs + 2_000,
          idle_in_transaction_session_timeout: idleInTransactionTimeoutMs,
        }
      : {}),
  })
  pool.on('error', options.onIdleError)
  // The pool listens only while a connection is idle; one that breaks between two statements of a transaction would
  // end the process all the same.
  pool.on('connect', (client) => {
    client.on('error', options.onIdleError)
    tune(client)
  })
  const kysely = new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) })
  return {
    kind: 'postgres',
    kysely,
    async run(statement, values) {
      const query = byName(statement, values)
      const result = await retryCollisions(() => pool.query<Row>(query))
      return result.rows
    },
    close: () => kysely.destroy(),
  }
}

/**
 * Opens the embedded database.
 * @param dataDir folder of its files, or undefined to keep it in memory
 * @param dump of another one, to begin as its copy
 * The caller migrates as the owner and then calls `becomeApp`, after which the rights are those of the app role.
 */
export async function openPglite(
  dataDir: string | undefined,
  dump?: Blob,
): Promise<Database & { becomeApp(): Promise<void> }> {
  const { PGlite } = await import('@electric-sql/pglite')
  const pglite = await PGlite.create({
    ...(dataDir === undefined ? {} : { dataDir }),
    ...(dump === undefined ? {} : { loadDataDir: dump }),
  })
  await pglite.exec(
    `create schema if not exists ${schemaName}; set search_path = ${schemaName}, pg_catalog, pg_temp; set timezone = 'UTC'`,
  )
  const kysely = new Kysely<Schema>({ dialect: new PGliteDialect({ pglite }) })
  return {
    kind: 'pglite',
    kysely,
    async run(statement, values) {
      const result = await kysely.executeQuery(CompiledQuery.raw(statement, [...values]))
      return result.rows as Row[]
    },
    async becomeApp() {
      await sql.raw(`set role ${appRole}`).execute(kysely)
    },
    close: () => kysely.destroy(),
  }
}

/** Runs a statement of ours inside a transaction. */
export async function runIn(tx: Tx, statement: string, values: readonly unknown[]): Promise<Row[]> {
  const result = await tx.executeQuery(CompiledQuery.raw(statement, [...values]))
  return result.rows as Row[]
}
