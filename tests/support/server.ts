// A real server on a real database for one test file: on PGlite in memory, or on a fresh PostgreSQL database.
import pino from 'pino'
import { inject } from 'vitest'
import { type ApplyInput, apply } from '../../src/apply/apply.ts'
import { listAudit } from '../../src/audit/audit.ts'
import { parseConfig } from '../../src/config.ts'
import { createPasswords } from '../../src/credentials/password.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { type Database, openPostgres } from '../../src/db/database.ts'
import { type AuthServer, createServer } from '../../src/server.ts'
import { freePort } from './free-port.ts'
import { migratedPglite, migratedPostgres } from './migrated.ts'
import { cheapHash, quickAnswerMs, testSecret } from './setting.ts'

export { cheapHash, quickAnswerMs, testSecret } from './setting.ts'

export type DatabaseKind = 'postgres' | 'pglite'
export const databaseKinds: readonly DatabaseKind[] = ['postgres', 'pglite']
/**
 * What is about rules, pages and words runs on PostgreSQL alone, so that all tests together stay quick. On both runs what is
 * about statements: contracts, isolation, the flows of a sign-in and a token, and every operation of the admin API (fuzzed).
 */
export const mainDatabase: readonly DatabaseKind[] = ['postgres']

export const password = 'Correct-Horse-9-Battery'
/** The platform's switches as a test server has them, unless its environment says otherwise. */
export const testPlatform = parseConfig({ NODE_ENV: 'test' })
const redirectUri = 'http://localhost:9/callback'

export const people: ApplyInput = {
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital' },
    { slug: 'hope', name: 'Hope Clinic' },
  ],
  accounts: [
    {
      email: 'ada@mercy.example',
      name: 'Ada Moreno',
      password,
      organization: 'mercy',
      roles: ['org_admin'],
      emailVerified: true,
    },
    {
      email: 'lee@mercy.example',
      name: 'Dr Lee',
      password,
      organization: 'mercy',
      roles: ['member', 'physician'],
      emailVerified: true,
    },
    {
      email: 'totp@mercy.example',
      name: 'Toni Otp',
      password,
      organization: 'mercy',
      totpSecret: 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP',
      emailVerified: true,
    },
    { email: 'gone@mercy.example', name: 'Gone Person', password, organization: 'mercy', disabled: true },
    { email: 'nopass@mercy.example', name: 'No Password', organization: 'mercy' },
    { email: 'hugo@hope.example', name: 'Hugo Hope', password, organization: 'hope' },
  ],
  clients: [
    {
      client_id: 'ehr',
      client_secret: 'ehr-secret-0123456789',
      client_name: 'Test EHR',
      organization: 'mercy',
      redirect_uris: [redirectUri],
      post_logout_redirect_uris: ['http://localhost:9/'],
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid profile email offline_access',
      introspection: 'own',
    },
    {
      client_id: 'first',
      client_secret: 'first-secret-0123456789',
      client_name: 'First Party',
      organization: 'mercy',
      redirect_uris: [redirectUri],
      post_logout_redirect_uris: ['http://localhost:9/'],
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid profile email offline_access',
      first_party: true,
    },
    {
      client_id: 'certification',
      client_secret: 'certification-secret-0123456789',
      client_name: 'Certification',
      organization: 'mercy',
      redirect_uris: [redirectUri],
      post_logout_redirect_uris: ['http://localhost:9/'],
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid profile email offline_access',
      first_party: true,
      profile: 'oidc-certification',
      introspection: 'own',
    },
    {
      client_id: 'spa',
      client_name: 'Public App',
      organization: 'mercy',
      redirect_uris: [redirectUri],
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid profile',
      first_party: true,
    },
    {
      client_id: 'api',
      client_secret: 'api-secret-0123456789',
      client_name: 'Mercy API',
      organization: 'mercy',
      grant_types: ['client_credentials'],
      scope: 'openid',
      introspection: 'organization',
    },
    {
      client_id: 'nosy',
      client_secret: 'nosy-secret-0123456789',
      client_name: 'Nosy',
      organization: 'mercy',
      grant_types: ['client_credentials'],
      scope: 'openid',
    },
    {
      client_id: 'foreign',
      client_secret: 'foreign-secret-0123456789',
      client_name: 'Hope API',
      organization: 'hope',
      grant_types: ['client_credentials'],
      scope: 'openid',
      introspection: 'organization',
    },
  ],
}

