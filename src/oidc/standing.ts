// Whose request the provider is answering, in which organisation, and whether what was proven for it still does under the
// policy of now. The provider asks for the account at every authorization, code, refresh and userinfo request; it is decided
// here, and introspection (introspection.ts) asks the same.
import type { KoaContextWithOIDC } from 'oidc-provider'
import { z } from 'zod'
import { type Account, type Accounts, accountIn } from '../accounts/accounts.ts'
import { type ClientPlace, decideOrganization, type Place, policyIn } from '../accounts/place.ts'
import { originOf } from '../http/origin.ts'
import { isAddressAllowed } from '../organizations/network.ts'
import type { Policies } from '../organizations/organizations.ts'
import { type Policy, policySchema } from '../organizations/policy.ts'
import { breachOf, type PolicyBreach, sessionLimits, sessionState } from '../sessions/policy.ts'
import type { StoredSession } from '../sessions/sessions.ts'
import { toProviderAccount } from './claims.ts'
import { browserSessionOf, sessionOfToken } from './request-session.ts'
import { type DatedToken, isOutlived } from './token-age.ts'

/** What of a token tells whose it is, how it was come by and how old it is. */
export interface UsedToken extends DatedToken {
  readonly accountId?: string | undefined
  /** Of a code or refresh token. */
  readonly organizationId?: string | undefined
  readonly amr?: readonly string[] | undefined
  /** Of an access token. */
  readonly extra?: Readonly<Record<string, unknown>> | undefined
}

/** What the provider knows of the app, by the names of its registration. */
type ClientMetadata = Readonly<Record<string, unknown>>

export interface Standings {
  /** The organisation of an app with its policy; undefined for our own pages. */
  placeOf(client: ClientMetadata | undefined): ClientPlace | undefined
  /** The account of a token, in the token's organisation, under the policy for that app. Undefined: it may not act. */
  accountOfToken(token: UsedToken, client: ClientMetadata): Promise<Account | undefined>
  /** The account under the policy of the app's organisation too. */
  inApp(account: Account, client: ClientMetadata): Account
  /** `findAccount` of the provider, for an authorization request and for a token. */
  findAccount(
    context: KoaContextWithOIDC,
    id: string,
    token: UsedToken | undefined,
  ): Promise<ReturnType<typeof toProviderAccount> | undefined>
}

export function createStandings({
  accounts,
  policies,
}: {
  readonly accounts: Accounts
  readonly policies: Policies
}): Standings {
  function placeOf(client: ClientMetadata | undefined): ClientPlace | undefined {
    const organizationId = client?.['organization_id']
    if (typeof organizationId !== 'string') return undefined
    return { organizationId, policy: policies(policySchema.parse(client?.['organization_policy'] ?? {})) }
  }

  async function accountOfToken(token: UsedToken, client: ClientMetadata): Promise<Account | undefined> {
    if (token.accountId === undefined) return undefined
    const account = await accounts.findActive(token.accountId, organizationOf(token))
    return account && underClient(account, client)
  }

  /** The account under the policy of the app's organisation too. */
  function underClient(account: Account, client: ClientMetadata): Account {
    if (client['organization_id'] === account.organization.id) return account
    return { ...account, policy: policyIn(account, placeOf(client)) }
  }

  async function findForAuthorization(context: KoaContextWithOIDC, id: string) {
    const person = await accounts.findPerson(id)
    if (!person) return undefined
    const place = placeOfRequest(context, placeOf(context.oidc.client))
    const decision = decideOrganization(person.memberships, place)
    const home = person.memberships.find((one) => one.home)
    const membership = decision.kind === 'in' ? decision.membership : home
    return membership && toProviderAccount(accountIn(person, membership, place), decision)
  }

  return {
    placeOf,
    accountOfToken,
    inApp: underClient,
    async findAccount(context, id, token) {
      if (!token) return findForAuthorization(context, id)
      const client = context.oidc.client
      const account = client && (await accountOfToken({ ...token, accountId: id }, client))
      if (!account || usedTokenBreach(context, account.policy, token)) return undefined
      return toProviderAccount(account)
    },
  }
}

/** What an authorization request says about where it leads. */
export function placeOfRequest({ oidc, req }: KoaContextWithOIDC, client: ClientPlace | undefined): Place {
  const requested = oidc.params?.['organization']
  const chosen: unknown = Reflect.get(oidc.result?.login ?? {}, 'organizationId')
  return {
    requestedSlug: typeof requested === 'string' ? requested : undefined,
    chosenId: typeof chosen === 'string' ? chosen : undefined,
    sessionOrganizationId: browserSessionOf(req)?.organizationId,
    client,
  }
}

function organizationOf({ organizationId, extra }: UsedToken): string | undefined {
  if (organizationId !== undefined) return organizationId
  const { org_id: id } = extra ?? {}
  return typeof id === 'string' ? id : undefined
}

const texts = z.array(z.string())

/** What a policy finds wanting in a token: how its person signed in, from where, or that it is older than it may get. */
export type TokenBreach = PolicyBreach | 'age'

/**
 * What a policy finds wanting in a token and the sign-in behind it.
 * @param session the one that the token ends with; a server that uses an offline token may be anywhere
 * @param publicIp where a public client is, which runs where its person is
 */
export function tokenBreach(
  policy: Policy,
  token: UsedToken,
  session: StoredSession | undefined,
  publicIp?: string,
): TokenBreach | undefined {
  // By the clock of the provider, which wrote when the token was issued.
  if (isOutlived(token, policy, Math.floor(Date.now() / 1000))) return 'age'
  const amr = texts.safeParse(token.amr ?? token.extra?.['amr'] ?? session?.payload['amr'])
  // Tokens of an older release say nothing about how they were come by.
  if (!amr.success) return undefined
  const isPlaceKnown = publicIp !== undefined || session !== undefined
  const isPlaceAllowed = !isPlaceKnown || isAddressAllowed(policy, publicIp ?? session?.ip)
  return breachOf({ amr: amr.data, isPlaceAllowed }, policy)
}

/** The same for a token that came with a request to one of the provider's endpoints. */
export function usedTokenBreach(
  context: KoaContextWithOIDC,
  policy: Policy,
  token: UsedToken,
): TokenBreach | undefined {
  const isPublic = context.oidc.client?.clientAuthMethod === 'none'
  return tokenBreach(policy, token, sessionOfToken(context.req), isPublic ? originOf(context.req).ip : undefined)
}

/** What a policy finds wanting in the live session of a browser that asks for a code. */
export type SessionBreach = PolicyBreach | 'idle' | 'absolute'

export function sessionBreach(context: KoaContextWithOIDC, policy: Policy): SessionBreach | undefined {
  const { session } = context.oidc
  const isPlaceAllowed = isAddressAllowed(policy, originOf(context.req).ip)
  const stored = browserSessionOf(context.req)
  const over = stored && overBy(stored, policy)
  return over ?? breachOf({ amr: session?.amr ?? [], isPlaceAllowed }, policy)
}

/** A session that lasts under one organisation's policy may be too old for another's. */
function overBy(stored: StoredSession, policy: Policy): 'idle' | 'absolute' | undefined {
  if (!stored.signedInAt) return undefined
  const state = sessionState({ ...stored, signedInAt: stored.signedInAt }, sessionLimits(policy), stored.readAt)
  return state === 'live' ? undefined : state
}
