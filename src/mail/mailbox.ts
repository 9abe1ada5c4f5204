// The developer mailbox: mails that would have been sent, kept in memory for whoever builds an app. Never in production.
// Nothing sends mail yet; the first to do so adds to it here.
import type { FastifyInstance } from 'fastify'
import type { Views } from '../http/views.ts'

export interface Mail {
  readonly to: string
  readonly subject: string
  readonly text: string
  readonly html: string
  /** RFC 3339. */
  readonly sentAt: string
}

export function addMailboxRoutes(
  app: FastifyInstance,
  { mails, views }: { mails(): readonly Mail[]; readonly views: Views },
): void {
  app.get('/dev/mailbox.json', async (_request, reply) => reply.header('cache-control', 'no-store').send(mails()))
  app.get('/dev/mailbox', async (request, reply) =>
    reply
      .header('cache-control', 'no-store')
      .type('text/html; charset=utf-8')
      .send(views.render('dev-mailbox', { title: 'Developer mailbox', mails: mails() }, request.id)),
  )
}
