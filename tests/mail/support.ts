// What the mail tests stand on: a migrated database without a server (whose own worker would take the mails), and a real
// SMTP server on loopback that does as it is told.
import type { AddressInfo } from 'node:net'
import { type ParsedMail, simpleParser } from 'mailparser'
import pino from 'pino'
import { SMTPServer } from 'smtp-server'
import { inject, vi } from 'vitest'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { type Database, openPostgres } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'
import { type MailMessage, noticeKinds, type SendableMessage } from '../../src/mail/messages.ts'
import { createOutbox, type Outbox } from '../../src/mail/outbox.ts'
import { createSmtpTransport, type SmtpOptions } from '../../src/mail/smtp.ts'
import type { MailTransport } from '../../src/mail/transport.ts'
import { createMailViews } from '../../src/mail/views.ts'
import { type MailWorker, startMailWorker } from '../../src/mail/worker.ts'
import { migratedPglite, migratedPostgres } from '../support/migrated.ts'
import { type DatabaseKind, testSecret } from '../support/server.ts'

export const issuer = 'https://auth.mercy.example'
export const from = 'Mercy Sign-in <no-reply@mercy.example>'
export const secrets = createSecrets(testSecret)

export interface MailDatabase {
  readonly database: Database
  /** Another pool on the same database, on PostgreSQL; the same database on PGlite. */
  another(): Database
  readonly ownerUrl: string | undefined
  close(): Promise<void>
}

export async function openMailDatabase(kind: DatabaseKind): Promise<MailDatabase> {
  if (kind === 'pglite') {
    const database = await migratedPglite(inject('pgliteDump'))
    await database.becomeApp()
    return { database, another: () => database, ownerUrl: undefined, close: () => database.close() }
  }
  const { ownerUrl, appUrl } = await migratedPostgres(inject('postgresAdminUrl'))
  const opened: Database[] = []
  const open = () => {
    const database = openPostgres({ url: appUrl, poolSize: 5, role: 'app', onIdleError: () => undefined })
    opened.push(database)
    return database
  }
  const database = open()
  return {
    database,
    another: open,
    ownerUrl,
    close: async () => void (await Promise.all(opened.map((d) => d.close()))),
  }
}

/** An organisation and a person of it. */
export async function addAccount(database: Database, id = 'acc_ada'): Promise<string> {
  const db = database.kysely
  await db
    .insertInto('organizations')
    .values({ id: `org_${id}`, slug: `mercy-${id.slice(4)}`, name: 'Mercy Hospital', policy: '{}' })
    .execute()
  const email = `${id}@mercy.example`
  await db
    .insertInto('accounts')
    .values({ id, email, email_normalized: email, name: 'Ada', organization_id: `org_${id}`, metadata: '{}' })
    .execute()
  return id
}

export const enqueue = (database: Database, outbox: Outbox, message: MailMessage, accountId?: string) =>
  transact(database.kysely, (tx) => outbox.enqueue(tx, message, accountId))

export const signInLink = (to: string, token = 'token'): SendableMessage => ({
  template: 'sign-in-link',
  to,
  data: { link: `${issuer}/interaction/abc/link?token=${token}`, minutes: 10, clientName: 'Test EHR' },
})

/** One of each, with what tries to get out of its place: quotes, tags and ampersands in names, two parameters in links. */
export const samples: readonly SendableMessage[] = (() => {
  const link = `${issuer}/x?token=t0ken&kind=y`
  const clientName = `O'Neil & <b>"Sons"</b>`
  const to = 'ada+test@mercy.example'
  return [
    { template: 'sign-in-link', to, data: { link, minutes: 10, clientName } },
    { template: 'sign-up-link', to, data: { link, minutes: 15, name: 'Ada Moreno', clientName } },
    { template: 'sign-up-known', to, data: { clientName, signInHint: 'Your organisation uses sign-in links.' } },
    {
      template: 'invitation',
      to,
      data: { link, hours: 72, organizationName: clientName, inviterName: 'Dr. José Núñez-O’Neil' },
    },
    { template: 'reset-link', to, data: { link, minutes: 30, hasSecondFactor: true } },
    { template: 'welcome', to, data: { link, minutes: 30, name: 'Ada Moreno', organizationName: `A ${clientName}` } },
    {
      template: 'welcome-without-password',
      to,
      data: { link, name: 'Ada Moreno', organizationName: `B ${clientName}` },
    },
    { template: 'email-change-confirm', to, data: { link, hours: 24, name: 'Ada Moreno' } },
    ...noticeKinds.map((kind) => ({
      template: 'notice' as const,
      to,
      data: {
        kind,
        name: 'Ada Moreno',
        at: '2026-03-05T14:03:00Z',
        where: `Firefox on Linux, from 192.0.2.7 & <i>more</i>`,
        notMeLink: link,
        ...(kind === 'backup_code_used' ? { left: 7 } : {}),
      },
    })),
  ]
})()

