// The OpenAPI document at /api/openapi.json, and the same for people at /api/docs: plain HTML, no script.
import type { FastifyInstance } from 'fastify'
import { adminProblemsOf } from '../admin/openapi.ts'
import { adminOperations } from '../admin/operations.ts'
import type { Views } from '../http/views.ts'
import { sessionCookieName } from '../oidc/browser-session.ts'
import { problemsOf } from './contract.ts'
import { contract, openApiDocument, openApiPath } from './openapi.ts'
import { type ProblemCode, problemText, problemType } from './problems.ts'

export function addApiDocs(app: FastifyInstance, parts: { readonly issuer: string; readonly views: Views }): void {
  const { issuer, views } = parts
  const document = openApiDocument({ issuer, sessionCookie: sessionCookieName(issuer) })
  const json = JSON.stringify(document)
  const shown: readonly Shown[] = [
    ...contract.map((operation) => ({ ...operation, problems: problemsOf(operation) })),
    ...adminOperations.map((operation) => ({ ...operation, problems: adminProblemsOf(operation) })),
  ]
  const groups = [...new Set(shown.map(({ group }) => group))].map((name) => ({
    name,
    operations: shown.filter(({ group }) => group === name).map((operation) => toView(operation, document)),
  }))
  const schemas = Object.entries(document.components.schemas).map(([name, schema]) => ({
    name,
    text: indented(schema),
  }))
  app.get('/api/openapi.json', (_request, reply) => reply.type('application/json; charset=utf-8').send(json))
  app.get('/api/docs', (request, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .send(views.render('api-docs', { title: 'JSON API', issuer, groups, schemas }, request.id)),
  )
}

/** What the page needs of an operation, of whichever API. */
interface Shown {
  readonly id: string
  readonly method: string
  readonly path: string
  readonly group: string
  readonly summary: string
  readonly answer: { readonly status: number; readonly description: string }
  /** With those that any operation has. */
  readonly problems: readonly ProblemCode[]
}

/** An operation as the page shows it: schemas as indented JSON, problems with their words. */
function toView(operation: Shown, document: ReturnType<typeof openApiDocument>) {
  const { id, method, path, summary, answer } = operation
  const described = document.paths[openApiPath(path)]?.[method.toLowerCase()]
  return {
    id,
    method,
    path,
    summary,
    description: String(described?.['description']),
    body: schemaText(described?.['requestBody']),
    answer: {
      status: answer.status,
      description: answer.description,
      schema: schemaText(Reflect.get(Object(described?.['responses']), String(answer.status))),
    },
    problems: operation.problems.map((code) => ({ ...problemText(code), type: problemType(code) })),
  }
}

/** The schema of something with JSON content, indented; undefined without any. */
function schemaText(described: unknown): string | undefined {
  const content = Reflect.get(Object(described), 'content')
  const schema = Reflect.get(Object(Reflect.get(Object(content), 'application/json')), 'schema')
  return schema === undefined ? undefined : indented(schema)
}

function indented(schema: unknown): string {
  return JSON.stringify(schema, null, 2)
}
