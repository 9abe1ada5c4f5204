// `mlpipes-auth start`: the server process, in demo mode with the demo EHR app beside it.
import { existsSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { join } from 'node:path'
import pino from 'pino'
import { apply } from '../apply/apply.ts'
import type { Config } from '../config.ts'
import { createPasswords, defaultHashCost } from '../credentials/password.ts'
import { createSecrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { demoClients, demoEhrPort, demoEhrUrl, demoFile, demoPeople } from '../demo.ts'
import { openDatabase, resolveSecret } from '../process.ts'
import { type AuthServer, createServer } from '../server.ts'

const drainTimeoutMs = 20_000

/** Runs the server until SIGINT or SIGTERM. Returns the exit code. */
export async function start(config: Config): Promise<number> {
  const logger = pino({
    level: config.logLevel,
    redact: { paths: ['req.headers.authorization', 'req.headers.cookie'], censor: '[redacted]' },
  })
  const secret = await resolveSecret(config)
  const database = await openDatabase(config, logger)
  if (config.demo) await seedDemo(config, secret, database)
  const demo = config.demo
    ? { url: demoEhrUrl, accounts: demoPeople.map(({ role, email, password }) => ({ role, email, password })) }
    : undefined
  const server = await createServer({ config, secret, database, logger, ...(demo ? { demo } : {}) })
  const stopped = stopSignal()
  let ehr: DemoEhr | undefined
  try {
    await listen(server, config)
    ehr = config.demo ? await startDemoEhr(config) : undefined
    announce(config, ehr !== undefined)
    await stopped
  } finally {
    // Also after a failed start: nothing may go on listening behind an error message.
    setTimeout(() => process.exit(1), drainTimeoutMs).unref()
    await ehr?.close()
    await server.close()
    await database.close()
  }
  return 0
}

/** Thrown when the server cannot listen where it is told to. */
export class CannotListen extends Error {}

async function listen(server: AuthServer, { host, port }: Config): Promise<void> {
  await server.app.listen({ host, port }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EADDRINUSE')
      throw new CannotListen(`port ${port} is taken; stop the program that uses it, or set PORT and MLPIPES_AUTH_URL`)
    if (error.code === 'EACCES' || error.code === 'EADDRNOTAVAIL')
      throw new CannotListen(`cannot listen on ${host}:${port} (${error.code}); check HOST and PORT`)
    throw error
  })
}

/** Resolves at the first signal to stop. A second one ends the process at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        resolve()
        process.once(signal, () => process.exit(130))
      })
    }
  })
}

async function seedDemo(config: Config, secret: string, database: Database): Promise<void> {
  const parts = {
    db: database.kysely,
    secrets: createSecrets(secret, config.previousSecret),
    passwords: await createPasswords(defaultHashCost),
    platform: config,
  }
  await apply(parts, demoFile)
}

interface DemoEhr {
  close(): Promise<void>
}

async function startDemoEhr(config: Config): Promise<DemoEhr | undefined> {
  if (!(await isFree(demoEhrPort))) {
    process.stderr.write(`port ${demoEhrPort} is taken, so the demo EHR app was not started\n`)
    return undefined
  }
  const app = join(import.meta.dirname, '../../examples/ehr/app.ts')
  // The installed package carries no examples: the demo people can still sign in to whatever app is pointed here.
  if (!existsSync(app)) {
    process.stderr.write('the demo EHR app is part of the source checkout only, so it was not started\n')
    return undefined
  }
  const { startEhr } = await import(app)
  return startEhr({
    issuer: config.issuer,
    port: demoEhrPort,
    clientId: demoClients.ehr.id,
    clientSecret: demoClients.ehr.secret,
    apiClientId: demoClients.api.id,
    apiClientSecret: demoClients.api.secret,
  })
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createHttpServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}

function announce(config: Config, hasEhr: boolean): void {
  const lines = ['', 'MLPipes Auth is ready.', '', `  Issuer            ${config.issuer}`]
  if (hasEhr) {
    lines.push(`  Demo EHR app      ${demoEhrUrl}   (open this and choose "Sign in with MLPipes")`)
  }
  if (config.demo) {
    for (const person of demoPeople)
      lines.push(`  ${person.role.padEnd(17)} ${person.email}   password ${person.password}`)
  }
  lines.push(`  Your account      ${config.issuer}/account`)
  if (!config.production) lines.push(`  Developer mailbox ${config.issuer}/dev/mailbox`)
  lines.push('', '  Ctrl-C stops everything.', '')
  process.stdout.write(`${lines.join('\n')}\n`)
}
