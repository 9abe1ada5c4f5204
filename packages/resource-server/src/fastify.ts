// For Fastify, as a hook: `scope.addHook('onRequest', fastifyGuard(verifier))` for all of a scope, or
// `{ onRequest: fastifyGuard(verifier, { scope: '…' }) }` for a route.
import { admit } from './guard.ts'
import type { RequestLike } from './request.ts'
import type { Requirements } from './requirements.ts'
import { refusalBody, refusalHeaders } from './verdict.ts'
import type { Verifier } from './verifier.ts'

export { tokenOf } from './tokens.ts'

interface FastifyRequestLike {
  readonly method: string
  /** Before any rewriting: what the client asked for. */
  readonly originalUrl: string
  readonly headers: RequestLike['headers']
}

interface FastifyReplyLike {
  code(status: number): unknown
  headers(values: Record<string, string>): unknown
  send(body: unknown): unknown
}

export function fastifyGuard(verifier: Pick<Verifier, 'verify'>, requirements: Requirements = {}) {
  return async (request: FastifyRequestLike, reply: FastifyReplyLike): Promise<unknown> => {
    const { method, originalUrl: url, headers } = request
    const refusal = await admit(verifier, requirements, request, { method, url, headers })
    if (!refusal) return undefined
    reply.code(refusal.status)
    reply.headers(refusalHeaders(refusal))
    return reply.send(refusalBody(refusal))
  }
}
