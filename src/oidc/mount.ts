// Mounts the provider in Fastify: the raw request goes in unread, the provider writes the answer.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Provider } from 'oidc-provider'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import { Refusal } from '../errors.ts'
import { devicePath } from './device.ts'
import { type Documents, documentMaxAgeSeconds, documentPaths } from './documents.ts'
import type { DirectIntrospection } from './introspection-direct.ts'
import { authorizePath } from './provider.ts'
import type { PayloadStore } from './store.ts'

const maxPostedBytes = 16_384
const logoutPath = '/oauth/logout'
const postedModel = 'PostedAuthorizationRequest'
const postedSeconds = 60
const maxUrlLength = 8_192

const introspectionPath = '/oauth/introspect'

type Methods = 'GET' | 'POST' | 'GET, POST' | 'GET, PUT, DELETE'

interface Endpoint {
  readonly path: string
  /**
   * As `Allow` says it; what takes GET takes HEAD. Whatever else is tried there is 405 (RFC 6749 §3.2, RFC 9126 §2.3 and
   * their relatives).
   */
  readonly methods: Methods
  /** Whether scripts of other origins may ask, so that their browser asks first, by OPTIONS. */
  readonly isForScripts: boolean
}

const at = (path: string, methods: Methods, isForScripts = false): Endpoint => ({ path, methods, isForScripts })

/** What there is below /oauth/, each spelled in one way. */
const endpoints = [
  at(authorizePath, 'GET, POST'),
  at(`${authorizePath}/:uid`, 'GET'),
  at('/oauth/token', 'POST', true),
  at('/oauth/par', 'POST', true),
  at('/oauth/device', 'POST', true),
  at(introspectionPath, 'POST', true),
  at('/oauth/revoke', 'POST', true),
  at('/oauth/userinfo', 'GET, POST', true),
  at('/oauth/jwks', 'GET', true),
  at(logoutPath, 'GET, POST'),
  at('/oauth/logout/confirm', 'POST'),
  at('/oauth/logout/success', 'GET'),
  // Answered by registration/routes.ts; what comes here tries another method.
  at('/oauth/register', 'POST'),
  at('/oauth/register/:clientId', 'GET, PUT, DELETE'),
  at('/oauth/register/:clientId/secret', 'POST'),
].map((endpoint) => ({ ...endpoint, pattern: new RegExp(`^${endpoint.path.replace(/:\w+/g, '[^/]+')}$`) }))

/** As the provider sends them. */
const introspectionHeaders = {
  vary: 'Origin',
  'access-control-allow-origin': '*',
  'access-control-expose-headers': 'WWW-Authenticate',
  'cache-control': 'no-store',
  pragma: 'no-cache',
}

export interface MountOptions {
  readonly issuer: string
  readonly payloads: PayloadStore
  /** Discovery and JWKS, by path. */
  documents(): Documents
  /** The provider of the moment: it changes when keys change. */
  provider(): Provider
  newId(): string
  /** For what is kept of a posted request: an ID token says who somebody is. */
  readonly secrets: Pick<Secrets, 'seal' | 'open'>
  introspect: DirectIntrospection
}

