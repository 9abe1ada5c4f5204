// The registration endpoint (RFC 7591 §3), that of each registration (RFC 7592 §2) and that of its secret. Who calls is
// decided from the headers, before a body is read; a try is counted before its token is looked up.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { assertJson, readJsonOnly } from '../api/gate.ts'
import { appendAudit } from '../audit/audit.ts'
import { hasSecret } from '../clients/clients.ts'
import type { Taken, Throttle } from '../credentials/throttle.ts'
import { sha256 } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { originOf } from '../http/origin.ts'
import { toRefusal } from '../http/problems.ts'
import { type RegistrationError, RegistrationProblem, unknownToken } from './problems.ts'
import { type Presented, type Registered, type Registrations, switchedOff } from './registration.ts'
import { findInvitation, findRegistration, type Invitation, type Registration } from './store.ts'

export const registrationPath = '/oauth/register'
const tokenPattern = /^Bearer ((?:iat|rat)_[A-Za-z0-9_-]{43})$/i

export interface RegistrationRouteParts {
  readonly issuer: string
  readonly database: Database
  readonly throttle: Throttle
  readonly registrations: Registrations
}

interface Counted extends Presented {
  readonly taken: Taken
}
type Standing<Holder> = Counted & { readonly holder: Holder }

export function addRegistrationRoutes(app: FastifyInstance, parts: RegistrationRouteParts): void {
  const { issuer, database, throttle, registrations } = parts
  const invited = new WeakMap<FastifyRequest, Standing<Invitation>>()
  const registered = new WeakMap<FastifyRequest, Standing<Registration>>()

  /** Counts the try; it is given back to whoever succeeds. */
  async function count(request: FastifyRequest): Promise<Counted> {
    const token = tokenPattern.exec(request.headers.authorization ?? '')?.[1]
    if (token === undefined) throw unknownToken()
    const [origin, hash] = [originOf(request.raw), sha256(token)]
    const taken = await throttle.take({
      purpose: 'registration',
      identifier: hash,
      ip: origin.ip,
      deviceHash: undefined,
    })
    if (taken.ok) return { token, hash, origin, taken }
    const { retryAfterSeconds } = taken
    const description = `too many requests were refused; try again in ${retryAfterSeconds} seconds`
    throw new RegistrationProblem('temporarily_unavailable', description, { retryAfterSeconds })
  }

  /** What was done is done, and its answer holds what is shown once: it is not lost over a count. */
  const giveBack = (request: FastifyRequest, { taken }: Counted) =>
    throttle.settle(taken).catch((error: unknown) => request.log.warn({ err: error }, 'a try was not given back'))

  /** Writes down what is refused to a token that could be one. */
  async function watch<T>(
    { origin }: Presented,
    known: { readonly organizationId?: string; readonly clientId?: string; readonly tokenId?: string },
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (error instanceof RegistrationProblem) {
        const { organizationId, clientId, tokenId: registrationTokenId } = known
        const actor =
          clientId === undefined ? { type: 'anonymous' as const } : { type: 'client' as const, id: clientId }
        const details = { error: error.error, detail: error.detail, registrationTokenId }
        const about = { outcome: 'failure' as const, actor, organizationId, clientId, origin }
        await transact(database.kysely, (tx) => appendAudit(tx, { ...about, name: 'registration.refused', details }))
      }
      throw error
    }
  }

  async function letInvited(request: FastifyRequest): Promise<void> {
    const counted = await count(request)
    const holder = await watch(counted, {}, async () => {
      const found = await findInvitation(database, counted.hash)
      if (!found) throw unknownToken()
      return found
    })
    invited.set(request, { ...counted, holder })
    assertJson(request)
  }

  async function letRegistered(request: FastifyRequest): Promise<void> {
    const counted = await count(request)
    const holder = await watch(counted, {}, async () => {
      const found = await findRegistration(database, counted.hash)
      // RFC 7592 §2: for whatever is not there, 401. The token stays good for what it is good for.
      if (!found || found.clientId !== Reflect.get(Object(request.params), 'clientId')) throw unknownToken()
      if (found.isDisabled) throw switchedOff()
      return found
    })
    registered.set(request, { ...counted, holder })
    const { method, headers } = request
    // A new secret takes no body at all, too.
    if (method === 'PUT' || (method === 'POST' && headers['content-type'] !== undefined)) assertJson(request)
  }

  /** Does what a client asks for about itself. */
  async function manage<T>(
    request: FastifyRequest,
    work: (registration: Registration, presented: Presented) => Promise<T>,
  ): Promise<T> {
    const { holder, ...counted } = standing(registered, request)
    const { organizationId, clientId, registrationTokenId: tokenId } = holder
    const result = await watch(counted, { organizationId, clientId, tokenId }, () => work(holder, counted))
    await giveBack(request, counted)
    return result
  }

  app.register(async (scope) => {
    readJsonOnly(scope)
    answerErrors(scope)
    scope.addHook('onRequest', async (_request, reply) => {
      reply.header('cache-control', 'no-store').header('pragma', 'no-cache')
    })
    scope.post(registrationPath, { onRequest: letInvited }, async (request, reply) => {
      const { holder, ...counted } = standing(invited, request)
      const { organizationId, tokenId } = holder
      const result = await watch(counted, { organizationId, tokenId }, () =>
        registrations.create(holder, counted, request.body),
      )
      await giveBack(request, counted)
      return reply.code(201).send(toAnswer(issuer, result))
    })
    const own = { onRequest: letRegistered }
    const path = `${registrationPath}/:clientId`
    scope.get(path, own, async (request) => toAnswer(issuer, await manage(request, registrations.read)))
    scope.put(path, own, async (request) => {
      const result = await manage(request, (...who) => registrations.update(...who, request.body))
      return toAnswer(issuer, result)
    })
    scope.post(`${path}/secret`, own, async (request) => {
      const result = await manage(request, (...who) => registrations.replaceSecret(...who, request.body))
      return toAnswer(issuer, result)
    })
    scope.delete(path, own, async (request, reply) => {
      await manage(request, registrations.remove)
      return reply.code(204).send()
    })
  })
}

