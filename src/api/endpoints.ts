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
  scope.setErrorHandler((error, request, reply) => {
    if (error instanceof ApiProblem) return sendProblem(request, reply, error.code, { errors: error.errors })
    if (!isUnreadableJson(error)) throw error
    const errors = [{ path: '', message: 'must be readable as JSON' }]
    return sendProblem(request, reply, 'input_invalid', { errors })
  })
  return {
    read(operation, handle) {
      scope.get(operation.path, async (request, reply) => handle(callOf(request, reply)))
    },
    act(operation, handle) {
      scope.post(operation.path, async (request, reply) => {
        const body = parseBody(operation.body, request.body)
        return handle(callOf(request, reply), body)
      })
    },
    withDevice: ({ visitor, reply }) => ({ ...visitor, deviceHash: visitor.deviceHash ?? devices.issue(reply) }),
  }
}

/** @throws ApiProblem that names every member that is not as the contract says */
function parseBody<Body extends z.ZodType>(schema: Body, body: unknown): z.output<Body> {
  const parsed = schema.safeParse(body)
  if (parsed.success) return parsed.data
  const errors = parsed.error.issues.slice(0, maxReportedErrors).map(({ path, message }) => ({
    path: path.map(String).join('.').slice(0, maxReportedLength),
    message: message.slice(0, maxReportedLength),
  }))
  throw new ApiProblem('input_invalid', errors)
}

const unreadableCodes = new Set(['FST_ERR_CTP_INVALID_JSON_BODY', 'FST_ERR_CTP_EMPTY_JSON_BODY'])

/** Broken JSON, an empty body, or a member named `__proto__`, which nobody means well. */
function isUnreadableJson(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return error instanceof SyntaxError || ('code' in error && unreadableCodes.has(String(error.code)))
}
