// One call of an operation as its handler gets it: who, where, and the input as the operation's schemas read it.
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { parseInput } from '../api/endpoints.ts'
import { ApiProblem } from '../api/problems.ts'
import type { Actor, Origin } from '../audit/events.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { Refusal } from '../errors.ts'
import { originOf } from '../http/origin.ts'
import { requirePermission } from './access.ts'
import type { Caller, OrganizationRef } from './caller.ts'
import { type AdminOperation, idParam } from './operation.ts'
import { openPage, type Page } from './pages.ts'
import { readIfMatch, type Version } from './versions.ts'

const maxDepth = 16

export interface Call<
  P extends z.ZodType = z.ZodType,
  Q extends z.ZodType = z.ZodType,
  B extends z.ZodType = z.ZodType,
> {
  readonly params: z.output<P>
  readonly query: z.output<Q>
  readonly body: z.output<B>
  readonly caller: Caller
  /** Where this is done: the caller's organisation, or the one that somebody of the platform named. */
  readonly organization: OrganizationRef
  /** What every audit row of this call says. */
  readonly about: {
    readonly actor: Actor
    readonly organizationId: string
    readonly clientId: string | undefined
    readonly origin: Origin
  }
  /** The version that a change is meant for: as many numbers as the operation says. */
  readonly expected: Version
  /** All that If-Match names; `expected` is the one that this try is for. */
  readonly versions: readonly Version[]
  readonly page: Page
}

/** An id that is nothing in this organisation. The kernel looks whether it is something in another. */
export class NotHere extends Refusal {
  readonly kind: ThingKind
  readonly id: string

  constructor(kind: ThingKind, id: string) {
    super('not_found')
    this.kind = kind
    this.id = id
  }
}

/** Things that an organisation has, by an id that is unique beyond it. `other`: by a name of its own. */
export type ThingKind =
  | 'account'
  | 'session'
  | 'client'
  | 'domain'
  | 'webhook'
  | 'invitation'
  | 'registration_token'
  | 'organization'
  | 'other'

const findNamed = `select id, slug, name from mlpipes_auth.organizations
    where id = $1 and (closed_at is null or $2::boolean)`
const organizationParameter = 'organization'

/** What is asked about an organisation after it was closed: who did what in it, and under which policy. Nothing changes it. */
const readsOfClosed: ReadonlySet<string> = new Set([
  'getOrganization',
  'getPolicy',
  'listAuditEvents',
  'exportAuditEvents',
])

/** Where audit events without an organisation are read. No id of an organisation has an `@`, nor can one that is asked for. */
export const noOrganization: OrganizationRef = { id: '@none', slug: 'without-organization', name: 'No organisation' }
const readsOfNone: ReadonlySet<string> = new Set(['listAuditEvents', 'exportAuditEvents'])

/**
 * The organisation to act in: that of the token, or the one that somebody of the platform names.
 * @throws ApiProblem for anybody else who names another, whether or not there is one: the answer tells nothing
 */
export async function chooseOrganization(
  database: Pick<Database, 'run'>,
  { id: operationId }: Pick<AdminOperation, 'id'>,
  caller: Caller,
  query: unknown,
): Promise<OrganizationRef> {
  const named: unknown = Reflect.get(Object(query), organizationParameter)
  if (named === undefined || named === caller.organization.id) return caller.organization
  requirePermission(caller, 'platform:organizations')
  if (named === noOrganization.id && readsOfNone.has(operationId)) return noOrganization
  const id = idParam.safeParse(named)
  const [row] = id.success ? await database.run(findNamed, [id.data, readsOfClosed.has(operationId)]) : []
  if (!row) throw new Refusal('not_found')
  return { id: String(row['id']), slug: String(row['slug']), name: String(row['name']) }
}

/** @throws what the input deserves: 404 for an id that can be none, 400 that names each member, 428 or 412 for If-Match */
export function toCall<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, A extends z.ZodType>(
  secrets: Secrets,
  operation: AdminOperation<P, Q, B, A>,
  request: Pick<FastifyRequest, 'params' | 'query' | 'body' | 'headers' | 'raw'>,
  { caller, organization }: { readonly caller: Caller; readonly organization: OrganizationRef },
): Call<P, Q, B> {
  const params = operation.params.safeParse(request.params)
  if (!params.success) throw new Refusal('not_found')
  const { [organizationParameter]: _named, ...given } = readObject(request.query)
  const query = parseInput(operation.query, given)
  const { limit, cursor, ...filter } = given
  const page = pageRequest.safeParse(query)
  const { versioned = 1, method } = operation
  const isChange = operation.versioned !== undefined && method !== 'GET' && method !== 'POST'
  const body = readBody(operation, request.body)
  const versions = isChange ? readIfMatch(request.headers['if-match'], versioned) : []
  return {
    params: params.data,
    query,
    body,
    caller,
    organization,
    about: {
      actor: caller.actor,
      // Who read what belongs to no organisation is in the log of theirs.
      organizationId: organization === noOrganization ? caller.organization.id : organization.id,
      clientId: caller.clientId,
      origin: originOf(request.raw),
    },
    expected: versions[0] ?? [],
    versions,
    page: openPage(
      secrets,
      page.data ?? {},
      [operation.id, organization.id, params.data, Object.entries(filter).sort()],
      operation.pageKey ?? 0,
    ),
  }
}

const pageRequest = z.object({ limit: z.number().optional(), cursor: z.string().optional() })
const readObject = (value: unknown): Record<string, unknown> => Object.fromEntries(Object.entries(Object(value)))

function readBody<B extends z.ZodType>(
  { body }: Pick<AdminOperation, 'method'> & { readonly body: B | undefined },
  given: unknown,
): z.output<B>
function readBody({ body }: { readonly body: z.ZodType | undefined }, given: unknown): unknown {
  if (!body) {
    if (given !== undefined && given !== null)
      throw new ApiProblem('input_invalid', [{ path: '', message: 'takes no body' }])
    return undefined
  }
  if (isDeeperThan(given, maxDepth))
    throw new ApiProblem('input_invalid', [{ path: '', message: `must not be nested deeper than ${maxDepth} levels` }])
  return parseInput(body, given)
}

/** Looked at level by level: a value nested without end would exhaust the stack of whoever walks it (F91). */
export function isDeeperThan(value: unknown, levels: number): boolean {
  let level = [value].filter(isContainer)
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth >= levels) return true
    level = level.flatMap((container) => Object.values(container)).filter(isContainer)
  }
  return false
}

function isContainer(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
