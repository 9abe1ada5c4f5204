// Operations of the admin API for pages of our own: the same tables, rules, transactions, audit rows and denials, asked for
// by the person of a browser's session. The pages keep their own door: session, form token, fresh sign-in.
import type { FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import type { BrowserSession } from '../oidc/browser-session.ts'
import { assertPermitted, assertSteppedUp } from './access.ts'
import { toCall } from './call.ts'
import { findCallerOfSession, holdCaller, type PersonCaller } from './caller.ts'
import { createDenials } from './denials.ts'
import { once, replayed } from './idempotency.ts'
import { type Answered, type Kernel, type Run, settle } from './kernel.ts'
import type { AdminOperation } from './operation.ts'
import { toEtag } from './versions.ts'

/** What a page asks of an operation. */
export interface Asked {
  readonly caller: PersonCaller
  readonly request: FastifyRequest
  readonly params?: Readonly<Record<string, string>>
  readonly query?: Readonly<Record<string, string>>
  readonly body?: unknown
  /** Which version a change is meant for. */
  readonly version?: number
  /** As `Idempotency-Key`: what is asked again with it is answered as before, and not done again. */
  readonly key?: string
}

export interface Desk {
  /** The person of a session with what they may do in its organisation. */
  callerOf(session: BrowserSession): Promise<PersonCaller | undefined>
  /** @throws ApiProblem as the API would refuse it, and a Refusal for what is not there */
  ask<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType>(
    operation: AdminOperation<P, Q, B, A>,
    asked: Asked,
  ): Promise<{
    readonly body: z.output<A>
    readonly version: number | undefined
    /** It was done before, with the same key. */
    readonly isReplay: boolean
  }>
}

type Performed<A extends z.ZodType> = Answered<A> & { readonly isReplay?: boolean }

interface Parts {
  readonly database: Database
  readonly secrets: Secrets
  now(): Date
}

/** @param add adds the operations that can be asked for, as it would to the kernel */
export function createDesk(parts: Parts, add: (kernel: Pick<Kernel, 'on'>) => void): Desk {
  const { database, secrets, now } = parts
  const denials = createDenials(database)
  const runs = new Map<string, (asked: Asked) => Promise<Performed<z.ZodType>>>()

  function perform<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType>(
    operation: AdminOperation<P, Q, B, A>,
    run: Run<P, Q, B, A>,
    { caller, request, params = {}, query = {}, body, version, key }: Asked,
  ): Promise<Performed<A>> {
    const standing = { caller, organization: caller.organization }
    const headers = version === undefined ? {} : { 'if-match': toEtag([version]) }
    const attempt = { caller, organizationId: caller.organization.id, operationId: operation.id, request }
    return denials.watch(attempt, async () => {
      assertPermitted(operation, caller)
      assertSteppedUp(operation, caller, now())
      const before = toCall(secrets, operation, { params, query, body, headers, raw: request.raw }, standing)
      return transact(database.kysely, async (tx) => {
        const call = { ...before, caller: await settle(tx, { hold: holdCaller }, operation, standing) }
        if (key === undefined) return run(tx, call)
        const work = async () => ({
          status: operation.answer.status,
          body: JSON.stringify(await run(tx, call)),
          headers: {},
        })
        const asked = [operation.id, params, body ?? null]
        const about = { callerId: caller.id, organizationId: caller.organization.id, key, request: asked }
        const stored = await once(tx, secrets, about, work)
        return { ...JSON.parse(stored.body ?? '{}'), isReplay: replayed in stored.headers }
      })
    })
  }

  add({
    on(operation, run) {
      runs.set(operation.id, (asked) => perform(operation, run, asked))
    },
  })
  return {
    callerOf: (session) => findCallerOfSession(database, session),
    async ask(operation, asked) {
      const run = runs.get(operation.id)
      const { schema } = operation.answer
      if (!run || !schema) throw new Error(`${operation.id} cannot be asked for here`)
      const { body, version, isReplay = false } = await run(asked)
      return { body: schema.parse(body), version: version?.[0], isReplay }
    },
  }
}