function standing<Holder>(known: WeakMap<FastifyRequest, Standing<Holder>>, request: FastifyRequest): Standing<Holder> {
  const found = known.get(request)
  if (!found) throw new Error('this request was not let in')
  return found
}

/** RFC 7591 §3.2.1, RFC 7592 §3: what was registered, whatever was asked for. */
function toAnswer(issuer: string, registered: Registered): Record<string, unknown> {
  const { client, secret, token, formerSecretUntil } = registered
  const { introspection: _introspection, first_party: _party, session_activity: _activity, ...members } = client.members
  return {
    client_id: client.clientId,
    client_id_issued_at: toSeconds(client.createdAt),
    ...(secret === undefined ? {} : { client_secret: secret }),
    ...(hasSecret(members) ? { client_secret_expires_at: 0 } : {}),
    ...(formerSecretUntil ? { previous_client_secret_expires_at: toSeconds(formerSecretUntil) } : {}),
    registration_access_token: token,
    registration_client_uri: `${issuer}${registrationPath}/${client.clientId}`,
    ...members,
    response_types: members.grant_types.includes('authorization_code') ? ['code'] : [],
  }
}

/** Since 1970, as RFC 7591 counts. A moment too early does no harm, and one too late would. */
const toSeconds = (instant: Date) => Math.floor(instant.getTime() / 1000)

/** Errors of a protocol endpoint: JSON with the members of RFC 6749 §5.2, whatever went wrong. */
function answerErrors(scope: FastifyInstance): void {
  const send = (reply: FastifyReply, status: number, error: RegistrationError, description: string) =>
    reply.code(status).type('application/json; charset=utf-8').send({ error, error_description: description })
  scope.setErrorHandler((thrown, request, reply) => {
    if (thrown instanceof RegistrationProblem) {
      const { status, error, description, retryAfterSeconds } = thrown
      if (status === 401) {
        const challenge = request.headers.authorization === undefined ? 'Bearer' : `Bearer error="${error}"`
        reply.header('www-authenticate', challenge)
      }
      if (retryAfterSeconds !== undefined) reply.header('retry-after', String(retryAfterSeconds))
      return send(reply, status, error, description)
    }
    const { status, detail, retryAfterSeconds } = toRefusal(thrown)
    if (status >= 500) request.log.error({ err: thrown }, 'registration failed')
    if (retryAfterSeconds !== undefined) reply.header('retry-after', String(retryAfterSeconds))
    if (status >= 500) return send(reply, status, status === 503 ? 'temporarily_unavailable' : 'server_error', detail)
    if (status === 415) return send(reply, status, 'invalid_request', 'send the client metadata as application/json')
    if (status === 421) return send(reply, status, 'invalid_request', detail)
    const what =
      status === 413 ? 'the client metadata is too large' : 'the body must be a JSON object of client metadata'
    return send(reply, status, 'invalid_client_metadata', what)
  })
}
