// A migrated database without a server, with accounts to count against: for tests of what lives in the database alone.
import { inject } from 'vitest'
import { type Database, openPostgres } from '../../src/db/database.ts'
import { migratedPglite, migratedPostgres } from './migrated.ts'

const ignore = () => undefined

/** Opens `replicas` pools over one fresh PostgreSQL database. */
export async function barePostgres(replicas: number, poolSize = 12): Promise<Database[]> {
  const { appUrl } = await migratedPostgres(inject('postgresAdminUrl'))
  return Array.from({ length: replicas }, () =>
    openPostgres({ url: appUrl, poolSize, role: 'app', onIdleError: ignore }),
  )
}

export async function bareDatabase(kind: 'postgres' | 'pglite'): Promise<Database> {
  const [postgres] = kind === 'postgres' ? await barePostgres(1) : []
  if (postgres) return postgres
  const pglite = await migratedPglite(inject('pgliteDump'))
  await pglite.becomeApp()
  return pglite
}

/** Adds an account that has nothing but an id. */
export async function addAccount(database: Database, id: string): Promise<void> {
  await database.run(
    `insert into mlpipes_auth.organizations (id, slug, name) values ('org_test', 'test', 'Test') on conflict (id) do nothing`,
    [],
  )
  await database.run(
    `insert into mlpipes_auth.accounts (id, email, email_normalized, name, organization_id)
      values ($1::text, $2::text, $2::text, 'Somebody', 'org_test')`,
    [id, `${id}@test.example`],
  )
}
