// Pages behind mailed links that stand on their own, outside any sign-in.
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Views } from './views.ts'

export interface LinkPages {
  show(
    request: FastifyRequest,
    reply: FastifyReply,
    view: string,
    title: string,
    data?: Readonly<Record<string, unknown>>,
  ): FastifyReply
  /** For a link that was used, is too old, or never was. */
  dead(request: FastifyRequest, reply: FastifyReply): FastifyReply
}

export function createLinkPages(views: Views): LinkPages {
  const show: LinkPages['show'] = (request, reply, view, title, data = {}) =>
    reply
      .header('cache-control', 'no-store')
      .type('text/html; charset=utf-8')
      .send(views.render(view, { title, ...data }, request.id))
  return {
    show,
    dead: (request, reply) => show(request, reply.code(410), 'recovery/dead-link', 'This link no longer works'),
  }
}
