// Operations of the admin API in the OpenAPI document: nothing here is written twice.

import type { ProblemCode } from '../api/problems.ts'
import { type JsonSchema, problemResponses, type SchemaWriter } from '../api/schema-writer.ts'
import { scopeFor } from './access.ts'
import type { AdminOperation } from './operation.ts'

/** What any operation can be refused with, and what those of a kind can. */
const everyProblem = [
  // Every operation reads a query, and refuses what it does not know in it.
  'input_invalid',
  'address_unreadable',
  'caller_unknown',
  'forbidden',
  'scope_insufficient',
  'request_foreign',
  // Somebody of the platform may name an organisation that there is not.
  'not_found',
  'host_unknown',
] as const
const faultProblems = ['internal', 'outage'] as const

export function adminProblemsOf(operation: AdminOperation): readonly ProblemCode[] {
  const { problems, body, stepUp, versioned, method, answer } = operation
  const isChange = versioned !== undefined && method !== 'GET' && method !== 'POST'
  const all: ProblemCode[] = [
    ...everyProblem,
    ...(body ? (['media_type', 'too_large'] as const) : []),
    ...(stepUp ? (['step_up_required', 'client_too_weak'] as const) : []),
    ...(isChange ? (['version_required', 'version_stale'] as const) : []),
    ...(answer.status === 201 ? (['idempotency_in_progress', 'idempotency_key_reused'] as const) : []),
    ...problems,
    ...faultProblems,
  ]
  return [...new Set(all)]
}

export function describeAdmin(operation: AdminOperation, toSchema: SchemaWriter): Record<string, unknown> {
  const { answer, body, method, permission, stepUp, versioned } = operation
  const schema = answer.schema && toSchema(answer.schema)
  const isRead = method === 'GET'
  const held = permission === 'known' ? 'Any caller who is known.' : `Permission: \`${permission}\`.`
  const strength = stepUp ? ' Needs a sign-in with the second factor of the last five minutes.' : ''
  return {
    operationId: operation.id,
    tags: [operation.group],
    summary: operation.summary,
    description: `${operation.description} ${held}${strength}`,
    security: [
      { oauth2: [scopeFor(operation)] },
      { session: [], ...(isRead ? {} : { csrfCookie: [], csrfToken: [] }) },
    ],
    parameters: parametersOf(operation, toSchema),
    ...(body ? { requestBody: { required: true, content: { 'application/json': { schema: toSchema(body) } } } } : {}),
    responses: {
      [String(answer.status)]: {
        description: answer.description,
        headers: {
          ...(versioned && schema ? { ETag: { schema: { type: 'string' }, description: 'the version' } } : {}),
          ...(answer.status === 201
            ? {
                Location: { schema: { type: 'string' } },
                'Idempotency-Replayed': { schema: { const: 'true' }, description: 'it was done before, and not again' },
              }
            : {}),
        },
        ...(schema ? { content: { 'application/json': { schema } } } : {}),
      },
      ...problemResponses(adminProblemsOf(operation)),
    },
  }
}

function parametersOf(operation: AdminOperation, toSchema: SchemaWriter): Record<string, unknown>[] {
  const { versioned, method, answer } = operation
  const isChange = versioned !== undefined && method !== 'GET' && method !== 'POST'
  const string = { type: 'string' }
  return [
    ...members(toSchema(operation.params), 'path'),
    ...members(toSchema(operation.query), 'query'),
    {
      name: 'organization',
      in: 'query',
      required: false,
      schema: string,
      description: 'id of the organisation to act in; another than one’s own with platform:organizations only',
    },
    ...(isChange
      ? [{ name: 'If-Match', in: 'header', required: true, schema: string, description: 'the ETag that was read' }]
      : []),
    ...(answer.status === 201
      ? [
          {
            name: 'Idempotency-Key',
            in: 'header',
            required: false,
            schema: { type: 'string', minLength: 1, maxLength: 255 },
            description: 'the same for a day means the same creation: sent again, it is answered and not done again',
          },
        ]
      : []),
  ]
}

/** The members of an object schema as parameters. */
function members(schema: JsonSchema, place: 'path' | 'query'): Record<string, unknown>[] {
  const required = new Set([schema['required'] ?? []].flat())
  return Object.entries(Object(schema['properties'])).map(([name, member]) => {
    const { description, ...rest } = Object(member)
    return {
      name,
      in: place,
      required: place === 'path' || required.has(name),
      schema: rest,
      ...(description === undefined ? {} : { description }),
    }
  })
}
