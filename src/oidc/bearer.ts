// Access tokens of this provider as our own API takes them (RFC 6750): looked up in this process by the rules of
// introspection. Who their person or client is today is the caller's to read.
import type { Provider } from 'oidc-provider'
import type { Clients } from '../clients/clients.ts'
import type { Policy } from '../organizations/policy.ts'
import type { Sessions, StoredSession } from '../sessions/sessions.ts'
import { type Standings, tokenBreach } from './standing.ts'

interface TokenFacts {
  readonly clientId: string
  /** The organisation that the token was issued in. */
  readonly organizationId: string
  readonly scopes: ReadonlySet<string>
  /** Empty for a token that was issued for no resource. */
  readonly audience: readonly string[]
}

export interface AccountToken extends TokenFacts {
  readonly kind: 'account'
  readonly accountId: string
  readonly acr: string | undefined
  /** When the person proved who they are, in seconds since 1970. */
  readonly authTime: number | undefined
  readonly sessionUid: string | undefined
  /** The session that it ends with: using it is activity there. Undefined for a token that outlives its session. */
  readonly session: StoredSession | undefined
  /** What holds for the person in the app that the token was issued to. */
  readonly policy: Policy
}

export interface ClientToken extends TokenFacts {
  readonly kind: 'client'
}

export type BearerToken = AccountToken | ClientToken

export interface BearerTokens {
  /**
   * What a token stands for; undefined when it is none, is over, or its session, grant or client is.
   * @param ip where it came from, if it was used; a public client runs where its person is, and may be in the wrong place
   */
  find(token: string, ip?: string): Promise<BearerToken | undefined>
}

/** Longer than any token of ours, whose ids have 256 bits. */
const tokenPattern = /^[A-Za-z0-9_-]{20,128}$/

export function createBearerTokens(parts: {
  readonly provider: () => Provider
  readonly clients: Pick<Clients, 'findMetadata'>
  readonly sessions: Pick<Sessions, 'findByUid'>
  readonly standings: Standings
}): BearerTokens {
  const { provider, clients, sessions, standings } = parts
  /** The client's organisation, if it may act now. */
  const ownerOf = async (clientId: string | undefined) => {
    const metadata = clientId === undefined ? undefined : await clients.findMetadata(clientId)
    return metadata && String(metadata['organization_id'])
  }

  async function findAccountToken(value: string, ip: string | undefined): Promise<AccountToken | undefined> {
    const { AccessToken, Grant } = provider()
    // Finds none whose session has ended, when it was to end with it.
    const token = await AccessToken.find(value)
    if (!token || token.isExpired || token.isSenderConstrained()) return undefined
    const grant = await Grant.find(token.grantId)
    if (!grant || grant.clientId !== token.clientId || grant.accountId !== token.accountId) return undefined
    const client = token.clientId === undefined ? undefined : await clients.findMetadata(token.clientId)
    const { org_id: organizationId, acr, auth_time: authTime } = token.extra ?? {}
    if (!client || token.clientId === undefined || typeof organizationId !== 'string') return undefined
    const account = await standings.accountOfToken(token, client)
    const isBound = token.expiresWithSession === true && token.sessionUid !== undefined
    const session = isBound ? await sessions.findByUid(token.sessionUid ?? '') : undefined
    const publicIp = client['token_endpoint_auth_method'] === 'none' ? ip : undefined
    if (!account || tokenBreach(account.policy, token, session, publicIp)) return undefined
    return {
      kind: 'account',
      accountId: token.accountId,
      organizationId,
      clientId: token.clientId,
      scopes: new Set(token.scope?.split(' ')),
      audience: [token.aud ?? []].flat(),
      acr: typeof acr === 'string' ? acr : undefined,
      authTime: typeof authTime === 'number' ? authTime : undefined,
      sessionUid: token.sessionUid,
      session,
      policy: account.policy,
    }
  }

  async function findClientToken(value: string): Promise<ClientToken | undefined> {
    const token = await provider().ClientCredentials.find(value)
    if (!token || token.isExpired || token.isSenderConstrained() || token.clientId === undefined) return undefined
    const owner = await ownerOf(token.clientId)
    if (owner === undefined) return undefined
    return {
      kind: 'client',
      organizationId: owner,
      clientId: token.clientId,
      scopes: new Set(token.scope?.split(' ')),
      audience: [token.aud ?? []].flat(),
    }
  }

  return {
    async find(token, ip) {
      if (!tokenPattern.test(token)) return undefined
      return (await findAccountToken(token, ip)) ?? (await findClientToken(token))
    },
  }
}
