// The kernel of the admin API: makes operations into routes, and is the only way to one. What it does for each of them:
// who calls, scope, permission, step-up, organisation, input, version, idempotency, page, denials in the audit log, and
// an answer that holds what its schema names and nothing else.
//
// How to add a resource, in one file src/admin/<things>.ts:
//
//   export const operations = {
//     list: operation({ id: 'listThings', method: 'GET', path: '/api/admin/things', permission: 'thing:read', pageKey: 2,
//       query: listQuery({ q: search.optional() }), answer: { status: 200, description: '…', schema: pageOf(thing) }, … }),
//     update: operation({ method: 'PATCH', path: '/api/admin/things/:thingId', versioned: 1,
//       params: z.strictObject({ thingId: idParam }), body: z.strictObject({ name }), … }),
//   } as const
//   export function addThings({ on }: Kernel, parts: …): void {
//     on(operations.list, async (tx, { organization, query, page }) => {
//       const rows = await …where('organization_id', '=', organization.id)….limit(page.limit + 1)   // after page.after
//       return { body: page.answer(rows, toThing, (row) => [row.name, row.id]) }
//     })
//     on(operations.update, async (tx, call) => {
//       const row = await …update…where('version', '=', call.expected[0])…   // one statement; it decides
//       if (!row) throw (await exists(…)) ? new ApiProblem('version_stale') : new NotHere('thing', call.params.thingId)
//       await appendAudit(tx, { ...call.about, name: 'thing.updated', outcome: 'success', details: { … } })
//       return { body: toThing(row), version: [row.version] }
//     })
//   }
//
// Then: its `operations` into operations.ts, its `add…` into routes.ts, a row per operation in tests/admin/matrix.test.ts
// and tests/security/routes.test.ts.
// - A handler runs in one transaction, confined to the caller's organisation by row-level security; its statements name
//   the organisation all the same. It reads and writes through `tx` alone: the embedded database has one connection, and
//   whoever asks for another while the transaction holds it waits for ever. It changes nothing outside, because it may be run again after a collision. Slow work
//   (hashes, DNS) goes into `onPrepared`, before the transaction.
// - An id that is not there for this organisation: `throw new NotHere(kind, id)`. It is answered as 404 whether it is
//   nowhere or elsewhere, and the latter is audited. Nothing else may tell the two apart.
// - More than the operation's own permission: `requirePermission(call.caller, 'user:create')` of access.ts.
// - `stepUp` for what changes who holds what; `exclusive` for what can take an administrator away.
// - Answers carry `version` when the resource has one; creations answer 201 and take Idempotency-Key by themselves.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { answerProblems } from '../api/endpoints.ts'
import { assertJson, readJsonOnly } from '../api/gate.ts'
import { ApiProblem } from '../api/problems.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { confineTo } from '../db/organization-transaction.ts'
import { transact } from '../db/transaction.ts'
import { assertPermitted, assertScope, assertSteppedUp, requirePermission } from './access.ts'
import { type Call, chooseOrganization, toCall } from './call.ts'
import type { Caller, Callers, OrganizationRef } from './caller.ts'
import { createDenials } from './denials.ts'
import { isAnswered, once, readIdempotencyKey, type StoredAnswer } from './idempotency.ts'
import type { AdminOperation } from './operation.ts'
import { administrationKey } from './rules.ts'
import { forAnyOf, toEtag } from './versions.ts'

export interface KernelParts {
  readonly database: Database
  readonly secrets: Secrets
  readonly callers: Callers
  now(): Date
}

/** What a handler answers; the kernel sends it through the schema. */
export interface Answered<A extends z.ZodType> {
  readonly body?: z.input<A>
  readonly version?: readonly number[]
  /** Path of what was created. */
  readonly location?: string
}

export type Run<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType> = (
  tx: Tx,
  call: Call<P, Q, B>,
) => Promise<Answered<A>>

