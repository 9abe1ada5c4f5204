// How an operation of the contract becomes a route: the gate has let the request in, the body is read by its schema, and
// what is refused below a handler is answered as a problem.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { DeviceCookie } from '../credentials/devices.ts'
import { originOf } from '../http/origin.ts'
import type { Visitor } from '../login/login.ts'
import type { Operation } from './contract.ts'
import type { Gate } from './gate.ts'
import type { CallingApp } from './origins.ts'
import { ApiProblem, sendProblem } from './problems.ts'

const maxReportedErrors = 20
const maxReportedLength = 200

/** One request that the gate has let in. */
export interface Call {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly app: CallingApp
  readonly visitor: Visitor
}

export interface Endpoints {
  read(operation: Operation, handle: (call: Call) => Promise<FastifyReply>): void
  act<Body extends z.ZodType>(
    operation: Operation<Body> & { readonly body: Body },
    handle: (call: Call, body: z.output<Body>) => Promise<FastifyReply>,
  ): void
  /** A browser that proves something gets a device cookie, as on the pages, and is remembered when its sign-in is complete. */
  withDevice(call: Call): Visitor
}

export function createEndpoints(
  scope: FastifyInstance,
  { gate, devices }: { readonly gate: Gate; readonly devices: DeviceCookie },
): Endpoints {
  const callOf = (request: FastifyRequest, reply: FastifyReply): Call => ({
    request,
    reply,
    app: gate.appOf(request),
    visitor: { origin: originOf(request.raw), deviceHash: devices.read(request.cookies) },
  })
  answerProblems(scope)
  return {
    read(operation, handle) {
      scope.get(operation.path, async (request, reply) => handle(callOf(request, reply)))
    },
    act(operation, handle) {
      scope.post(operation.path, async (request, reply) => {
        const body = parseInput(operation.body, request.body)
        return handle(callOf(request, reply), body)
      })
    },
    withDevice: ({ visitor, reply }) => ({ ...visitor, deviceHash: visitor.deviceHash ?? devices.issue(reply) }),
  }
}

/** Answers what is thrown below a handler as a problem. What this API has no words for is the application's to answer. */
export function answerProblems(scope: FastifyInstance): void {
  scope.setErrorHandler((error, request, reply) => {
    if (error instanceof ApiProblem) return sendProblem(request, reply, error.code, error.exact)
    if (!isUnreadableJson(error)) throw error
    const errors = [{ path: '', message: 'must be readable as JSON' }]
    return sendProblem(request, reply, 'input_invalid', { errors })
  })
}

/** @throws ApiProblem that names every member that is not as the contract says, also those that it does not know */
export function parseInput<Schema extends z.ZodType>(schema: Schema, input: unknown): z.output<Schema> {
  const parsed = schema.safeParse(input)
  if (parsed.success) return parsed.data
  const errors = parsed.error.issues.flatMap(toErrors).slice(0, maxReportedErrors)
  throw new ApiProblem(
    'input_invalid',
    errors.map(({ path, message }) => ({
      path: path.map(String).join('.').slice(0, maxReportedLength),
      message: message.slice(0, maxReportedLength),
    })),
  )
}

function toErrors(issue: z.core.$ZodIssue): { readonly path: readonly PropertyKey[]; readonly message: string }[] {
  if (issue.code !== 'unrecognized_keys') return [issue]
  return issue.keys.map((key) => ({ path: [...issue.path, key], message: 'is not known here' }))
}

const unreadableCodes = new Set(['FST_ERR_CTP_INVALID_JSON_BODY', 'FST_ERR_CTP_EMPTY_JSON_BODY'])

/** Broken JSON, an empty body, or a member named `__proto__`, which nobody means well. */
function isUnreadableJson(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return error instanceof SyntaxError || ('code' in error && unreadableCodes.has(String(error.code)))
}
