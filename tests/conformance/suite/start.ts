// Starts this server over HTTPS on an embedded database, with the person and the apps that the OpenID Foundation's
// conformance suite needs, and says how to run the suite against it: node tests/conformance/suite/start.ts [--help]
import { once } from 'node:events'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import pino from 'pino'
import { apply } from '../../../src/apply/apply.ts'
import { parseConfig } from '../../../src/config.ts'
import { createPasswords, defaultHashCost } from '../../../src/credentials/password.ts'
import { createSecrets } from '../../../src/crypto/secrets.ts'
import { openDatabase, resolveSecret } from '../../../src/process.ts'
import { createServer } from '../../../src/server.ts'
import { selfSigned } from './certificate.ts'
import { person, suiteFile } from './clients.ts'
import { renderPlans } from './plans.ts'
import { createTlsProxy } from './tls-proxy.ts'

const help = `node tests/conformance/suite/start.ts [options]
  --issuer  the address that the suite sees        (https://localhost:3443)
  --suite   the address of the suite               (https://localhost.emobix.co.uk:8443)
  --port    where to listen, if not the issuer's
  --host    on which address to listen             (127.0.0.1)
  --data    folder for database and configurations (data/conformance)
`

interface Options {
  readonly issuer: string
  readonly suite: string
  readonly port: number
  readonly host: string
  readonly data: string
}

function readOptions(): Options | undefined {
  const text = (fallback: string) => ({ type: 'string' as const, default: fallback })
  const { values } = parseArgs({
    options: {
      issuer: text('https://localhost:3443'),
      suite: text('https://localhost.emobix.co.uk:8443'),
      port: { type: 'string' },
      host: text('127.0.0.1'),
      data: text('data/conformance'),
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  for (const name of ['issuer', 'suite'] as const) {
    const url = URL.parse(values[name])
    if (url?.protocol !== 'https:' || url.origin !== values[name])
      throw new Error(`--${name} must be an https origin such as https://localhost:3443, without a trailing slash`)
  }
  const port = Number(values.port ?? (new URL(values.issuer).port || 443))
  const data = resolve(values.data)
  // What reads the printed command takes no other characters in the name of a file.
  if (!/^[A-Za-z0-9._/-]+$/.test(data)) throw new Error('--data must be of letters, digits and . _ / - alone')
  return { issuer: values.issuer, suite: values.suite, port, host: values.host, data }
}

async function makeKey(kid: string): Promise<{ readonly own: JWK; readonly known: JWK }> {
  const { privateKey, publicKey } = await generateKeyPair('PS256', { extractable: true })
  const about = { kid, alg: 'PS256', use: 'sig' }
  return { own: { ...(await exportJWK(privateKey)), ...about }, known: { ...(await exportJWK(publicKey)), ...about } }
}

async function start({ issuer, suite, port, host, data }: Options): Promise<void> {
  const config = parseConfig({
    MLPIPES_AUTH_URL: issuer,
    HOST: '127.0.0.1',
    PORT: '0',
    DATA_DIR: data,
    TRUSTED_PROXIES: '127.0.0.1',
    DEMO: 'false',
    LOG_LEVEL: 'warn',
  })
  mkdirSync(data, { recursive: true, mode: 0o700 })
  chmodSync(data, 0o700)
  const secret = await resolveSecret(config)
  const logger = pino({ level: config.logLevel })
  const database = await openDatabase(config, logger)
  const [first, second] = await Promise.all([makeKey('first'), makeKey('second')])
  const passwords = await createPasswords(defaultHashCost)
  const parts = { db: database.kysely, secrets: createSecrets(secret), passwords, platform: config }
  await apply(parts, suiteFile(suite, { first: first.known, second: second.known }))
  const server = await createServer({ config, secret, database, logger })
  await server.app.listen({ host: config.host, port: config.port })
  const inner = server.app.addresses()[0] as AddressInfo

  const certificate = selfSigned(new URL(issuer).hostname, new Date())
  writeFileSync(join(data, 'certificate.pem'), certificate.cert)
  const proxy = createTlsProxy(certificate, inner.port)
  const plans = renderPlans({ issuer, folder: join(data, 'plans'), keys: { first: first.own, second: second.own } })
  proxy.listen(port, host)
  await once(proxy, 'listening')
  announce({ issuer, suite, data, plans })

  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
  proxy.close()
  proxy.closeAllConnections()
  await server.close()
  await database.close()
}

function announce(facts: Pick<Options, 'issuer' | 'suite' | 'data'> & { readonly plans: readonly string[] }): void {
  const { issuer, suite, data, plans } = facts
  // A suite on this machine has a certificate of its own making and asks nobody for a token.
  const isLocal = /^(localhost|127\.0\.0\.1|localhost\.emobix\.co\.uk)$/.test(new URL(suite).hostname)
  const lines = [
    '',
    'Ready for the conformance suite.',
    '',
    `  Issuer          ${issuer}`,
    `  Certificate     ${join(data, 'certificate.pem')}`,
    `  Configurations  ${join(data, 'plans')}   (with private keys, made anew at every start)`,
    `  Signs in as     ${person.email}   password ${person.password}`,
    '',
    'Next, in the folder scripts/ of a checkout of https://gitlab.com/openid/conformance-suite:',
    '',
    `CONFORMANCE_SERVER=${suite}/ ${isLocal ? 'CONFORMANCE_DEV_MODE=1' : 'CONFORMANCE_TOKEN=<token>'} \\`,
    '  python3 run-test-plan.py --no-parallel \\',
    ...chunk(plans).map(([plan, file], index, all) => `  '${plan}' ${file}${index + 1 < all.length ? ' \\' : ''}`),
    '',
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

function chunk(plans: readonly string[]): (readonly string[])[] {
  return plans.flatMap((_, index) => (index % 2 === 0 ? [plans.slice(index, index + 2)] : []))
}

try {
  const options = readOptions()
  if (options) await start(options)
  else process.stdout.write(help)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
