// A server with the pages of /account, and a person in a browser on them.
import pino from 'pino'
import { inject } from 'vitest'
import { createAccounts } from '../../src/accounts/accounts.ts'
import { type ApplyInput, apply } from '../../src/apply/apply.ts'
import { listAudit } from '../../src/audit/audit.ts'
import { parseConfig } from '../../src/config.ts'
import { createDeviceCookie } from '../../src/credentials/devices.ts'
import { createMailLinks } from '../../src/credentials/mail-links.ts'
import { createNotices } from '../../src/credentials/notices.ts'
import { createPasswords } from '../../src/credentials/password.ts'
import { createPasswordChange } from '../../src/credentials/password-store.ts'
import { createThrottle } from '../../src/credentials/throttle.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { openPglite, openPostgres } from '../../src/db/database.ts'
import { migrate } from '../../src/db/migrate.ts'
import { createViews } from '../../src/http/views.ts'
import { createOutbox } from '../../src/mail/outbox.ts'
import { createBrowserSessions } from '../../src/oidc/browser-session.ts'
import { createPolicies } from '../../src/organizations/organizations.ts'
import { addAccountRoutes } from '../../src/self-service/routes.ts'
import { createServer } from '../../src/server.ts'
import { createSessions } from '../../src/sessions/sessions.ts'
import { type Answer, Browser, introspect, obtainTokens } from '../support/client.ts'
import { freePort } from '../support/free-port.ts'
import { createDatabase } from '../support/postgres.ts'
import { cheapHash, type DatabaseKind, password, people, type TestServer, testSecret } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'

/** As startServer, with the routes added here while server.ts does not have them. */
export async function startAccountServer(kind: DatabaseKind, seed: ApplyInput = people): Promise<TestServer> {
  const port = await freePort()
  const issuer = `http://localhost:${port}`
  const logs: string[] = []
  const logger = pino({ level: 'debug' }, { write: (line: string) => void logs.push(line) })
  const opened = kind === 'postgres' ? await createDatabase(inject('postgresAdminUrl')) : undefined
  if (opened) {
    const owner = openPostgres({ url: opened.ownerUrl, poolSize: 2, role: 'owner', onIdleError: () => undefined })
    await migrate(owner.kysely)
    await owner.close()
  }
  const database = opened
    ? openPostgres({ url: opened.appUrl, poolSize: 20, role: 'app', onIdleError: () => undefined })
    : await freshPglite()
  const config = parseConfig({ NODE_ENV: 'test', MLPIPES_AUTH_URL: issuer })
  const clock: TestServer['clock'] = { now: undefined }
  const now = () => clock.now ?? new Date()
  const secrets = createSecrets(testSecret)
  const passwords = await createPasswords(cheapHash)
  const parts = { db: database.kysely, secrets, passwords, platform: config }
  await apply(parts, seed)
  const server = await createServer({ config, secret: testSecret, database, logger, hashCost: cheapHash, now })
  if (!server.routes.some(({ url }) => url === '/account')) {
    const accounts = createAccounts(database, createPolicies(config))
    const outbox = createOutbox({ database, secrets })
    const links = createMailLinks(database, secrets)
    addAccountRoutes(server.app, {
      issuer,
      database,
      accounts,
      secrets,
      links,
      outbox,
      passwords,
      throttle: createThrottle({ database, secrets }),
      browserSessions: createBrowserSessions({ issuer, sessions: createSessions(database), accounts }),
      passwordChange: createPasswordChange({ database, passwords }),
      notices: createNotices({ outbox, links, issuer, now }),
      devices: createDeviceCookie(issuer),
      views: createViews({ cache: true }),
      offersSecondFactor: config.enable.secondFactor,
      now,
    })
  }
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
  const database = await openPglite(undefined)
  await migrate(database.kysely)
  await database.becomeApp()
  return database
}

/** Opens a page of /account in a browser, signing in where it asks. */
export async function visit(
  server: TestServer,
  path: string,
  email = 'lee@mercy.example',
  browser = new Browser(server),
  secret = password,
): Promise<{ browser: Browser; page: Answer }> {
  let page = await browser.follow(await browser.request(path))
  if (page.text.includes('/password"') && page.url.includes('/interaction/'))
    page = await browser.submit(page, '/password', { email, password: secret })
  if (page.text.includes('/totp"')) page = await browser.submit(page, '/totp', { code: await codeFor(server) })
  return { browser, page }
}

/** Makes the session of a browser as old as a stolen one would be: its sign-in lies so many seconds back. */
export async function ageSignIn(server: TestServer, email: string, seconds: number): Promise<void> {
  await server.database.run(
    `update mlpipes_auth.sessions set payload = jsonb_set(payload, '{loginTs}', to_jsonb((payload ->> 'loginTs')::bigint - $2::integer))
      where ended_at is null and account_id = (select id from mlpipes_auth.accounts where email_normalized = $1)`,
    [email, seconds],
  )
}

/** What a form on the page would send besides what is typed. */
export function csrfOf(page: Answer): string {
  const token = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1]
  if (token === undefined) throw new Error(`no form on ${page.url}: ${page.text.slice(0, 300)}`)
  return token
}

export async function accountId(server: TestServer, email: string): Promise<string> {
  const [row] = await server.database.run('select id from mlpipes_auth.accounts where email_normalized = $1', [email])
  return String(row?.['id'])
}

/** The live sessions of an account, oldest first. */
export async function liveSessions(server: TestServer, email: string): Promise<string[]> {
  const rows = await server.database.run(
    `select uid from mlpipes_auth.sessions where ended_at is null and signed_in_at is not null
      and account_id = $1 order by created_at`,
    [await accountId(server, email)],
  )
  return rows.map((row) => String(row['uid']))
}

export async function isActive(server: TestServer, token: string): Promise<boolean> {
  return (await introspect(server, token))['active'] === true
}

export { Browser, obtainTokens }