export interface Received {
  readonly recipients: readonly string[]
  readonly mail: ParsedMail
}

/** What a stage of the conversation answers: nothing (fine), a reply code, or silence. */
export type Answer = 'ok' | 'silence' | number

export interface TestSmtp {
  readonly url: string
  readonly port: number
  readonly received: Received[]
  /** Recipients that were asked for, in order, accepted or not. */
  readonly asked: string[]
  /** Set by a test; asked at each stage. */
  script: {
    connect?: () => Answer
    recipient?: (address: string) => Answer
    data?: () => Answer | Promise<Answer>
  }
  close(): Promise<void>
}

export async function startSmtp(user?: { name: string; password: string }): Promise<TestSmtp> {
  const received: Received[] = []
  const asked: string[] = []
  const script: TestSmtp['script'] = {}
  type Callback = (error?: Error | null) => void
  const answer = (given: Answer | undefined, callback: Callback) => {
    if (given === 'silence') return
    if (typeof given === 'number')
      callback(Object.assign(new Error('canary of the server: no such person'), { responseCode: given }))
    else callback()
  }
  const server = new SMTPServer({
    disabledCommands: user ? ['STARTTLS'] : ['AUTH', 'STARTTLS'],
    allowInsecureAuth: true,
    authOptional: user === undefined,
    disableReverseLookup: true,
    closeTimeout: 50,
    onAuth: (auth, _session, callback) =>
      auth.username === user?.name && auth.password === user?.password
        ? callback(null, { user: auth.username })
        : callback(Object.assign(new Error('no'), { responseCode: 535 })),
    onConnect: (_session, callback) => answer(script.connect?.(), callback),
    onRcptTo(address, _session, callback) {
      asked.push(address.address)
      answer(script.recipient?.(address.address), callback)
    },
    onData(stream, session, callback) {
      const recipients = session.envelope.rcptTo.map((recipient) => recipient.address)
      simpleParser(stream).then(
        async (mail) => {
          received.push({ recipients, mail })
          answer(await script.data?.(), callback)
        },
        (error: Error) => callback(error),
      )
    },
  } as ConstructorParameters<typeof SMTPServer>[0])
  server.on('error', () => undefined)
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()))
  const { port } = server.server.address() as AddressInfo
  return {
    url: `smtp://127.0.0.1:${port}`,
    port,
    received,
    asked,
    script,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
}

export interface Post {
  readonly outbox: Outbox
  readonly worker: MailWorker
  readonly logs: string[]
  stop(): Promise<void>
}

/** A worker over a database, with back-off and time-outs short enough for a test. */
export function startPost(
  database: Database,
  transport: string | MailTransport,
  options: { retrySeconds?: readonly number[]; leaseSeconds?: number; smtp?: SmtpOptions; pollMs?: number } = {},
): Post {
  const logs: string[] = []
  const logger = pino({ level: 'debug' }, { write: (line: string) => void logs.push(line) })
  const outbox = createOutbox({ database, secrets, retrySeconds: [0.05], ...options })
  const used = typeof transport === 'string' ? createSmtpTransport(transport, options.smtp) : transport
  const { render } = createMailViews({ issuer, cache: true })
  const worker = startMailWorker({
    outbox,
    transport: used,
    render,
    from,
    logger,
    pollMs: options.pollMs ?? 30,
    wakeMs: 5,
  })
  return {
    outbox,
    worker,
    logs,
    async stop() {
      await worker.stop()
      used.close()
    },
  }
}

/** Waits until `claim` holds. */
export const until = (claim: () => void | Promise<void>) => vi.waitFor(claim, { timeout: 20_000, interval: 20 })

export interface OutboxRow {
  readonly template: string
  readonly sealed: string | null
  readonly attempts: number
  readonly sent: boolean
  readonly dead: boolean
  readonly lastError: string | null
}

export async function outboxRows(database: Database): Promise<OutboxRow[]> {
  const rows = await database.kysely
    .selectFrom('mail_outbox')
    .select(['template', 'sealed', 'attempts', 'sent_at', 'failed_at', 'last_error'])
    .orderBy('id')
    .execute()
  return rows.map((row) => ({
    template: row.template,
    sealed: row.sealed,
    attempts: row.attempts,
    sent: row.sent_at !== null,
    dead: row.failed_at !== null,
    lastError: row.last_error,
  }))
}
