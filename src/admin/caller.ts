// Who calls the admin API: the bearer of an access token of this provider, or the browser of somebody who is signed in.
// What they may do is read from the database at every request, so that what was taken away is gone at the next one.
import type { FastifyRequest } from 'fastify'
import { type CsrfTokens, isForeign } from '../api/gate.ts'
import { ApiProblem } from '../api/problems.ts'
import type { Actor } from '../audit/events.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { originOf } from '../http/origin.ts'
import type { BearerToken, BearerTokens } from '../oidc/bearer.ts'
import type { BrowserSession, BrowserSessions } from '../oidc/browser-session.ts'
import { apiResource } from '../oidc/resources.ts'
import { isPermission, type Permission, permissionsOf } from '../organizations/permissions.ts'
import type { Activity } from '../sessions/activity.ts'

export interface OrganizationRef {
  readonly id: string
  readonly slug: string
  readonly name: string
}

interface Known {
  readonly id: string
  /** The organisation of the token or session. */
  readonly organization: OrganizationRef
  readonly permissions: ReadonlySet<Permission>
  /** Undefined for a browser, which is not held to scopes. */
  readonly scopes: ReadonlySet<string> | undefined
  readonly actor: Actor
  readonly clientId: string | undefined
  readonly sessionUid: string | undefined
}

export interface PersonCaller extends Known {
  readonly kind: 'account'
  readonly name: string
  readonly email: string
  readonly roles: readonly string[]
  readonly acr: string | undefined
  /** When they proved who they are, in seconds since 1970. */
  readonly authTime: number | undefined
}

export interface ClientCaller extends Known {
  readonly kind: 'client'
  readonly name: string
  /** How it authenticates at the token endpoint, as registered. */
  readonly authMethod: string
}

export type Caller = PersonCaller | ClientCaller

export interface Callers {
  /**
   * Who sent a request. Decided from headers alone; whether their own hand did is `assertOwn`.
   * @throws ApiProblem when nobody is known
   */
  identify(request: FastifyRequest): Promise<Caller>
  /** @throws ApiProblem when a browser's request did not come from our own page */
  assertOwn(request: FastifyRequest): void
  hold: typeof holdCaller
}

interface Parts {
  readonly issuer: string
  readonly database: Pick<Database, 'run'>
  readonly bearerTokens: BearerTokens
  readonly browserSessions: BrowserSessions
  readonly activity: Activity
  readonly csrfTokens: CsrfTokens
}

const findPerson = `select a.name as account_name, a.email, m.roles, o.id, o.slug, o.name,
      (select coalesce(jsonb_object_agg(r.name, to_jsonb(r.permissions)), '{}') from mlpipes_auth.organization_roles r
        where r.organization_id = o.id and r.name = any(m.roles)) as own
    from mlpipes_auth.memberships m
    join mlpipes_auth.accounts a on a.id = m.account_id and a.disabled_at is null
    join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
    join mlpipes_auth.organizations o on o.id = m.organization_id and o.closed_at is null
    where m.account_id = $1 and m.organization_id = $2`
const findClient = `select c.name as client_name, c.permissions, c.metadata ->> 'token_endpoint_auth_method' as auth_method,
      o.id, o.slug, o.name
    from mlpipes_auth.clients c join mlpipes_auth.organizations o on o.id = c.organization_id and o.closed_at is null
    where c.client_id = $1 and c.organization_id = $2 and c.disabled_at is null`

export function createCallers(parts: Parts): Callers {
  const { issuer, database, bearerTokens, browserSessions, activity, csrfTokens } = parts
  const read = (statement: string, values: readonly unknown[]) => database.run(statement, values)

  /** Using a person's token is activity in its session, as at introspection. */
  async function countAsActivity(token: BearerToken): Promise<void> {
    if (token.kind === 'account' && token.session) await activity.used(token.session, token.policy)
  }

  async function ofBearer(value: string, ip: string | undefined): Promise<Caller> {
    const token = await bearerTokens.find(value, ip)
    if (!token || !isForUs(token, issuer)) throw unknown(invalidToken)
    const known = { clientId: token.clientId, scopes: token.scopes }
    const caller =
      token.kind === 'client'
        ? toClient((await read(findClient, [token.clientId, token.organizationId]))[0], known)
        : toPerson((await read(findPerson, [token.accountId, token.organizationId]))[0], {
            ...known,
            accountId: token.accountId,
            sessionUid: token.sessionUid,
            acr: token.acr,
            authTime: token.authTime,
          })
    if (!caller) throw unknown(invalidToken)
    await countAsActivity(token)
    return caller
  }

  async function ofBrowser(request: FastifyRequest): Promise<Caller> {
    const session = await browserSessions.read(request.cookies, originOf(request.raw).ip)
    if (!session) throw unknown('Bearer')
    const caller = await findCallerOfSession(database, session)
    if (!caller) throw unknown('Bearer')
    return caller
  }

  return {
    async identify(request) {
      const { authorization } = request.headers
      if (authorization === undefined) return ofBrowser(request)
      const value = /^Bearer ([!-~]+)$/i.exec(authorization)?.[1]
      if (value === undefined) throw unknown('Bearer')
      return ofBearer(value, originOf(request.raw).ip)
    },
    assertOwn(request) {
      const { authorization, origin } = request.headers
      if (authorization !== undefined) return
      // Only our own pages: an app at another origin calls with a token (F20).
      if (origin !== undefined && origin !== issuer) throw new ApiProblem('request_foreign')
      const isRead = request.method === 'GET' || request.method === 'HEAD'
      if (!isRead && (isForeign(request, issuer) || !csrfTokens.holds(request))) throw new ApiProblem('request_foreign')
    },
    hold: holdCaller,
  }
}

