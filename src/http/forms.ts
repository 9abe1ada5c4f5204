// Parsing at the edge: what a form or a path must look like, or a refusal.
import { z } from 'zod'
import { Refusal } from '../errors.ts'

/** Anything else than the schema asks for is refused, unknown fields included. */
export function parseForm<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value ?? {})
  if (parsed.success) return parsed.data
  throw new Refusal('form_unreadable')
}

export const maxNameLength = 200
/** A person's name as it may stand in forms, mails and tokens: no control or bidirectional characters (F77). */
export const personName = z
  .string()
  .max(maxNameLength)
  .regex(/^[^\p{Cc}\p{Bidi_Control}]*$/u)
  .transform((name) => name.trim())
