// Mounts the provider in Fastify: the raw request goes in unread, the provider writes the answer.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Provider } from 'oidc-provider'
import { sha256 } from '../crypto/secrets.ts'
import { devicePath } from './device.ts'
import { type Documents, documentMaxAgeSeconds, documentPaths } from './documents.ts'
import type { DirectIntrospection } from './introspection-direct.ts'
import { authorizePath } from './provider.ts'
import type { PayloadStore } from './store.ts'

const maxPostedBytes = 16_384
const postedModel = 'PostedAuthorizationRequest'
const postedSeconds = 60
const maxUrlLength = 8_192

const introspectionPath = '/oauth/introspect'
/** Whatever else is tried here is 405 (RFC 6749 §3.2, RFC 9126 §2.3 and their relatives). */
const postOnlyPaths: ReadonlySet<string> = new Set([
  '/oauth/token',
  '/oauth/par',
  '/oauth/device',
  introspectionPath,
  '/oauth/revoke',
  '/oauth/register',
])
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

  // OpenID Connect Core §3.1.2.1 wants POST at the authorization endpoint. A cross-site POST carries no Lax cookie, so
  // its parameters are kept for a minute and the browser comes back for them with a GET, which does.
  app.post(authorizePath, async (request, reply) => {
    const body = await readForm(request.raw)
    if (body === undefined)
      return reply
        .code(413)
        .send({ error: 'invalid_request', error_description: `the request is larger than ${maxPostedBytes} bytes` })
    if (/%00|\0/.test(body))
      return reply.code(400).send({ error: 'invalid_request', error_description: 'the request holds a NUL character' })
    const id = options.newId()
    await options.payloads.insertOnce(postedModel, sha256(id), { parameters: body }, postedSeconds)
    return reply.redirect(`${authorizePath}?posted=${id}`, 303)
  })

  app.get(authorizePath, async (request, reply) => {
    const posted = new URL(request.raw.url ?? '', issuer).searchParams.get('posted')
    if (posted !== null) {
      const stored = await options.payloads.find(postedModel, sha256(posted))
      request.raw.url = `${authorizePath}?${String(stored?.payload['parameters'] ?? '')}`
    }
    return hand(request, reply)
  })

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

  const handShort = async (request: FastifyRequest, reply: FastifyReply) => {
    if ((request.raw.url ?? '').length > maxUrlLength) {
      return reply.code(414).send({
        error: 'invalid_request',
        error_description: `the address is longer than ${maxUrlLength} characters`,
      })
    }
    return hand(request, reply)
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
  app.all('/oauth/*', (request, reply) => (isWrongMethod(request) ? refuseMethod(reply) : handShort(request, reply)))
  app.get(devicePath, handShort)
  app.post(devicePath, handShort)
  app.get(`${devicePath}/:uid`, handShort)
}

/** OPTIONS asks on behalf of a browser's script, and is the provider's to answer. */
function isWrongMethod({ method, url }: FastifyRequest): boolean {
  return method !== 'POST' && method !== 'OPTIONS' && postOnlyPaths.has(url.split('?', 1)[0] ?? '')
}

/** RFC 9110 §15.5.6. A browser may keep a 405, unless it is told not to. */
function refuseMethod(reply: FastifyReply): FastifyReply {
  return reply
    .code(405)
    .headers({ allow: 'POST', 'cache-control': 'no-store' })
    .send({ error: 'invalid_request', error_description: 'this address takes POST alone' })
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
