// What a failed request is answered with: a page for a person, problem+json (RFC 9457) for a program.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { HashQueueFull } from '../credentials/password.ts'
import { isOutage } from '../db/pg-errors.ts'
import type { Views } from './views.ts'

/** An expected refusal with words for a person. Thrown by routes, answered here. */
export class Refusal extends Error {
  readonly status: number
  readonly heading: string
  readonly retryAfterSeconds: number | undefined
  constructor(status: number, heading: string, text: string, retryAfterSeconds?: number) {
    super(text)
    this.status = status
    this.heading = heading
    this.retryAfterSeconds = retryAfterSeconds
  }
}

const outageRetrySeconds = 5

/** Turns whatever was thrown into a refusal; only what nobody expected becomes a 500. */
export function toRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  if (error instanceof HashQueueFull) {
    return new Refusal(
      503,
      'Many people are signing in right now',
      'Please wait a few seconds and try again.',
      error.retryAfterSeconds,
    )
  }
  if (isOutage(error)) {
    return new Refusal(
      503,
      'We cannot reach our records right now',
      'Nothing was changed. Please try again in a moment.',
      outageRetrySeconds,
    )
  }
  const status =
    error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500
  if (status === 413)
    return new Refusal(413, 'That was too much to send', 'What was sent is larger than this page accepts.')
  if (status === 415)
    return new Refusal(
      415,
      'That format is not accepted here',
      'Send it as an HTML form or as JSON, as the documentation says.',
    )
  if (status >= 400 && status < 500)
    return new Refusal(status, 'This request could not be understood', 'Go back, check what was entered and try again.')
  return new Refusal(
    500,
    'Something went wrong on our side',
    'Nothing was changed. Please try again in a moment; if it happens again, tell us the request id.',
  )
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
  reply.code(refusal.status).header('cache-control', 'no-store')
  if (refusal.retryAfterSeconds !== undefined) reply.header('retry-after', String(refusal.retryAfterSeconds))
  if (wantsJson(request)) {
    return reply.type('application/problem+json').send(
      JSON.stringify({
        type: 'about:blank',
        title: refusal.heading,
        status: refusal.status,
        detail: refusal.message,
        instance: request.id,
      }),
    )
  }
  return reply
    .type('text/html; charset=utf-8')
    .send(
      views.render('error', { title: refusal.heading, heading: refusal.heading, text: refusal.message }, request.id),
    )
}

export function addProblemHandlers(app: FastifyInstance, views: Views): void {
  app.setErrorHandler((error, request, reply) => {
    const refusal = toRefusal(error)
    if (refusal.status >= 500) request.log.error({ err: error }, 'request failed')
    return sendRefusal(request, reply, refusal, views)
  })
  app.setNotFoundHandler((request, reply) =>
    sendRefusal(
      request,
      reply,
      new Refusal(404, 'There is nothing here', 'Check the address, or go back to the app you came from.'),
      views,
    ),
  )
}
