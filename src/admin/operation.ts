// The shape of an operation of the admin API, and the schemas that several share. The tables themselves are in the files
// of the resources; handlers are typed by them, the OpenAPI document is made from them (openapi.ts), and the kernel
// (kernel.ts) lets nothing else become a route.
import { z } from 'zod'
import { nothing, text } from '../api/contract.ts'
import type { ProblemCode } from '../api/problems.ts'
import type { Permission } from '../organizations/permissions.ts'

export const maxSearchLength = 100
export const maxPageSize = 100
export const defaultPageSize = 50
const maxCursorLength = 1_024
export const maxVersion = 2_147_483_647

export interface AdminAnswer<A extends z.ZodType = z.ZodType> {
  readonly status: 200 | 201 | 202 | 204
  readonly description: string
  /** Undefined for an answer without a body. */
  readonly schema?: A
}

export interface AdminOperation<
  P extends z.ZodType = z.ZodType,
  Q extends z.ZodType = z.ZodType,
  B extends z.ZodType = z.ZodType,
  A extends z.ZodType = z.ZodType,
> {
  readonly id: string
  readonly method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'
  readonly path: `/api/${'admin' | 'audit'}${string}`
  readonly group: string
  readonly summary: string
  readonly description: string
  /** `known`: any caller who is known, whatever they hold. */
  readonly permission: Permission | 'known'
  /** Needs a sign-in of the last minutes with the second factor; of a client, private_key_jwt. */
  readonly stepUp?: true
  /** One at a time in an organisation: for what decides who administers it. */
  readonly exclusive?: true
  /** Asks with a body and changes nothing: what it names has no place in an address. */
  readonly isQuestion?: true
  /** `platform`: not confined to one organisation, so only for who holds platform:organizations. */
  readonly reach?: 'platform'
  /** How many numbers make its version: 1, or 2 for an account in its place. If-Match is then required, but for GET. */
  readonly versioned?: 1 | 2
  /** How many values make the key of a list's order. */
  readonly pageKey?: number
  readonly params: P
  readonly query: Q
  /** Undefined for GET and DELETE, which take none. */
  readonly body: B | undefined
  readonly answer: AdminAnswer<A>
  readonly problems: readonly ProblemCode[]
}

type Nothing = typeof nothing
type Given<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType> = Omit<
  AdminOperation<P, Q, B, A>,
  'params' | 'query' | 'body' | 'problems'
> & { readonly params?: P; readonly query?: Q; readonly body?: B; readonly problems?: readonly ProblemCode[] }

/** One row of a resource's table. What is left out is empty: no parameters, no query, and `{}` as the body of a change. */
export function operation<
  P extends z.ZodType = Nothing,
  Q extends z.ZodType = Nothing,
  B extends z.ZodType = Nothing,
  A extends z.ZodType = Nothing,
>(given: Given<P, Q, B, A>): AdminOperation<P, Q, B, A>
export function operation(
  given: Given<z.ZodType, z.ZodType, z.ZodType, z.ZodType>,
): AdminOperation<z.ZodType, z.ZodType, z.ZodType, z.ZodType> {
  const hasBody = given.method !== 'GET' && given.method !== 'DELETE'
  return {
    params: nothing,
    query: nothing,
    problems: [],
    ...given,
    body: hasBody ? (given.body ?? nothing) : undefined,
  }
}

/** An id in a path. What cannot be one names nothing, and is answered like what is not there. */
export const idParam = z
  .string()
  .regex(/^[A-Za-z0-9._~-]{1,128}$/, 'must be an id: 1 to 128 of the characters a-z A-Z 0-9 . _ ~ -')

/** What is searched for, letter by letter. */
export const search = text(maxSearchLength)
  .min(1)
  .meta({ description: `text that it contains, at most ${maxSearchLength} characters; nothing in it is a wildcard` })

export const flag = z.enum(['true', 'false']).transform((value) => value === 'true')

/** The query of a list: its filter, and which page of it. */
export function listQuery<Shape extends z.core.$ZodLooseShape>(filter: Shape) {
  return z.strictObject({
    ...filter,
    limit: z
      .string()
      .regex(/^(?:[1-9][0-9]?|100)$/, `must be a whole number from 1 to ${maxPageSize}`)
      .transform(Number)
      .optional()
      .meta({ description: `how many at most, 1 to ${maxPageSize}; ${defaultPageSize} unless said` }),
    cursor: z
      .string()
      .min(1)
      .max(maxCursorLength)
      .optional()
      .meta({ description: 'next of the page before, with the same filter' }),
  })
}

/** A page of a list. */
export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.strictObject({
    items: z.array(item),
    next: z.string().nullable().meta({ description: 'cursor of the next page; null on the last one' }),
  })
}

export const instant = z.string().meta({ format: 'date-time' })
