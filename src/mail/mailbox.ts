// The developer mailbox: mails that would have been sent, kept in memory for whoever builds an app, and the pages that
// show them. Never in production.
import type { FastifyInstance } from 'fastify'
import type { Views } from '../http/views.ts'
import type { MailTransport } from './transport.ts'

export const maxKeptMails = 200

export interface Mail {
  readonly to: string
  readonly subject: string
  readonly text: string
  readonly html: string
  /** RFC 3339. */
  readonly sentAt: string
}

export interface Mailbox extends MailTransport {
  /** Newest first. */
  mails(): readonly Mail[]
}

export function createMailbox(now: () => Date = () => new Date()): Mailbox {
  let kept: readonly Mail[] = []
  return {
    async send({ to, subject, text, html }) {
      kept = [{ to, subject, text, html, sentAt: now().toISOString() }, ...kept].slice(0, maxKeptMails)
    },
    mails: () => kept,
    close: () => undefined,
  }
}

export function addMailboxRoutes(
  app: FastifyInstance,
  { mails, issuer, views }: { mails(): readonly Mail[]; readonly issuer: string; readonly views: Views },
): void {
  app.get('/dev/mailbox.json', async (_request, reply) => reply.header('cache-control', 'no-store').send(mails()))
  app.get('/dev/mailbox', async (request, reply) => {
    const shown = mails().map((mail) => ({ ...mail, parts: splitLinks(mail.text, issuer) }))
    return reply
      .header('cache-control', 'no-store')
      .type('text/html; charset=utf-8')
      .send(views.render('dev-mailbox', { title: 'Developer mailbox', mails: shown }, request.id))
  })
}

export interface TextPart {
  readonly text: string
  readonly isLink: boolean
}

/** A text in pieces, of which those that lead to our own issuer or to this machine may be links. */
export function splitLinks(text: string, issuer: string): TextPart[] {
  return text
    .split(/(https?:\/\/[^\s<>"']+)/)
    .filter((part) => part !== '')
    .map((part) => ({ text: part, isLink: isOwn(part, issuer) }))
}

function isOwn(text: string, issuer: string): boolean {
  const url = /^https?:\/\//.test(text) ? URL.parse(text) : null
  if (url === null || url.username !== '' || url.password !== '') return false
  return url.origin === issuer || (url.protocol === 'http:' && url.hostname === 'localhost')
}
