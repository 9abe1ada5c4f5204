// The OpenAPI document at /api/openapi.json, and the same for people at /api/docs: plain HTML, no script.
import type { FastifyInstance } from 'fastify'
import type { Views } from '../http/views.ts'
import { sessionCookieName } from '../oidc/browser-session.ts'
import { type Operation, problemsOf } from './contract.ts'
import { contract, openApiDocument } from './openapi.ts'
import { problemText, problemType } from './problems.ts'

export function addApiDocs(app: FastifyInstance, parts: { readonly issuer: string; readonly views: Views }): void {
  const { issuer, views } = parts
  const document = openApiDocument({ issuer, sessionCookie: sessionCookieName(issuer) })
  const json = JSON.stringify(document)
  const groups = [...new Set(contract.map(({ group }) => group))].map((name) => ({
    name,
    operations: contract.filter(({ group }) => group === name).map((operation) => toView(operation, document)),
  }))
  const schemas = Object.entries(document.components.schemas).map(([name, schema]) => ({
    name,
    text: indented(schema),
  }))
  app.get('/api/openapi.json', (_request, reply) => reply.type('application/json; charset=utf-8').send(json))
  app.get('/api/docs', (request, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .send(views.render('api-docs', { title: 'API for first-party apps', issuer, groups, schemas }, request.id)),
  )
}

/** An operation as the page shows it: schemas as indented JSON, problems with their words. */
function toView(operation: Operation, document: ReturnType<typeof openApiDocument>) {
  const { id, method, path, summary, description, answer } = operation
  const described = document.paths[path]?.[method.toLowerCase()]
  return {
    id,
    method,
    path,
    summary,
    description,
    body: schemaText(described?.['requestBody']),
    answer: {
      ...answer,
      schema: schemaText(Reflect.get(Object(described?.['responses']), String(answer.status))),
    },
    problems: problemsOf(operation).map((code) => ({ ...problemText(code), type: problemType(code) })),
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
