// What a whole test run shares: one PostgreSQL cluster, in which each test file makes databases of its own, the dump of an
// embedded database that is migrated, and one unpacked Chromium.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { dumpMigrated } from './migrated.ts'
import { startPostgres } from './postgres.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    postgresAdminUrl: string
    chromiumPath: string
    pgliteDump: string
  }
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const postgres = await startPostgres()
  project.provide('postgresAdminUrl', postgres.adminUrl)
  const folder = mkdtempSync(join(tmpdir(), 'mlpipes-tests-'))
  project.provide('chromiumPath', await unpackChromium(folder))
  const dump = join(folder, 'migrated.tar')
  await dumpMigrated(dump)
  project.provide('pgliteDump', dump)
  return async () => {
    await postgres.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The package unpacks into the temporary folder under a fixed name, where another user's or half a copy may stand. */
async function unpackChromium(folder: string): Promise<string> {
  const before = process.env['TMPDIR']
  process.env['TMPDIR'] = folder
  try {
    const { default: chromium } = await import('@sparticuz/chromium')
    return await chromium.executablePath()
  } finally {
    if (before === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = before
  }
}
