// A server in a process of its own that kills itself before the n-th statement after it was told to. Forked by the crash
// tests; its argument is JSON: { url, issuer, port }.
import { flushCompileCache } from 'node:module'
import pg from 'pg'
import pino from 'pino'
import { parseConfig } from '../../src/config.ts'
import { openPostgres } from '../../src/db/database.ts'
import { createServer } from '../../src/server.ts'
import { cheapHash, quickAnswerMs, testSecret } from './setting.ts'

const { url, issuer, port } = JSON.parse(process.argv[2] ?? '') as { url: string; issuer: string; port: number }
let statementsLeft = Number.POSITIVE_INFINITY
process.on('message', (message: { dieAt: number | null }) => {
  statementsLeft = message.dieAt ?? Number.POSITIVE_INFINITY
  process.send?.('set')
})

/** What the server asks by itself every second or so: to be killed there would be by chance. */
const background =
  /for update (?:of d )?skip locked|(?:update|delete from) mlpipes_auth\.mail_outbox|from (?:mlpipes_auth\.|")signing_keys|^select (?:uid from mlpipes_auth\.sessions where ended_at is null and least|o\.id from mlpipes_auth\.organizations o where o\.closed_at)/
const textOf = (statement: unknown) =>
  typeof statement === 'string' ? statement : String(Reflect.get(Object(statement), 'text'))

const query: (...args: unknown[]) => unknown = pg.Client.prototype.query
Object.defineProperty(pg.Client.prototype, 'query', {
  value(this: pg.Client, ...args: unknown[]) {
    if (!background.test(textOf(args[0]))) statementsLeft -= 1
    if (statementsLeft <= 0) process.kill(process.pid, 'SIGKILL')
    return query.apply(this, args)
  },
})

const database = openPostgres({ url, poolSize: 10, role: 'app', onIdleError: () => undefined })
const server = await createServer({
  config: parseConfig({ NODE_ENV: 'test', MLPIPES_AUTH_URL: issuer }),
  secret: testSecret,
  database,
  logger: pino({ level: 'silent' }),
  hashCost: cheapHash,
  evenAnswerMs: quickAnswerMs,
})
await server.app.listen({ host: '127.0.0.1', port })
// Written at an orderly end, which this process does not have: the next one starts in half the time.
flushCompileCache()
process.send?.('ready')
