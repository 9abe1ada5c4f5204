// The wiring page: builds the parts in rank order and hands each what it uses.
import { randomBytes } from 'node:crypto'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { sql } from 'kysely'
import { createAccounts } from './accounts/accounts.ts'
import { addClients } from './admin/clients.ts'
import { createDesk } from './admin/desk.ts'
import { createDomainRecords } from './admin/domain-records.ts'
import { addAdminApi } from './admin/routes.ts'
import { addAuthApi } from './api/routes.ts'
import { createAside } from './audit/aside.ts'
import { appendAudit } from './audit/audit.ts'
import type { AuditEvent } from './audit/events.ts'
import { createClients } from './clients/clients.ts'
import { createFaults } from './clients/faults.ts'
import type { Config } from './config.ts'
import { createSecretGuesses } from './credentials/client-secrets.ts'
import { createDeviceCookie } from './credentials/devices.ts'
import { createMailLinks } from './credentials/mail-links.ts'
import { createNotices } from './credentials/notices.ts'
import { createPasswords, defaultHashCost, type HashCost } from './credentials/password.ts'
import { createPasswordChange } from './credentials/password-store.ts'
import { createThrottle } from './credentials/throttle.ts'
import { createSecrets } from './crypto/secrets.ts'
import type { Database } from './db/database.ts'
import { migrationState } from './db/migrate.ts'
import { transact } from './db/transaction.ts'
import { createDeliveries } from './deliveries/deliveries.ts'
import { createApp, type Route } from './http/app.ts'
import { createOutbound } from './http/outbound.ts'
import { createViews } from './http/views.ts'
import { addIntegratorRoutes } from './integrators/routes.ts'
import { createInvitations } from './invitations/invitations.ts'
import { addInvitationRoutes } from './invitations/routes.ts'
import { startJanitor } from './janitor.ts'
import { evenAnswerMs } from './login/even.ts'
import { createLogin } from './login/login.ts'
import { createLinkMethod } from './login/methods/link.ts'
import { createPasswordMethod } from './login/methods/password.ts'
import { createSecondFactorMethod } from './login/methods/second-factor.ts'
import { addLoginRoutes } from './login/routes.ts'
import { createSignUp } from './login/sign-up.ts'
import { addMailboxRoutes, createMailbox, type Mail } from './mail/mailbox.ts'
import { createOutbox } from './mail/outbox.ts'
import { createSmtpTransport } from './mail/smtp.ts'
import { createMailViews } from './mail/views.ts'
import { startMailWorker } from './mail/worker.ts'
import { createBearerTokens } from './oidc/bearer.ts'
import { createBrowserSessions } from './oidc/browser-session.ts'
import { createClientCheck } from './oidc/client-check.ts'
import { createConsents } from './oidc/consents.ts'
import { createDeviceCodes } from './oidc/device-codes.ts'
import { createDirectSessions } from './oidc/direct-session.ts'
import { createInteractions } from './oidc/interactions.ts'
import { createIntrospected } from './oidc/introspected.ts'
import { createIntrospectionPolicy } from './oidc/introspection.ts'
import { createDirectIntrospection } from './oidc/introspection-direct.ts'
import { createKeys } from './oidc/keys.ts'
import { startLiveProvider } from './oidc/live-provider.ts'
import { mountProvider } from './oidc/mount.ts'
import { createProtocolPages } from './oidc/pages.ts'
import { limitIntrospection } from './oidc/secret-guesses.ts'
import { createStandings } from './oidc/standing.ts'
import { createPayloadStore } from './oidc/store.ts'
import { createOrganizations, createPolicies } from './organizations/organizations.ts'
import { createDisowning } from './recovery/disown.ts'
import { createRecovery } from './recovery/recovery.ts'
import { addRecoveryRoutes } from './recovery/routes.ts'
import { createRegistrations } from './registration/registration.ts'
import { addRegistrationRoutes } from './registration/routes.ts'
import { addAccountRoutes } from './self-service/routes.ts'
import { createActivity } from './sessions/activity.ts'
import { createSessions } from './sessions/sessions.ts'

const idleSweepMs = 100