export interface Kernel {
  on<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType>(
    operation: AdminOperation<P, Q, B, A>,
    run: Run<P, Q, B, A>,
  ): void
  /** @param prepare does slow work before the transaction and hands over what is done in it */
  onPrepared<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType>(
    operation: AdminOperation<P, Q, B, A>,
    prepare: (call: Call<P, Q, B>) => Promise<Run<P, Q, B, A>>,
  ): void
  /** For an answer that is no JSON of one transaction, such as a download. Permissions and input are as ever. */
  stream<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType>(
    operation: AdminOperation<P, Q, B, A>,
    send: (call: Call<P, Q, B>, request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply>,
  ): void
}

interface Standing {
  readonly caller: Caller
  readonly organization: OrganizationRef
}

/** @param scope only the routes of this API: their bodies are JSON and nothing else */
export function createKernel(scope: FastifyInstance, parts: KernelParts): Kernel {
  const { database, secrets, callers, now } = parts
  const denials = createDenials(database)
  const letInAs = new WeakMap<FastifyRequest, Standing>()
  readJsonOnly(scope)
  answerProblems(scope)
  scope.addHook('onRequest', async (_request, reply) => {
    reply.header('cache-control', 'no-store').header('vary', 'Authorization, Cookie, Origin')
  })
  const standingOf = (request: FastifyRequest): Standing => {
    const standing = letInAs.get(request)
    if (!standing) throw new Error('the kernel has not let this request in')
    return standing
  }

  /** Whatever can be decided before the body is read. */
  async function letIn(operation: AdminOperation, request: FastifyRequest): Promise<void> {
    const caller = await callers.identify(request)
    const attempt = { caller, organizationId: caller.organization.id, operationId: operation.id, request }
    await denials.watch(attempt, async () => {
      callers.assertOwn(request)
      assertScope(operation, caller)
      assertPermitted(operation, caller)
      assertSteppedUp(operation, caller, now())
      letInAs.set(request, {
        caller,
        organization: await chooseOrganization(database, operation, caller, request.query),
      })
    })
    if (operation.body) assertJson(request)
  }

  /** What is refused further in is a denial too. */
  function route(
    operation: AdminOperation,
    handle: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>,
  ) {
    scope.route({
      method: operation.method,
      url: operation.path,
      onRequest: (request) => letIn(operation, request),
      handler: (request, reply) => {
        const { caller, organization } = standingOf(request)
        const attempt = { caller, organizationId: organization.id, operationId: operation.id, request }
        return denials.watch(attempt, () => handle(request, reply))
      },
    })
  }

  const onPrepared: Kernel['onPrepared'] = (operation, prepare) =>
    route(operation, async (request, reply) => {
      const before = toCall(secrets, operation, request, standingOf(request))
      const key = operation.answer.status === 201 ? readIdempotencyKey(request.headers['idempotency-key']) : undefined
      const organizationId = operation.reach === 'platform' ? undefined : before.organization.id
      const keyed = key === undefined ? undefined : { callerId: before.caller.id, organizationId, key }
      const isReplay = keyed !== undefined && (await isAnswered(database, keyed))
      const prepared = isReplay ? undefined : await prepare(before)
      const answer = await forAnyOf(before.versions, (expected) =>
        transact(database.kysely, async (tx) => {
          const call = { ...before, expected, caller: await settle(tx, callers, operation, before) }
          // A replay prepares nothing, but for one whose day ended in between.
          const work = async () => toStored(operation, await (prepared ?? (await prepare(before)))(tx, call))
          if (keyed === undefined) return work()
          return once(tx, secrets, { ...keyed, request: [operation.id, request.url, request.body ?? null] }, work)
        }),
      )
      return send(reply, answer)
    })

  return {
    on: (operation, run) => onPrepared(operation, async () => run),
    onPrepared,
    stream(operation, sendStream) {
      route(operation, (request, reply) =>
        sendStream(toCall(secrets, operation, request, standingOf(request)), request, reply),
      )
    },
  }
}

const exclusively = `select pg_advisory_xact_lock(${administrationKey})`

/**
 * Confines the transaction to its organisation. For changes, holds the caller to what they may do now and until it ends:
 * of two administrators who demote each other, the second is none any more (F73).
 */
export async function settle(
  tx: Tx,
  callers: Pick<Callers, 'hold'>,
  operation: AdminOperation,
  { caller: before, organization }: Standing,
): Promise<Caller> {
  if (operation.exclusive) await runIn(tx, exclusively, [organization.id])
  const caller = operation.method === 'GET' ? before : await callers.hold(tx, before)
  if (!caller) throw new ApiProblem('caller_unknown', [], { wwwAuthenticate: 'Bearer error="invalid_token"' })
  assertPermitted(operation, caller)
  if (organization.id !== caller.organization.id) requirePermission(caller, 'platform:organizations')
  if (operation.reach !== 'platform') await confineTo(tx, organization.id)
  return caller
}

/** @throws when a handler answers what its schema does not know: a fault of ours, found before anything is committed */
function toStored({ answer }: AdminOperation, { body, version, location }: Answered<z.ZodType>): StoredAnswer {
  return {
    status: answer.status,
    body: answer.schema && JSON.stringify(answer.schema.parse(body)),
    headers: {
      ...(version ? { etag: toEtag(version) } : {}),
      ...(location === undefined ? {} : { location }),
    },
  }
}

function send(reply: FastifyReply, { status, headers, body }: StoredAnswer): FastifyReply {
  reply.code(status).headers(headers)
  return body === undefined ? reply.send() : reply.type('application/json; charset=utf-8').send(body)
}
