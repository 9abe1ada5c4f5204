// Who may introspect what (RFC 7662 §4): nobody, unless the caller's registration says so, and only tokens of people,
// organisations and clients that may act now.
import type { IncomingMessage } from 'node:http'
import type { Account } from '../accounts/accounts.ts'
import type { AuditEvent } from '../audit/events.ts'
import { sha256 } from '../crypto/secrets.ts'
import { originOf } from '../http/origin.ts'
import type { Activity } from '../sessions/activity.ts'
import { introspectedOf, sessionOfToken } from './request-session.ts'
import { type Standings, tokenBreach, type UsedToken } from './standing.ts'

export interface IntrospectedToken extends UsedToken {
  readonly kind: string
  readonly jti?: string
  readonly clientId?: string | undefined
  extra?: Readonly<Record<string, unknown>> | undefined
  readonly aud?: string | readonly string[] | undefined
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
  readonly standings: Standings
  readonly activity: Activity
  record(event: AuditEvent): Promise<void>
}

/**
 * Whether this caller is told of this token, which was read for this request (introspected.ts); gives the token the roles
 * that its person has now, counts the activity and writes down a refusal.
 */
export type IntrospectionPolicy = (
  request: IncomingMessage,
  caller: IntrospectionCaller,
  token: IntrospectedToken,
) => Promise<boolean>

export function createIntrospectionPolicy({ standings, activity, record }: IntrospectionParts): IntrospectionPolicy {
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
    if (isAllowed(caller, token, String(known.client['organization_id']))) {
      // What the person may do now, not what they might when the token was issued.
      if (account && token.kind === 'AccessToken') token.extra = { ...token.extra, roles: [...account.roles] }
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

/** The caller's registration against one token. Pure. */
function isAllowed(caller: IntrospectionCaller, token: IntrospectedToken, tokenOrganizationId: string): boolean {
  if (caller.isPublic) return false
  // Access tokens are shown to resource servers. A refresh token in the hands of one was stolen or sent there by mistake.
  if (token.kind === 'RefreshToken' && token.clientId !== caller.clientId) return false
  switch (caller.introspection) {
    case 'organization':
      return caller.organizationId === tokenOrganizationId
    case 'own':
      return token.clientId === caller.clientId
    default:
      return false
  }
}