export interface ServerOptions {
  readonly config: Config
  readonly secret: string
  readonly database: Database
  readonly logger: FastifyBaseLogger
  readonly hashCost?: HashCost
  /** How long an answer waits that must not tell by its time whether an address is known. */
  readonly evenAnswerMs?: number
  readonly now?: () => Date
  /** Addresses of name servers; those of the system unless given. */
  readonly nameServers?: readonly string[]
  /** Facts for the front page in demo mode. */
  readonly demo?: Readonly<Record<string, unknown>>
}

export interface AuthServer {
  readonly app: FastifyInstance
  readonly routes: readonly Route[]
  /** Looks at the signing keys now instead of at the next poll. */
  refreshKeys(): Promise<void>
  /** What the developer mailbox holds, newest first. */
  mails(): readonly Mail[]
  /** Says not ready, answers what is under way, then stops. The database stays the caller's to close. */
  close(): Promise<void>
}

/** Builds a server over a migrated database. It does not listen yet. */
export async function createServer(options: ServerOptions): Promise<AuthServer> {
  const { config, database, logger } = options
  const { issuer } = config
  const db = database.kysely
  const secrets = createSecrets(options.secret, config.previousSecret)
  const views = createViews({ cache: config.production || config.test })
  const policies = createPolicies(config)
  const accounts = createAccounts(database, policies)
  const organizations = createOrganizations(database, policies)
  const clients = createClients(database)
  const sessions = createSessions(database)
  const activity = createActivity(database)
  const payloads = createPayloadStore(database)
  const consents = createConsents(db)
  const keys = createKeys(db, secrets)
  const passwords = await createPasswords(options.hashCost ?? defaultHashCost)
  const record = (event: AuditEvent) => transact(db, (tx) => appendAudit(tx, event))
  await keys.ensure()

  const now = options.now ?? (() => new Date())
  const throttle = createThrottle({ database, secrets })
  const secretGuesses = createSecretGuesses({ database, secrets, now })
  const pages = createProtocolPages(views)
  const onFault = (error: unknown) => logger.error({ err: error }, 'the provider failed')
  const standings = createStandings({ accounts, policies })
  const faults = createFaults({ database, logger })
  const introspected = createIntrospected(database, policies)
  const aside = createAside({ database, logger })
  const mayIntrospect = createIntrospectionPolicy({ issuer, standings, activity, record: aside.record })
  const outbound = createOutbound({ allowLoopback: !config.production })
  const live = await startLiveProvider(
    {
      issuer,
      secrets,
      db,
      payloads,
      sessions,
      clients,
      accounts,
      standings,
      introspected: introspected.find,
      mayIntrospect,
      consents,
      deviceCodes: createDeviceCodes({ database, clients, sessions, throttle, secrets, record }),
      activity,
      pages,
      outbound,
      record,
      onFault,
      noteFault: faults.note,
      secretGuesses,
    },
    keys,
    logger,
  )
  const outbox = createOutbox({ database, secrets })
  const mailbox = createMailbox()
  const transport = config.smtpUrl === undefined ? mailbox : createSmtpTransport(config.smtpUrl)
  const links = createMailLinks(database, secrets)
  const notices = createNotices({ outbox, links, issuer, now })
  const passwordChange = createPasswordChange({ database, passwords })
  const offersSecondFactor = config.enable.secondFactor
  const login = createLogin({ database, accounts, secrets, notices, offersSecondFactor, now })
  const evenMs = options.evenAnswerMs ?? evenAnswerMs
  const mailing = { database, issuer, accounts, throttle, secrets, links, outbox, evenAnswerMs: evenMs }
  const recovery = createRecovery({ ...mailing, passwordChange, notices, now })
  const devices = createDeviceCookie(issuer)
  const interactions = createInteractions({ provider: live.current, db, consents, standings, sessions })
  const deliveries = createDeliveries({ database, secrets, keys, issuer, outbound, logger, now })
  const janitor = startJanitor({ database, policies, payloads, keys, links, outbox, deliveries, logger })

  const { app, routes } = await createApp({ issuer, trustedProxies: config.trustedProxies, logger, views })
  let isReady = true
  addHealthRoutes(app, { isReady: () => isReady, database })
  app.get('/', async (request, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .send(views.render('home', { title: 'MLPipes Auth', issuer, demo: options.demo }, request.id)),
  )
  if (!config.production) addMailboxRoutes(app, { mails: mailbox.mails, issuer, views })
  const signIn = {
    login,
    password: createPasswordMethod({ ...mailing, passwords, notices, login }),
    secondFactor: createSecondFactorMethod({ database, throttle, secrets, notices, login, now }),
    link: createLinkMethod({ ...mailing, login }),
    signUp: createSignUp({ ...mailing, passwords, policies, login }),
  }
  addLoginRoutes(app, {
    issuer,
    interactions,
    ...signIn,
    recovery,
    passwordChange,
    links,
    accounts,
    organizations,
    devices,
    secrets,
    views,
  })
  const invitations = createInvitations({ database, issuer, passwords, links, outbox, organizations })
  addInvitationRoutes(app, { issuer, invitations, secrets, views })
  addRecoveryRoutes(app, { issuer, recovery, disowning: createDisowning({ database, links }), devices, secrets, views })
  const browserSessions = createBrowserSessions({ issuer, sessions, accounts })
  const clientProblem = createClientCheck({ provider: live.current })
  const desk = createDesk({ database, secrets, now }, (kernel) => addClients(kernel, { secrets, clientProblem, now }))
  addAccountRoutes(app, {
    ...mailing,
    browserSessions,
    passwords,
    passwordChange,
    notices,
    devices,
    offersSecondFactor,
    maySeeOwnApps: async (session) => (await desk.callerOf(session))?.permissions.has('client:read') === true,
    views,
    now,
  })
  addIntegratorRoutes(app, { issuer, browserSessions, accounts, devices, secrets, views, now, desk, faults })
  addAuthApi(app, {
    ...mailing,
    ...signIn,
    organizations,
    policies,
    sessions,
    browserSessions,
    directSessions: createDirectSessions({ issuer, provider: live.current }),
    recovery,
    passwords,
    passwordChange,
    notices,
    devices,
    views,
    now,
  })
  addAdminApi(app, {
    ...mailing,
    bearerTokens: createBearerTokens({ provider: live.current, clients, sessions, standings }),
    browserSessions,
    activity,
    invitations,
    organizations,
    notices,
    platform: config,
    policies,
    domainRecords: createDomainRecords(options.nameServers),
    clientProblem,
    faults,
    allowsLoopback: !config.production,
    now,
  })
  const registrations = createRegistrations({ database, secrets, clientProblem, allowsLoopback: !config.production })
  addRegistrationRoutes(app, { issuer, database, throttle, registrations })
  await app.register((scope) =>
    mountProvider(scope, {
      issuer,
      secrets,
      payloads,
      provider: live.current,
      documents: live.documents,
      newId: () => randomBytes(32).toString('base64url'),
      introspect: limitIntrospection(
        secretGuesses,
        createDirectIntrospection({ issuer, secrets, introspected, mayIntrospect }),
      ),
    }),
  )

  // Last, so that a start that fails leaves nobody working on the caller's database.
  const mailViews = createMailViews({ issuer, cache: config.production || config.test })
  const worker = startMailWorker({ outbox, transport, render: mailViews.render, from: config.mailFrom, logger })
  const deliveryWorker = deliveries.start()
  return {
    app,
    routes,
    refreshKeys: live.refresh,
    mails: mailbox.mails,
    async close() {
      isReady = false
      live.stop()
      await janitor.stop()
      await worker.stop()
      await deliveryWorker.stop()
      transport.close()
      // A connection that was busy when closing began becomes idle later, and would be waited for until it times out.
      const idle = setInterval(() => app.server.closeIdleConnections(), idleSweepMs)
      await app.close()
      clearInterval(idle)
      await aside.stop()
      await faults.stop()
    },
  }
}

function addHealthRoutes(app: FastifyInstance, parts: { isReady(): boolean; readonly database: Database }): void {
  app.get('/healthz', async () => ({ status: 'ok' }))
  app.get('/readyz', async (request, reply) => {
    if (!parts.isReady()) return reply.code(503).send({ status: 'stopping' })
    try {
      await sql`select 1`.execute(parts.database.kysely)
      const { pending } = await migrationState(parts.database.kysely)
      return pending.length === 0 ? { status: 'ready' } : reply.code(503).send({ status: 'schema is old', pending })
    } catch (error) {
      request.log.warn({ err: error }, 'not ready')
      return reply.code(503).send({ status: 'database does not answer' })
    }
  })
}
