// One PostgreSQL cluster for a whole test run; each test file makes databases of its own in it.
import type { TestProject } from 'vitest/node'
import { startPostgres } from './postgres.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    postgresAdminUrl: string
  }
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const postgres = await startPostgres()
  project.provide('postgresAdminUrl', postgres.adminUrl)
  return () => postgres.stop()
}
