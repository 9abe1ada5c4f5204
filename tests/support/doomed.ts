// A server in another process over a database that the test looks at, for tests that kill it.
import { type ChildProcess, fork } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Database } from '../../src/db/database.ts'
import { freePort } from './free-port.ts'
import { startServer } from './server.ts'

const compiled = join(tmpdir(), 'mlpipes-auth-tests-compiled')

export interface Doomed {
  /** Of the life it is in. */
  readonly issuer: string
  /** The database, on connections of the test's own. */
  readonly database: Database
  /** Kills the process with SIGKILL before the n-th statement from now; null takes that back. */
  dieAt(statement: number | null): Promise<void>
  /** Waits until the process is gone and starts another. */
  revive(): Promise<void>
  close(): Promise<void>
}

export async function startDoomed(): Promise<Doomed> {
  // Owns the database; the requests go to the other process.
  const home = await startServer('postgres')
  let issuer = ''
  const tryLaunch = async (): Promise<ChildProcess> => {
    // Another port for each life: somebody else may have taken the last one while nobody listened there.
    const port = await freePort()
    issuer = `http://localhost:${port}`
    const child = fork(
      join(import.meta.dirname, 'doomed-server.ts'),
      [JSON.stringify({ url: home.appUrl, issuer, port })],
      {
        execArgv: [],
        // Compiled once for all the lives of the server: most of a start is reading sources.
        env: { ...process.env, NODE_COMPILE_CACHE: compiled },
        stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
      },
    )
    let said = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    await told(child).catch((error: Error) => Promise.reject(new Error(`${error.message}. It said: ${said}`)))
    return child
  }
  /** A port can be lost between asking and listening; what a kill left behind would fail the second time as well. */
  const launch = () =>
    tryLaunch().catch((error) => {
      console.warn(error)
      return tryLaunch()
    })
  let child = await launch()
  const revive = async () => {
    if (child.exitCode === null && child.signalCode === null)
      await new Promise<void>((resolve) => child.once('exit', () => resolve()))
    child = await launch()
  }
  return {
    get issuer() {
      return issuer
    },
    database: home.database,
    async dieAt(statement) {
      // Housekeeping asks the database too, now and then: the process may be gone before it says that it heard.
      const isAlive = await new Promise<boolean>((resolve) => {
        told(child).then(
          () => resolve(true),
          () => resolve(false),
        )
        child.send({ dieAt: statement }, (error) => error && resolve(false))
      })
      if (!isAlive && statement === null) await revive()
    },
    revive,
    async close() {
      child.kill('SIGKILL')
      await home.close()
    },
  }
}

const told = (child: ChildProcess) =>
  new Promise<void>((resolve, reject) => {
    child.once('message', () => resolve())
    child.once('exit', (code, signal) => reject(new Error(`the server ended before it answered (${signal ?? code})`)))
  })
