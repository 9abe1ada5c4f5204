// The OpenAPI 3.1 document, made from the contract: nothing in it is written twice.
import { z } from 'zod'
import { type Operation, operations, problemSchema, problemsOf } from './contract.ts'
import { csrfCookieName } from './gate.ts'
import { type ProblemCode, problemText, problemType } from './problems.ts'

/** OpenAPI 3.1 schemas are JSON Schema 2020-12. */
export type JsonSchema = Readonly<Record<string, unknown>>

export interface OpenApi {
  readonly openapi: '3.1.1'
  readonly info: Readonly<Record<string, unknown>>
  readonly servers: readonly { readonly url: string }[]
  readonly tags: readonly { readonly name: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, unknown>>>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly securitySchemes: Readonly<Record<string, unknown>>
  }
}

export const contract: readonly Operation[] = Object.values(operations)

export function openApiDocument(options: { readonly issuer: string; readonly sessionCookie: string }): OpenApi {
  const schemas: Record<string, JsonSchema> = {}
  const toSchema = schemaWriter(schemas)
  toSchema(problemSchema)
  const paths: Record<string, Record<string, Record<string, unknown>>> = {}
  for (const operation of contract)
    paths[operation.path] = {
      ...paths[operation.path],
      [operation.method.toLowerCase()]: describe(operation, toSchema),
    }
  return {
    openapi: '3.1.1',
    info: {
      title: 'MLPipes Auth API for first-party apps',
      version: '1',
      description:
        'Signing people in from an app of the same organisation, on the same site as this server. Other apps use OpenID Connect.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: options.issuer }],
    tags: [...new Set(contract.map(({ group }) => group))].map((name) => ({ name })),
    paths,
    components: {
      schemas,
      securitySchemes: {
        session: { type: 'apiKey', in: 'cookie', name: options.sessionCookie },
        csrfCookie: { type: 'apiKey', in: 'cookie', name: csrfCookieName(options.issuer) },
        csrfToken: { type: 'apiKey', in: 'header', name: 'X-CSRF-Token' },
      },
    },
  }
}

function describe(operation: Operation, toSchema: (schema: z.ZodType) => JsonSchema): Record<string, unknown> {
  const { answer, body } = operation
  const schema = answer.schema && toSchema(answer.schema)
  const needsSession = operation.problems.includes('session_missing')
  const security = {
    ...(needsSession ? { session: [] } : {}),
    ...(body ? { csrfCookie: [], csrfToken: [] } : {}),
  }
  return {
    operationId: operation.id,
    tags: [operation.group],
    summary: operation.summary,
    description: operation.description,
    security: [security],
    ...(body ? { requestBody: { required: true, content: { 'application/json': { schema: toSchema(body) } } } } : {}),
    responses: {
      [String(answer.status)]: {
        description: answer.description,
        ...(schema ? { content: { 'application/json': { schema } } } : {}),
      },
      ...problemResponses(problemsOf(operation)),
    },
  }
}

/** One response per status, which names the types of problem that come with it. */
function problemResponses(codes: readonly ProblemCode[]): Record<string, unknown> {
  const responses: Record<string, unknown> = {}
  for (const status of [...new Set(codes.map((code) => problemText(code).status))].sort()) {
    const here = codes.filter((code) => problemText(code).status === status)
    const types = here.map(problemType)
    responses[String(status)] = {
      description: here.map((code) => problemText(code).title).join('; '),
      ...(status === 429 ? { headers: { 'Retry-After': { schema: { type: 'integer', minimum: 1 } } } } : {}),
      content: {
        'application/problem+json': {
          schema: {
            allOf: [
              { $ref: '#/components/schemas/Problem' },
              { type: 'object', properties: { type: { enum: types }, status: { const: status } } },
            ],
          },
        },
      },
    }
  }
  return responses
}

/**
 * Writes zod schemas as JSON Schema. Those with a name go into `named` and are referred to.
 * @param named the document's `components.schemas`
 */
function schemaWriter(named: Record<string, JsonSchema>): (schema: z.ZodType) => JsonSchema {
  return (schema) => {
    const { $schema, $defs = {}, ...rest } = z.toJSONSchema(schema, { target: 'draft-2020-12', io: 'input' })
    void $schema
    for (const [name, definition] of Object.entries($defs)) named[name] = relinked(definition)
    return relinked(rest)
  }
}

/** A document of its own has its definitions in another place than a schema of its own. */
function relinked(schema: object): JsonSchema {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/'))
}
