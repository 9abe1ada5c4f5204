// The outbox: mails that wait in the database, written in the transaction of the act they tell of and sent after it
// (F101). Who they are for and what they say is sealed, because a link in them signs somebody in. What is due, leases and
// back-off follow the database's clock.
import { randomBytes } from 'node:crypto'
import { appendAudit } from '../audit/audit.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { type MailMessage, mailMessage } from './messages.ts'
import { refusedPrefix } from './transport.ts'

export const maxAttempts = 10
/** Seconds until the next try, by the number of tries so far; the last one repeats. */
export const retrySeconds = [10, 60, 300, 1_800, 7_200, 21_600] as const
/** How long a mail is one worker's alone. Longer than a delivery may take, with the time to write down how it went. */
export const leaseSeconds = 60
const sentDays = 7
const failedDays = 30
const maxShownLetters = 5
/** Sealed texts have one length for nearly all mails, so that the table does not tell a mail from none (F32). */
const paddedBytes = 2_048

const insert = `insert into mlpipes_auth.mail_outbox (template, sealed, account_id) values ($1, $2, $3)`
// The attempt is counted and the lease taken in the statement that looks: of two workers one gets the row, and a row
// whose worker died comes back when its lease ends.
const take = `with due as (
    select id from mlpipes_auth.mail_outbox
    where sent_at is null and failed_at is null and next_attempt_at <= now()
    order by next_attempt_at limit $1::integer for update skip locked
  )
  update mlpipes_auth.mail_outbox as mail set attempts = mail.attempts + 1,
    next_attempt_at = now() + make_interval(secs => $2::double precision)
  from due where mail.id = due.id
  returning mail.id, mail.template, mail.account_id, mail.sealed, mail.attempts,
    extract(epoch from now() - mail.created_at)::double precision as age_seconds`
// A worker whose lease ran out has no say any more: the number of tries is what it held.
const held = 'id = $1::bigint and attempts = $2::integer and sent_at is null and failed_at is null'
const settleSent = `update mlpipes_auth.mail_outbox set sent_at = now(), sealed = null, last_error = null
    where ${held} returning id`
const settleFailed = `update mlpipes_auth.mail_outbox as mail set last_error = $3,
      next_attempt_at = case when $4::boolean then next_attempt_at else now() + make_interval(secs => $5::double precision) end,
      failed_at = case when $4::boolean then now() end, sealed = case when $4::boolean then null else sealed end
    where ${held} returning account_id,
      (select a.organization_id from mlpipes_auth.accounts a where a.id = mail.account_id) as organization_id`
const dead = `select template, last_error, created_at, (count(*) over ())::integer as total,
      (count(*) filter (where last_error like '${refusedPrefix}%') over ())::integer as refused
    from mlpipes_auth.mail_outbox where failed_at is not null order by failed_at desc, id desc limit ${maxShownLetters}`
const clean = `delete from mlpipes_auth.mail_outbox where ctid = any(array(select ctid from mlpipes_auth.mail_outbox
    where sent_at < now() - make_interval(days => ${sentDays}) or failed_at < now() - make_interval(days => ${failedDays})
    limit $1::integer for update skip locked)) returning id`

/** What a worker holds of a mail: this try of it. */
export interface Held {
  readonly id: string
  readonly template: string
  /** Tries so far, this one included. */
  readonly attempts: number
}

export interface DueMail extends Held {
  /** Since it was written, by the database's clock. */
  readonly ageSeconds: number
  /** Undefined when it cannot be read: sealed with a secret that this server does not have, or of another release. */
  readonly content: { readonly message: MailMessage; readonly messageId: string } | undefined
}

export interface Failure {
  /** SMTP reply code or error code. */
  readonly code: string
  /** Not to be tried again. */
  readonly permanent: boolean
}

export interface DeadLetters {
  readonly count: number
  /** Of them, those that the receiver's mail server refused for good: a wrong address, mostly. */
  readonly refused: number
  readonly newest: readonly { readonly template: string; readonly lastError: string; readonly createdAt: Date }[]
}

