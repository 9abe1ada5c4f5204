// Who may introspect what (RFC 7662 §4): nobody, unless the caller's registration says so, and only tokens of people,
// organisations and clients that may act now.
import type { IncomingMessage } from 'node:http'
import type { Account } from '../accounts/accounts.ts'
import type { AuditEvent } from '../audit/events.ts'
import { sha256 } from '../crypto/secrets.ts'
import { originOf } from '../http/origin.ts'
import type { Activity } from '../sessions/activity.ts'
import { introspectedOf, sessionOfToken } from './request-session.ts'
import { clientResource, organizationResource } from './resources.ts'
import { type Standings, tokenBreach, type UsedToken } from './standing.ts'

export interface IntrospectedToken extends UsedToken {
  readonly kind: string
  readonly jti?: string
  readonly clientId?: string | undefined
  extra?: Readonly<Record<string, unknown>> | undefined
  aud?: string | string[] | undefined
}

/** What of the registration of who asks decides. */
export interface IntrospectionCaller {
  readonly clientId: string
  readonly isPublic: boolean
  readonly organizationId: string
  readonly introspection: unknown
  /** Whether its asking counts as activity of the token's person. */
  readonly countsAsActivity: boolean
}

export interface IntrospectionParts {
  readonly issuer: string
  readonly standings: Standings
  readonly activity: Activity
  record(event: AuditEvent): Promise<void>
}

/**
 * Whether this caller is told of this token, which was read for this request (introspected.ts); gives the token the roles
 * that its person has now and whom it is for, counts the activity and writes down a refusal.
 */
export type IntrospectionPolicy = (
  request: IncomingMessage,
  caller: IntrospectionCaller,
  token: IntrospectedToken,
) => Promise<boolean>

export function createIntrospectionPolicy(parts: IntrospectionParts): IntrospectionPolicy {
  const { issuer, standings, activity, record } = parts
  /** A resource server asks because its person is doing something, unless its registration says otherwise. */
  async function countAsActivity(request: IncomingMessage, account: Account) {
    const session = sessionOfToken(request)
    if (session) await activity.used(session, account.policy)
  }
  return async (request, caller, token) => {
    const known = await introspectedOf(request)
    if (!known?.client) return false
    const account = known.account && standings.inApp(known.account, known.client)
    const isPersons = token.accountId !== undefined
    if (isPersons && (!account || tokenBreach(account.policy, token, sessionOfToken(request)))) return false
    const home = { organizationId: String(known.client['organization_id']), issuer }
    if (isAllowed(caller, token, home)) {
      // What the person may do now, not what they might when the token was issued.
      if (account && token.kind === 'AccessToken') token.extra = { ...token.extra, roles: [...account.roles] }
      // It is stored without one, as userinfo is open to such tokens alone.
      if (token.kind !== 'RefreshToken') token.aud ??= organizationResource(issuer, home.organizationId)
      if (account && caller.countsAsActivity) await countAsActivity(request, account)
      return true
    }
    await record({
      name: 'introspection.denied',
      outcome: 'failure',
      actor: { type: 'client', id: caller.clientId },
      organizationId: caller.organizationId,
      clientId: caller.clientId,
      origin: originOf(request),
      details: { tokenHash: sha256(token.jti ?? ''), policy: String(caller.introspection) },
    })
    return false
  }
}

/** Who asks, by the names of a registration. */
export function toCaller(client: Readonly<Record<string, unknown>>): IntrospectionCaller {
  return {
    clientId: String(client['client_id']),
    isPublic: client['token_endpoint_auth_method'] === 'none',
    organizationId: String(client['organization_id']),
    introspection: client['introspection'],
    countsAsActivity: client['session_activity'] !== false,
  }
}

/** The caller's registration against one token, which was issued to an app of `organizationId`. Pure. */
function isAllowed(
  { clientId, isPublic, organizationId: own, introspection }: IntrospectionCaller,
  token: IntrospectedToken,
  { organizationId, issuer }: { readonly organizationId: string; readonly issuer: string },
): boolean {
  if (isPublic) return false
  // Access tokens are shown to resource servers. A refresh token in the hands of one was stolen or sent there by mistake.
  if (token.kind === 'RefreshToken' && token.clientId !== clientId) return false
  switch (introspection) {
    case 'organization':
      return own === organizationId
    case 'own':
      return token.clientId === clientId || [token.aud].flat().includes(clientResource(issuer, clientId))
    default:
      return false
  }
}
