// Who may introspect what (RFC 7662 §4): nobody, unless the caller's registration says so, and only tokens of people,
// organisations and clients that may act now.
import type { Client, KoaContextWithOIDC } from 'oidc-provider'
import type { Account } from '../accounts/accounts.ts'
import type { AuditEvent } from '../audit/events.ts'
import type { Clients } from '../clients/clients.ts'
import { sha256 } from '../crypto/secrets.ts'
import { originOf } from '../http/origin.ts'
import type { Activity } from '../sessions/activity.ts'
import { introspectedOf, sessionOfToken } from './request-session.ts'
import { type Standings, type UsedToken, usedTokenBreach } from './standing.ts'

interface IntrospectedToken extends UsedToken {
  readonly kind: string
  readonly jti?: string
  readonly clientId?: string | undefined
  extra?: Readonly<Record<string, unknown>> | undefined
  readonly aud?: string | readonly string[] | undefined
}

interface Parts {
  readonly standings: Standings
  readonly clients: Clients
  readonly activity: Activity
  record(event: AuditEvent): Promise<void>
}

export function createIntrospectionPolicy({ standings, clients, activity, record }: Parts) {
  /** A resource server asks because its person is doing something, unless its registration says otherwise. */
  async function countAsActivity(context: KoaContextWithOIDC, caller: Client, account: Account | undefined) {
    const session = sessionOfToken(context.req)
    if (session && account && caller['session_activity'] !== false) await activity.used(session, account.policy)
  }
  return async (context: KoaContextWithOIDC, caller: Client, token: IntrospectedToken): Promise<boolean> => {
    // Read together with the token (introspected.ts).
    const known = await introspectedOf(context.req)
    const issuedTo =
      token.clientId === caller.clientId
        ? caller
        : token.clientId && (known?.client ?? (await clients.findMetadata(token.clientId)))
    if (!issuedTo) return false
    const account = known
      ? known.account && standings.inApp(known.account, issuedTo)
      : await standings.accountOfToken(token, issuedTo)
    if (token.accountId !== undefined && (!account || usedTokenBreach(context, account.policy, token))) return false
    const owner = String(issuedTo['organization_id'])
    if (isAllowed(caller, token, owner)) {
      // What the person may do now, not what they might when the token was issued.
      if (account && token.kind === 'AccessToken') token.extra = { ...token.extra, roles: [...account.roles] }
      await countAsActivity(context, caller, account)
      return true
    }
    await record({
      name: 'introspection.denied',
      outcome: 'failure',
      actor: { type: 'client', id: caller.clientId },
      organizationId: String(caller['organization_id']),
      clientId: caller.clientId,
      origin: originOf(context.req),
      details: { tokenHash: sha256(token.jti ?? ''), policy: String(caller['introspection']) },
    })
    return false
  }
}

/** The caller's registration against one token. Pure. */
function isAllowed(caller: Client, token: IntrospectedToken, tokenOrganizationId: string): boolean {
  if (caller.tokenEndpointAuthMethod === 'none') return false
  // Access tokens are shown to resource servers. A refresh token in the hands of one was stolen or sent there by mistake.
  if (token.kind === 'RefreshToken' && token.clientId !== caller.clientId) return false
  switch (caller['introspection']) {
    case 'organization':
      return caller['organization_id'] === tokenOrganizationId
    case 'own':
      return token.clientId === caller.clientId || [token.aud ?? []].flat().includes(caller.clientId)
    default:
      return false
  }
}
