// What stands before every operation of the API: whose origin it is (CORS), that a POST is JSON, and that it carries the
// token that belongs to its browser. All of it is decided from headers, before a body is read.
import { randomBytes } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Secrets } from '../crypto/secrets.ts'
import { Refusal } from '../errors.ts'
import type { CallingApp, Origins } from './origins.ts'
import { ApiProblem } from './problems.ts'

const tokenBytes = 32
const tokenPattern = /^[A-Za-z0-9_-]{43}$/
const preflightMaxAgeSeconds = 600
// Exactly this: what a form can send, or a router and a parser could read differently, is another type (C2).
const jsonType = /^application\/json(?:; ?charset=utf-8)?$/i

const jsonAlone = 'Send JSON with Content-Type: application/json; where there is nothing to say, the body is {}.'

export const csrfHeader = 'x-csrf-token'

/** The cookie that a CSRF token belongs to. Over https its name lets nobody but this very host set it (RFC 6265bis). */
export function csrfCookieName(issuer: string): string {
  return issuer.startsWith('https://') ? '__Host-mlpipes_csrf' : 'mlpipes_csrf'
}

export interface Gate {
  /** The app that this request comes from. The gate has let it in. */
  appOf(request: FastifyRequest): CallingApp
  /** The token for this browser; gives it the cookie first, if it has none. */
  csrfToken(request: FastifyRequest, reply: FastifyReply): string
}

/** @param scope only the API's own routes: their bodies are JSON and nothing else */
export function createGate(
  scope: FastifyInstance,
  parts: { readonly issuer: string; readonly secrets: Secrets; readonly origins: Origins },
): Gate {
  const { issuer, origins } = parts
  const tokens = createCsrfTokens(parts)
  const apps = new WeakMap<FastifyRequest, CallingApp>()
  readJsonOnly(scope)

  scope.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers
    reply.header('vary', 'Origin').header('cache-control', 'no-store')
    const app = await origins.appAt(origin)
    if (!app) throw new ApiProblem('request_foreign')
    apps.set(request, app)
    if (origin !== undefined && origin !== issuer)
      reply
        .header('access-control-allow-origin', origin)
        .header('access-control-allow-credentials', 'true')
        .header('access-control-expose-headers', 'Retry-After, X-Request-Id')
    if (request.method !== 'POST') return
    if (isForeign(request, issuer)) throw new ApiProblem('request_foreign')
    assertJson(request)
    if (!tokens.holds(request)) throw new ApiProblem('request_foreign')
  })

  scope.options('/api/auth/*', (_request, reply) =>
    reply
      .headers({
        'access-control-allow-methods': 'GET, POST',
        'access-control-allow-headers': 'Content-Type, X-CSRF-Token',
        'access-control-max-age': String(preflightMaxAgeSeconds),
      })
      .code(204)
      .send(),
  )

  return {
    appOf(request) {
      const app = apps.get(request)
      if (!app) throw new Error('the gate has not seen this request')
      return app
    },
    csrfToken: tokens.issue,
  }
}

export interface CsrfTokens {
  /** The token for this browser; gives it the cookie first, if it has none. */
  issue(request: FastifyRequest, reply: FastifyReply): string
  /** Whether a request carries the token that belongs to its browser. */
  holds(request: FastifyRequest): boolean
}

export function createCsrfTokens(parts: { readonly issuer: string; readonly secrets: Secrets }): CsrfTokens {
  const { issuer, secrets } = parts
  const cookieName = csrfCookieName(issuer)
  const secure = issuer.startsWith('https://')
  const binding = (cookie: string) => `api:${cookie}`
  const cookieOf = (request: FastifyRequest) => {
    const value = request.cookies[cookieName]
    return value !== undefined && tokenPattern.test(value) ? value : undefined
  }
  return {
    issue(request, reply) {
      const cookie = cookieOf(request) ?? randomBytes(tokenBytes).toString('base64url')
      reply.setCookie(cookieName, cookie, { path: '/', httpOnly: true, secure, sameSite: 'lax' })
      return secrets.mac('csrf', binding(cookie))
    },
    holds(request) {
      const cookie = cookieOf(request)
      const token = request.headers[csrfHeader]
      return cookie !== undefined && typeof token === 'string' && secrets.matchesMac('csrf', binding(cookie), token)
    },
  }
}

/** Bodies of this scope are JSON and nothing else, and members that reach into prototypes are refused. */
export function readJsonOnly(scope: FastifyInstance): void {
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('application/json', { parseAs: 'string' }, scope.getDefaultJsonParser('error', 'error'))
}

export function assertJson(request: FastifyRequest): void {
  if (!jsonType.test(request.headers['content-type'] ?? '')) throw new Refusal('media_type', { detail: jsonAlone })
}

/**
 * Whether a browser says that a POST is another site's. The origin was held against the list already; without one, only
 * our own pages may send it. Programs that are no browsers send neither header, and nobody can make them.
 */
export function isForeign({ headers }: FastifyRequest, issuer: string): boolean {
  const site = headers['sec-fetch-site']
  if (site === undefined || site === 'same-origin') return false
  return headers.origin === undefined || headers.origin === issuer
}