/** The person of a browser's session, in the organisation of the session. */
export async function findCallerOfSession(
  database: Pick<Database, 'run'>,
  session: BrowserSession,
): Promise<PersonCaller | undefined> {
  const { id, organization } = session.account
  const [row] = await database.run(findPerson, [id, organization.id])
  return toPerson(row, {
    accountId: id,
    clientId: undefined,
    scopes: undefined,
    sessionUid: session.uid,
    acr: session.acr,
    authTime: Math.floor(session.signedInAt.getTime() / 1_000),
  })
}

/** The same caller as they stand now, held until the transaction ends: nobody takes their roles away meanwhile. */
export async function holdCaller(tx: Tx, caller: Caller): Promise<Caller | undefined> {
  const { id, organization } = caller
  if (caller.kind === 'client') {
    const [row] = await runIn(tx, `${findClient} for share of c`, [id, organization.id])
    return toClient(row, { ...caller, clientId: id })
  }
  const [row] = await runIn(tx, `${findPerson} for share of m`, [id, organization.id])
  return toPerson(row, { ...caller, accountId: id })
}

/** Who does something in the name of an organisation: a person or a service client, and where they are that. */
export interface Holder {
  readonly type: 'account' | 'client'
  readonly id: string
  readonly organizationId: string
}

/**
 * What somebody may do now, without a request of theirs, held until the transaction ends: nobody switches them off or
 * takes their roles away meanwhile.
 * @returns undefined for one who may not act there
 */
export async function holdPermissions(
  tx: Tx,
  { type, id, organizationId }: Holder,
): Promise<ReadonlySet<Permission> | undefined> {
  const values = [id, organizationId]
  if (type === 'client') {
    const [row] = await runIn(tx, `${findClient} for share of c`, values)
    return row && new Set((row['permissions'] as string[]).filter(isPermission))
  }
  const [row] = await runIn(tx, `${findPerson} for share of m, a`, values)
  return row && permissionsOf(row['roles'] as string[], row['own'] as Record<string, string[]>)
}

const invalidToken = 'Bearer error="invalid_token"'
const unknown = (wwwAuthenticate: string) => new ApiProblem('caller_unknown', [], { wwwAuthenticate })

function isForUs({ audience }: BearerToken, issuer: string): boolean {
  return audience.includes(apiResource(issuer))
}

type PersonFacts = Pick<PersonCaller, 'clientId' | 'sessionUid' | 'scopes' | 'acr' | 'authTime'> & {
  readonly accountId: string
}

function toPerson(row: Row | undefined, facts: PersonFacts): PersonCaller | undefined {
  if (!row) return undefined
  const { accountId, clientId, sessionUid, scopes, acr, authTime } = facts
  const roles = row['roles'] as string[]
  return {
    kind: 'account',
    id: accountId,
    name: String(row['account_name']),
    email: String(row['email']),
    organization: toOrganization(row),
    roles,
    permissions: permissionsOf(roles, row['own'] as Record<string, string[]>),
    scopes,
    actor: { type: 'account', id: accountId },
    clientId,
    sessionUid,
    acr,
    authTime,
  }
}

function toClient(row: Row | undefined, facts: { readonly clientId: string; readonly scopes: Known['scopes'] }) {
  if (!row) return undefined
  const permissions = row['permissions'] as string[]
  const caller: ClientCaller = {
    kind: 'client',
    id: facts.clientId,
    name: String(row['client_name']),
    organization: toOrganization(row),
    permissions: new Set(permissions.filter(isPermission)),
    scopes: facts.scopes,
    actor: { type: 'client', id: facts.clientId },
    clientId: facts.clientId,
    sessionUid: undefined,
    authMethod: String(row['auth_method']),
  }
  return caller
}

function toOrganization(row: Row): OrganizationRef {
  return { id: String(row['id']), slug: String(row['slug']), name: String(row['name']) }
}