export const secretOf = (clientId: string) => `${clientId}-secret-0123456789`

export interface TestServer {
  readonly issuer: string
  readonly port: number
  readonly kind: DatabaseKind
  readonly server: AuthServer
  readonly database: Database
  /** Connection string of the app's login, on PostgreSQL. */
  readonly appUrl: string | undefined
  readonly ownerUrl: string | undefined
  readonly logs: string[]
  clock: { now: Date | undefined }
  apply(file: ApplyInput): Promise<void>
  audit(name?: string): Promise<Awaited<ReturnType<typeof listAudit>>>
  close(): Promise<void>
}

export interface TestServerOptions {
  readonly environment?: Readonly<Record<string, string>>
  readonly seed?: ApplyInput
  /** A database of another server, to run a second replica over it. */
  readonly share?: TestServer
  readonly wrapUrl?: (url: string) => string
  readonly poolSize?: number
  readonly evenAnswerMs?: number
  readonly nameServers?: readonly string[]
  /** A cluster other than the run's own. */
  readonly adminUrl?: string
}

export async function startServer(kind: DatabaseKind, options: TestServerOptions = {}): Promise<TestServer> {
  const port = await freePort()
  const issuer = options.share?.issuer ?? `http://localhost:${port}`
  const logs: string[] = []
  const logger = pino({ level: 'debug' }, { write: (line: string) => void logs.push(line) })
  const opened = options.share?.appUrl
    ? { appUrl: options.share.appUrl, ownerUrl: options.share.ownerUrl }
    : kind === 'postgres'
      ? await migratedPostgres(options.adminUrl ?? inject('postgresAdminUrl'))
      : undefined
  const database = opened
    ? openPostgres({
        url: options.wrapUrl?.(opened.appUrl) ?? opened.appUrl,
        poolSize: options.poolSize ?? 20,
        role: 'app',
        onIdleError: (error) => logger.warn({ err: error }, 'idle connection lost'),
      })
    : await freshPglite()
  const config = parseConfig({ NODE_ENV: 'test', MLPIPES_AUTH_URL: issuer, ...options.environment })
  const clock: TestServer['clock'] = { now: undefined }
  const parts = {
    db: database.kysely,
    secrets: createSecrets(testSecret),
    passwords: await createPasswords(cheapHash),
    platform: config,
  }
  if (!options.share) await apply(parts, options.seed ?? people)
  const server = await createServer({
    config,
    secret: testSecret,
    database,
    logger,
    hashCost: cheapHash,
    evenAnswerMs: options.evenAnswerMs ?? quickAnswerMs,
    ...(options.nameServers ? { nameServers: options.nameServers } : {}),
    now: () => clock.now ?? new Date(),
  })
  await server.app.listen({ host: '127.0.0.1', port })
  return {
    issuer,
    port,
    kind,
    server,
    database,
    appUrl: opened?.appUrl,
    ownerUrl: opened?.ownerUrl,
    logs,
    clock,
    apply: async (file) => void (await apply(parts, file)),
    async audit(name) {
      const events = await listAudit(database.kysely, 1_000)
      return name === undefined ? events : events.filter((event) => event.name === name)
    },
    async close() {
      await server.close()
      await database.close()
    },
  }
}

async function freshPglite() {
  const database = await migratedPglite(inject('pgliteDump'))
  await database.becomeApp()
  return database
}