export interface Outbox {
  /**
   * Puts a mail into the outbox; it is sent once the transaction is committed.
   * @param accountId whose mail it is, if there is an account: it goes with the account
   * @throws ZodError when the message does not have its shape, or its recipient is no address
   */
  enqueue(tx: Tx, message: MailMessage, accountId?: string): Promise<void>
  /** Takes at most `limit` mails that are due. Each is the caller's alone for `leaseSeconds`. */
  takeDue(limit: number): Promise<DueMail[]>
  /** Whether it was still the caller's. What the mail said is gone afterwards. */
  markSent(mail: Held): Promise<boolean>
  /** Puts the mail back for a later try, or gives it up: 'retry' or 'dead'; 'lost' when it was not the caller's any more. */
  markFailed(mail: Held, failure: Failure): Promise<'retry' | 'dead' | 'lost'>
  deadLetters(): Promise<DeadLetters>
  /** Deletes at most `limit` mails that were sent a week or given up a month ago. Returns how many. */
  clean(limit: number): Promise<number>
  /** Tells `listener` of each new mail in this process, before its transaction is committed. */
  onEnqueue(listener: () => void): void
}

export interface OutboxParts {
  readonly database: Database
  readonly secrets: Secrets
  readonly retrySeconds?: readonly number[]
  readonly leaseSeconds?: number
}

export function createOutbox(parts: OutboxParts): Outbox {
  const { database, secrets } = parts
  const delays = parts.retrySeconds ?? retrySeconds
  const lease = parts.leaseSeconds ?? leaseSeconds
  const listeners: (() => void)[] = []
  return {
    async enqueue(tx, message, accountId) {
      const content = JSON.stringify({ message: mailMessage.parse(message), messageId: newMessageId() })
      const sealed = secrets.seal(pad(content), sealContext(message.template, accountId))
      await runIn(tx, insert, [message.template, sealed, accountId ?? null])
      for (const listener of listeners) listener()
    },
    async takeDue(limit) {
      const rows = await database.run(take, [limit, lease])
      return rows.map((row) => toDue(row, secrets))
    },
    async markSent(mail) {
      const rows = await database.run(settleSent, [mail.id, mail.attempts])
      return rows.length > 0
    },
    markFailed: (mail, { code, permanent }) =>
      transact(database.kysely, async (tx) => {
        const isDead = permanent || mail.attempts >= maxAttempts
        const delay = delays[Math.min(mail.attempts, delays.length) - 1] ?? 0
        const [row] = await runIn(tx, settleFailed, [mail.id, mail.attempts, code, isDead, delay])
        if (!row) return 'lost'
        if (!isDead) return 'retry'
        await appendAudit(tx, {
          name: 'mail.failed',
          outcome: 'failure',
          actor: { type: 'system' },
          accountId: textOf(row['account_id']),
          organizationId: textOf(row['organization_id']),
          origin: {},
          details: { template: mail.template, attempts: mail.attempts },
        })
        return 'dead'
      }),
    async deadLetters() {
      const rows = await database.run(dead, [])
      return {
        count: Number(rows[0]?.['total'] ?? 0),
        refused: Number(rows[0]?.['refused'] ?? 0),
        newest: rows.map((row) => ({
          template: String(row['template']),
          lastError: String(row['last_error']),
          createdAt: row['created_at'] as Date,
        })),
      }
    },
    async clean(limit) {
      const gone = await database.run(clean, [limit])
      return gone.length
    },
    onEnqueue: (listener) => void listeners.push(listener),
  }
}

function toDue(row: Row, secrets: Secrets): DueMail {
  return {
    id: String(row['id']),
    template: String(row['template']),
    attempts: Number(row['attempts']),
    ageSeconds: Number(row['age_seconds']),
    content: read(row, secrets),
  }
}

function read(row: Row, secrets: Secrets): DueMail['content'] {
  try {
    const context = sealContext(String(row['template']), textOf(row['account_id']))
    const content: unknown = JSON.parse(secrets.open(String(row['sealed']), context))
    const [message, messageId] = [Reflect.get(Object(content), 'message'), Reflect.get(Object(content), 'messageId')]
    return { message: mailMessage.parse(message), messageId: String(messageId) }
  } catch {
    // One mail that cannot be read must not hold up the others; it fails like any other and ends as a dead letter.
    return undefined
  }
}

function sealContext(template: string, accountId: string | undefined): string {
  return `mail-outbox:${template}:${accountId ?? ''}`
}

function newMessageId(): string {
  return randomBytes(16).toString('hex')
}

function pad(json: string): string {
  const size = Buffer.byteLength(json)
  return json + ' '.repeat(Math.ceil(size / paddedBytes) * paddedBytes - size)
}

function textOf(value: unknown): string | undefined {
  return value === null || value === undefined ? undefined : String(value)
}