/** Registers the protocol endpoints and discovery. Call it inside an encapsulated scope: it leaves bodies unread. */
export async function mountProvider(app: FastifyInstance, options: MountOptions): Promise<void> {
  const issuer = new URL(options.issuer)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, done) => done(null))

  const scheme = issuer.protocol.slice(0, -1)
  const hand = (request: FastifyRequest, reply: FastifyReply) => {
    reply.hijack()
    request.raw.headers['x-forwarded-proto'] = scheme
    return callbackOf(options.provider())(request.raw, reply.raw)
  }

  const handShort = async (request: FastifyRequest, reply: FastifyReply) => {
    if ((request.raw.url ?? '').length > maxUrlLength) {
      return reply.code(414).send({
        error: 'invalid_request',
        error_description: `the address is longer than ${maxUrlLength} characters`,
      })
    }
    return hand(request, reply)
  }

  // OpenID Connect Core §3.1.2.1 and RP-Initiated Logout 1.0 §2 want POST there too. A cross-site POST carries no Lax cookie,
  // so its parameters are kept for a minute and the browser comes back for them with a GET, which does.
  for (const path of [authorizePath, logoutPath]) {
    app.post(path, async (request, reply) => {
      const body = await readForm(request.raw)
      if (body === undefined)
        return reply
          .code(413)
          .send({ error: 'invalid_request', error_description: `the request is larger than ${maxPostedBytes} bytes` })
      if (/%00|\0/.test(body))
        return reply
          .code(400)
          .send({ error: 'invalid_request', error_description: 'the request holds a NUL character' })
      const id = options.newId()
      const sealed = options.secrets.seal(body, `posted:${id}`)
      await options.payloads.insertOnce(postedModel, sha256(id), { path, sealed }, postedSeconds)
      return reply.redirect(`${path}?posted=${id}`, 303)
    })

    app.get(path, async (request, reply) => {
      const posted = new URL(request.raw.url ?? '', issuer).searchParams.get('posted')
      if (posted === null) return handShort(request, reply)
      const { payload } = (await options.payloads.find(postedModel, sha256(posted))) ?? {}
      const isHere = payload?.['path'] === path
      const parameters = isHere ? options.secrets.open(String(payload['sealed']), `posted:${posted}`) : ''
      request.raw.url = `${path}?${parameters}`
      return hand(request, reply)
    })
  }

  for (const path of documentPaths) {
    app.get(path, (_request, reply) =>
      reply
        .headers({
          'content-type': 'application/json; charset=utf-8',
          'cache-control': `public, max-age=${documentMaxAgeSeconds}`,
          'access-control-allow-origin': '*',
        })
        .send(options.documents().get(path)),
    )
  }

  app.post(introspectionPath, async (request, reply) => {
    const answer = await options.introspect(request.raw).catch((error: unknown) => {
      // An outage fails there too, and is said in the words of the protocol.
      request.log.warn({ err: error }, 'an introspection was left to the provider')
      return undefined
    })
    // Whoever went away before saying what they ask has made no mistake that their app should read of.
    if (request.raw.destroyed) return reply.hijack()
    if (!answer) return handShort(request, reply)
    request.raw.resume()
    return reply.headers(introspectionHeaders).send(answer)
  })
  app.all('/oauth/*', async (request, reply) => {
    // A proxy may write the whole address (RFC 9112 §3.2.2).
    const [path = ''] = request.url.replace(/^https?:\/\/[^/]*/i, '').split('?', 1)
    const endpoint = endpoints.find(({ pattern }) => pattern.test(path))
    // The provider would answer both in plain text.
    if (!endpoint) throw new Refusal('not_found')
    return takes(endpoint, request) ? handShort(request, reply) : refuseMethod(endpoint, request, reply)
  })
  app.get(devicePath, handShort)
  app.post(devicePath, handShort)
  app.get(`${devicePath}/:uid`, handShort)
}

function takes({ methods, isForScripts }: Endpoint, { method, headers }: FastifyRequest): boolean {
  if (method === 'OPTIONS') return isForScripts && headers['access-control-request-method'] !== undefined
  return methods.split(', ').includes(method === 'HEAD' ? 'GET' : method)
}

/** RFC 9110 §15.5.6, as a page or in the words of the protocol. A browser may keep a 405, unless it is told not to. */
function refuseMethod({ methods }: Endpoint, { headers }: FastifyRequest, reply: FastifyReply): FastifyReply {
  const said = `this address takes ${methods} alone`
  reply.headers({ allow: methods, 'cache-control': 'no-store' })
  if (headers.accept?.includes('text/html'))
    throw new Refusal('request_unreadable', {
      status: 405,
      detail: `${said.replace('t', 'T')}. Go back to the app you came from and try again.`,
    })
  return reply.code(405).send({ error: 'invalid_request', error_description: said })
}

type Callback = (request: IncomingMessage, response: ServerResponse) => unknown
const callbacks = new WeakMap<Provider, Callback>()

/** A provider's request handler, composed once: Koa would compose its middleware anew for every request. */
function callbackOf(provider: Provider): Callback {
  const callback: Callback = callbacks.get(provider) ?? provider.callback()
  callbacks.set(provider, callback)
  return callback
}

/** Reads a form body up to the limit; undefined when it is larger. */
async function readForm(stream: NodeJS.ReadableStream): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk)
    size += bytes.length
    if (size > maxPostedBytes) return undefined
    chunks.push(bytes)
  }
  return Buffer.concat(chunks).toString('utf8')
}
