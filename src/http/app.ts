// The Fastify application at the edge: limits, request ids, which hosts and forwarded headers count, security headers,
// logs without secrets. It knows no route of the product.
import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { BlockList, isIP } from 'node:net'
import cookie from '@fastify/cookie'
import formbody from '@fastify/formbody'
import staticFiles from '@fastify/static'
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify'
import { Refusal } from '../errors.ts'
import { canonicalAddress } from './address.ts'
import { setOrigin } from './origin.ts'
import { addProblemHandlers, sendRefusal } from './problems.ts'
import { publicFolder, type Views } from './views.ts'

export const limits = {
  bodyBytes: 65_536,
  requestTimeoutMs: 15_000,
  connectionTimeoutMs: 20_000,
  headersTimeoutMs: 10_000,
  keepAliveTimeoutMs: 72_000,
  requestsPerSocket: 10_000,
  urlLength: 16_384,
  pathParameterLength: 128,
} as const

/** Paths that an orchestrator asks by whatever address it has. */
const hostlessPaths = new Set(['/healthz', '/readyz'])

export interface AppOptions {
  readonly issuer: string
  readonly trustedProxies: readonly string[]
  readonly logger: FastifyBaseLogger
  readonly views: Views
}

/** One line of the route table; guards are tested over all of them. */
export interface Route {
  readonly method: string
  readonly url: string
}

/** @returns the application, and the table of its routes, which grows as they are added */
export async function createApp(options: AppOptions): Promise<{ app: FastifyInstance; routes: readonly Route[] }> {
  const app: FastifyInstance = Fastify({
    loggerInstance: options.logger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.requestTimeoutMs,
    connectionTimeout: limits.connectionTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    maxRequestsPerSocket: limits.requestsPerSocket,
    trustProxy: options.trustedProxies.length > 0 ? [...options.trustedProxies] : false,
    genReqId: () => randomUUID(),
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
    return503OnClosing: true,
    // The longest id in a path is a client's, of 128 characters.
    routerOptions: { maxParamLength: limits.pathParameterLength },
    // What the router cannot read comes to no hook and no handler of errors. An id too long to be one names nothing.
    frameworkErrors: (error, request, reply) => {
      setSecurityHeaders(reply.raw, request.id, options.issuer)
      const code = error.code === 'FST_ERR_MAX_PARAM_LENGTH' ? 'not_found' : 'address_unreadable'
      void sendRefusal(request, reply, new Refusal(code), options.views)
    },
    http: { headersTimeout: limits.headersTimeoutMs },
  })
  const routes: Route[] = []
  app.addHook(
    'onRoute',
    ({ method, url }) => void routes.push(...[method].flat().map((name) => ({ method: name, url }))),
  )
  await app.register(cookie)
  await app.register(formbody, { bodyLimit: limits.bodyBytes })
  await app.register(staticFiles, {
    root: publicFolder,
    prefix: '/assets/',
    index: false,
    maxAge: '1y',
    immutable: true,
    decorateReply: false,
  })
  guardEdge(app, options)
  addProblemHandlers(app, options.views)
  logRequests(app)
  return { app, routes }
}

function guardEdge(app: FastifyInstance, { issuer, trustedProxies }: AppOptions): void {
  const host = new URL(issuer).host
  const proxies = toBlockList(trustedProxies)
  app.addHook('onRequest', async (request, reply) => {
    const raw = request.raw
    const peer = raw.socket.remoteAddress
    const forwarded =
      proxies && peer !== undefined && isListed(proxies, peer) ? canonicalAddress(request.ip) : undefined
    // What cannot be read as an address is not believed: the peer itself is then the client.
    const ip = forwarded ?? canonicalAddress(peer)
    setOrigin(raw, { ip, userAgent: raw.headers['user-agent'], requestId: request.id })
    setSecurityHeaders(reply.raw, request.id, issuer)
    // The provider reads the request itself and must not see what a client claims to have been forwarded.
    for (const name of Object.keys(raw.headers))
      if (name.startsWith('x-forwarded-') || name === 'forwarded') delete raw.headers[name]
    if ((raw.headers.host ?? '').toLowerCase() !== host && !hostlessPaths.has(raw.url ?? '')) {
      throw new Refusal('host_unknown', {
        detail: `This server answers at ${issuer} only. Open that address instead.`,
      })
    }
    if (/%00|%(?![0-9a-f]{2})/i.test(raw.url ?? '') || (raw.url ?? '').length > limits.urlLength) {
      throw new Refusal('address_unreadable')
    }
  })
}

function toBlockList(ranges: readonly string[]): BlockList | undefined {
  if (ranges.length === 0) return undefined
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', prefix] = range.split('/')
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    list.addSubnet(address, prefix === undefined ? (family === 'ipv6' ? 128 : 32) : Number(prefix), family)
  }
  return list
}

function isListed(list: BlockList, address: string): boolean {
  const plain = canonicalAddress(address) ?? ''
  return list.check(plain, isIP(plain) === 6 ? 'ipv6' : 'ipv4')
}

/** On the raw response: the provider writes its answers itself, past Fastify's own headers. */
function setSecurityHeaders(response: ServerResponse, requestId: string, issuer: string): void {
  for (const [name, value] of Object.entries(securityHeaders(issuer))) response.setHeader(name, value)
  response.setHeader('x-request-id', requestId)
}

function securityHeaders(issuer: string): Record<string, string> {
  return {
    'content-security-policy':
      "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    // Not no-referrer: under that, browsers send our own forms with "Origin: null", and the origin could not be checked.
    'referrer-policy': 'same-origin',
    'permissions-policy': 'camera=(), microphone=(), geolocation=(), interest-cohort=()',
    'cross-origin-opener-policy': 'same-origin',
    ...(issuer.startsWith('https://') ? { 'strict-transport-security': 'max-age=63072000; includeSubDomains' } : {}),
  }
}

/** One line per request, with the path only: a query holds state, hints and codes. */
function logRequests(app: FastifyInstance): void {
  app.addHook('onRequest', async (request, reply) => {
    reply.raw.once('finish', () => {
      const path = (request.originalUrl || request.url).split('?', 1)[0]
      request.log.info(
        {
          method: request.method,
          path,
          status: reply.raw.statusCode,
          ms: Math.round(reply.elapsedTime),
          requestId: request.id,
        },
        'request',
      )
    })
  })
}
