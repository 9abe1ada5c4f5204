// What a failed request is answered with: a page for a person, problem+json (RFC 9457) for a program.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isOutage } from '../db/pg-errors.ts'
import { Refusal } from '../errors.ts'
import type { Views } from './views.ts'

const outageRetrySeconds = 5

/** Turns whatever was thrown into a refusal; only what nobody expected becomes a 500. */
export function toRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  if (isOutage(error)) return new Refusal('outage', { retryAfterSeconds: outageRetrySeconds })
  const status =
    error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500
  if (status === 413) return new Refusal('too_large')
  if (status === 415) return new Refusal('media_type')
  if (status >= 400 && status < 500) return new Refusal('request_unreadable', { status })
  return new Refusal('internal')
}

/** Whether the caller is a program: it says so by what it accepts or by where it called. */
function wantsJson(request: FastifyRequest): boolean {
  if (request.url.startsWith('/api/')) return true
  return !(request.headers.accept ?? '').includes('text/html')
}

export function sendRefusal(
  request: FastifyRequest,
  reply: FastifyReply,
  refusal: Refusal,
  views: Views,
): FastifyReply {
  const { code, status, title, detail } = refusal
  reply.code(status).header('cache-control', 'no-store')
  if (refusal.retryAfterSeconds !== undefined) reply.header('retry-after', String(refusal.retryAfterSeconds))
  if (wantsJson(request)) {
    return reply
      .type('application/problem+json')
      .send(JSON.stringify({ type: `urn:mlpipes:error:${code}`, title, status, detail, instance: request.id }))
  }
  return reply
    .type('text/html; charset=utf-8')
    .send(views.render('error', { title, heading: title, text: detail }, request.id))
}

export function addProblemHandlers(app: FastifyInstance, views: Views): void {
  app.setErrorHandler((error, request, reply) => {
    const refusal = toRefusal(error)
    if (refusal.status >= 500) request.log.error({ err: error }, 'request failed')
    return sendRefusal(request, reply, refusal, views)
  })
  app.setNotFoundHandler((request, reply) => sendRefusal(request, reply, new Refusal('not_found'), views))
}
