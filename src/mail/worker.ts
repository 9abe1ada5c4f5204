// The worker: sends what is due in the outbox, a few at once, on every replica. An outage of the database or of the mail
// server costs time and nothing else: what was not sent is due again later.
import type { FastifyBaseLogger } from 'fastify'
import { createBell, settle } from '../work-bell.ts'
import { type SendableMessage, usefulSeconds } from './messages.ts'
import { type DueMail, type Failure, maxAttempts, type Outbox } from './outbox.ts'
import { DeliveryFailed, type MailTransport } from './transport.ts'
import type { RenderedMail } from './views.ts'

export const maxParallelMails = 5
const defaultPollMs = 1_000
const defaultWakeMs = 50

export interface MailWorkerParts {
  readonly outbox: Outbox
  readonly transport: MailTransport
  render(message: SendableMessage): RenderedMail
  /** MAIL_FROM. */
  readonly from: string
  readonly logger: Pick<FastifyBaseLogger, 'info' | 'warn' | 'error'>
  readonly pollMs?: number
  /** How long after a mail was put into the outbox here the worker looks: about what its transaction takes to commit. */
  readonly wakeMs?: number
}

export interface MailWorker {
  /** Takes no more mails, and waits for those under way. The transport stays the caller's to close. */
  stop(): Promise<void>
}

export function startMailWorker(parts: MailWorkerParts): MailWorker {
  const { outbox, logger } = parts
  const underWay = new Set<Promise<void>>()
  const bell = createBell(parts.pollMs ?? defaultPollMs, parts.wakeMs ?? defaultWakeMs)
  let isStopping = false

  /** Starts what is due, as far as there is room. Returns whether more may wait. */
  async function look(): Promise<boolean> {
    const room = maxParallelMails - underWay.size
    const due = await outbox.takeDue(room).catch((error: unknown) => {
      logger.warn({ err: error }, 'cannot read the outbox; it will be tried again')
      return []
    })
    for (const mail of due) {
      const delivery = deliver(mail, parts).finally(() => underWay.delete(delivery))
      underWay.add(delivery)
    }
    return due.length === room
  }

  async function run(): Promise<void> {
    while (!isStopping) {
      const mayBeMore = await look()
      if (isStopping) break
      if (underWay.size >= maxParallelMails) await Promise.race(underWay)
      else if (!mayBeMore) await bell.rest()
    }
    await Promise.all(underWay)
  }

  outbox.onEnqueue(bell.ring)
  const running = run()
  return {
    async stop() {
      isStopping = true
      bell.end()
      await running
    },
  }
}

/** One try of one mail. Never rejects. */
async function deliver(mail: DueMail, parts: MailWorkerParts): Promise<void> {
  const failure = await attempt(mail, parts)
  const { outbox, logger } = parts
  const facts = { mail: mail.id, template: mail.template, attempts: mail.attempts }
  await settle(async () => {
    if (!failure) return void (await outbox.markSent(mail))
    const outcome = await outbox.markFailed(mail, failure)
    const words = outcome === 'dead' ? 'a mail was given up' : 'a mail was not sent; it will be tried again'
    logger[outcome === 'dead' ? 'error' : 'warn']({ ...facts, code: failure.code }, words)
  }).catch((error: unknown) => logger.warn({ ...facts, err: error }, 'cannot write down how a mail went'))
}

async function attempt(mail: DueMail, parts: MailWorkerParts): Promise<Failure | undefined> {
  // Counted past the limit without ever failing: each try ended the process that made it.
  if (mail.attempts > maxAttempts) return { code: 'ELOST', permanent: true }
  if (!mail.content) return { code: 'EUNREADABLE', permanent: false }
  const { message, messageId } = mail.content
  if (message.template === 'none') return undefined
  const useful = usefulSeconds(message)
  if (useful !== undefined && mail.ageSeconds >= useful) return { code: 'EEXPIRED', permanent: true }
  try {
    const { to } = message
    const { subject, text, html } = parts.render(message)
    await parts.transport.send({ to, from: parts.from, subject, text, html, messageId: fullId(messageId, parts.from) })
    return undefined
  } catch (error) {
    if (error instanceof DeliveryFailed) return { code: error.code, permanent: error.permanent }
    // A bug, in words or in a transport. The error itself may quote the mail, so only its kind is logged.
    parts.logger.error({ mail: mail.id, template: mail.template, kind: kindOf(error) }, 'a mail cannot be made')
    return { code: 'EINTERNAL', permanent: false }
  }
}

function fullId(messageId: string, from: string): string {
  const [, domain = 'localhost'] = /@([a-z0-9.-]+)/i.exec(from) ?? []
  return `${messageId}@${domain}`
}

function kindOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error
}
