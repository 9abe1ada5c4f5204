// The OpenAPI 3.1 document, made from the contract: nothing in it is written twice.
import { describeAdmin } from '../admin/openapi.ts'
import { adminOperations } from '../admin/operations.ts'
import { type Operation, operations, problemSchema, problemsOf } from './contract.ts'
import { csrfCookieName } from './gate.ts'
import { type JsonSchema, problemResponses, type SchemaWriter, schemaWriter } from './schema-writer.ts'

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
  for (const operation of adminOperations)
    paths[openApiPath(operation.path)] = {
      ...paths[openApiPath(operation.path)],
      [operation.method.toLowerCase()]: describeAdmin(operation, toSchema),
    }
  const { issuer } = options
  return {
    openapi: '3.1.1',
    info: {
      title: 'MLPipes Auth API',
      version: '1',
      description:
        'Under /api/auth: signing people in from an app of the same organisation, on the same site as this server; other apps use OpenID Connect. Under /api/admin and /api/audit: administration, with access tokens of this server.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: issuer }],
    tags: [...new Set([...contract, ...adminOperations].map(({ group }) => group))].map((name) => ({ name })),
    paths,
    components: {
      schemas,
      securitySchemes: {
        session: { type: 'apiKey', in: 'cookie', name: options.sessionCookie },
        csrfCookie: { type: 'apiKey', in: 'cookie', name: csrfCookieName(options.issuer) },
        csrfToken: { type: 'apiKey', in: 'header', name: 'X-CSRF-Token' },
        oauth2: oauthScheme(issuer),
      },
    },
  }
}

/** Fastify's `:id` as `{id}`. */
export function openApiPath(path: string): string {
  return path.replace(/:(\w+)/g, '{$1}')
}

/** Tokens of this server: of an administrator, or of a service that acts for itself. */
function oauthScheme(issuer: string) {
  const scopes = { 'admin:read': 'read administration data', 'admin:write': 'change it' }
  const tokenUrl = `${issuer}/oauth/token`
  return {
    type: 'oauth2',
    flows: {
      authorizationCode: { authorizationUrl: `${issuer}/oauth/authorize`, tokenUrl, refreshUrl: tokenUrl, scopes },
      clientCredentials: { tokenUrl, scopes },
    },
  }
}

function describe(operation: Operation, toSchema: SchemaWriter): Record<string, unknown> {
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
