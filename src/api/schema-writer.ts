// Pieces of the OpenAPI document that every API of ours needs: zod schemas as JSON Schema, and problems as responses.
import { z } from 'zod'
import { type ProblemCode, problemText, problemType } from './problems.ts'

/** OpenAPI 3.1 schemas are JSON Schema 2020-12. */
export type JsonSchema = Readonly<Record<string, unknown>>
export type SchemaWriter = (schema: z.ZodType) => JsonSchema

/** One response per status, which names the types of problem that come with it. */
export function problemResponses(codes: readonly ProblemCode[]): Record<string, unknown> {
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
export function schemaWriter(named: Record<string, JsonSchema>): SchemaWriter {
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
