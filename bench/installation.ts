// This server as it is installed and deployed, started on a database of its own or as another replica over one.
import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import type { ApplyInput } from '../src/apply/apply.ts'
import type { HashCost } from '../src/credentials/password.ts'
import { freePort } from '../tests/support/free-port.ts'
import { send } from './load.ts'

/**
 * Of a database that is larger than what PostgreSQL sets aside for it by default (128 MB): a quarter of the memory, as its
 * documentation recommends to begin with.
 */
export const ofMemory = [`shared_buffers=${Math.round(totalmem() / 4 / 2 ** 20)}MB`]

const root = join(import.meta.dirname, '..')
const secret = 'a secret of the bench, long enough for anybody'

/** A copy as it is installed and deployed: built, without sources. Type stripping would cost 30 MiB that nobody pays. */
export function install(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mlpipes-installed-'))
  execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.build.json', '--outDir', join(folder, 'dist')], {
    cwd: root,
  })
  for (const part of ['bin', 'migrations', 'views', 'public', 'package.json'])
    cpSync(join(root, part), join(folder, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  return folder
}

export interface Server {
  readonly url: string
  /** Where it listens; another than that of `url` for a second replica, which has the issuer of the first. */
  readonly port: number
  readonly process: ChildProcess
  readonly pid: number
  readonly isReference: boolean
}

export interface Starting {
  readonly installed: string
  readonly database: { readonly ownerUrl: string; readonly appUrl: string }
  /** What the database is brought to first, after its schema. */
  readonly file?: ApplyInput
  /** The issuer of another replica. */
  readonly issuer?: string
  /** Other than the one people get: then the server is started without the command line, from its sources. */
  readonly hashCost?: HashCost
  /** Where a CPU profile goes. */
  readonly profileFolder?: string | undefined
}

export async function start(starting: Starting): Promise<Server> {
  const { installed, database, file, issuer, hashCost, profileFolder } = starting
  const port = await freePort()
  const url = issuer ?? `http://localhost:${port}`
  const folder = mkdtempSync(join(tmpdir(), 'mlpipes-bench-'))
  const env = {
    ...process.env,
    MLPIPES_AUTH_URL: url,
    PORT: String(port),
    DATABASE_URL: database.appUrl,
    DATABASE_ADMIN_URL: database.ownerUrl,
    MLPIPES_AUTH_SECRET: secret,
    // As deployed: templates are compiled once.
    NODE_ENV: 'test',
    LOG_LEVEL: 'warn',
    ENABLE_MAGIC_LINKS: 'true',
    // Links are asked for from many addresses, as far as the server can tell.
    TRUSTED_PROXIES: '127.0.0.1',
    DATA_DIR: folder,
  }
  const cli = join(installed, 'bin/mlpipes-auth.js')
  if (file) {
    writeFileSync(join(folder, 'bench.json'), JSON.stringify(file))
    execFileSync(process.execPath, [cli, 'migrate'], { env })
    execFileSync(process.execPath, [cli, 'apply', join(folder, 'bench.json')], { env })
  }
  const profiling = profileFolder === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileFolder}`]
  const command = hashCost ? [join(import.meta.dirname, 'server.ts'), JSON.stringify(hashCost)] : [cli, 'start']
  const child = spawn(process.execPath, [...profiling, ...command], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  const server = { url, port, process: child, pid: child.pid ?? 0, isReference: false }
  for (;;) {
    const answer = await send(`${url}/readyz`, { port }).catch(() => undefined)
    if (answer?.status === 200) return server
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** oidc-provider alone, with its memory adapter. */
export async function startReference(): Promise<Server> {
  const port = await freePort()
  const child = fork(join(import.meta.dirname, 'reference.ts'), {
    env: { ...process.env, PORT: String(port) },
    silent: true,
  })
  await new Promise((resolve) => child.once('message', resolve))
  return { url: `http://localhost:${port}`, port, process: child, pid: child.pid ?? 0, isReference: true }
}

export async function stop(server: Server): Promise<void> {
  if (server.process.exitCode !== null || server.process.signalCode !== null) return
  const exited = new Promise((resolve) => server.process.once('exit', resolve))
  server.process.kill('SIGTERM')
  await exited
}
