// What the provider says about a person: claims by scope, and what introspection adds to their token.
import type { KoaContextWithOIDC } from 'oidc-provider'
import type { Account } from '../accounts/accounts.ts'
import type { Decision } from '../accounts/place.ts'

interface ProviderAccount {
  readonly accountId: string
  readonly account: Account
  /** Which organisation an authorization request is for; undefined for the use of a token, which says it. */
  readonly decision: Decision | undefined
  claims(): Record<string, unknown> & { sub: string }
  readonly [name: string]: unknown
}

/** An account in the shape that the provider works with. */
export function toProviderAccount(account: Account, decision?: Decision): ProviderAccount {
  return {
    accountId: account.id,
    account,
    decision,
    claims: () => ({
      sub: account.id,
      name: account.name,
      updated_at: Math.floor(account.updatedAt.getTime() / 1000),
      email: account.email,
      email_verified: account.emailVerified,
      org_id: account.organization.id,
      org_slug: account.organization.slug,
      roles: account.roles,
    }),
  }
}

/** The account that the current request loaded, with its policy. */
export function accountOf(context: KoaContextWithOIDC | undefined): Account | undefined {
  const loaded: unknown = context?.oidc.entities.Account
  return isProviderAccount(loaded) ? loaded.account : undefined
}

/** Which organisation the current authorization request is for, when somebody is signed in. */
export function decisionOf(context: KoaContextWithOIDC): Decision | undefined {
  const loaded: unknown = context.oidc.entities.Account
  return isProviderAccount(loaded) ? loaded.decision : undefined
}

function isProviderAccount(value: unknown): value is ProviderAccount {
  return typeof value === 'object' && value !== null && 'account' in value
}

/** What introspection adds about a person's token (RFC 9470 §6 for acr and auth_time). */
export function accountClaims(
  context: KoaContextWithOIDC,
  token: { readonly kind: string },
): Record<string, string | number | boolean | string[]> | undefined {
  const account = accountOf(context)
  if (token.kind !== 'AccessToken' || !account) {
    const organizationId = context.oidc.client?.['organization_id']
    return typeof organizationId === 'string' ? { org_id: organizationId } : undefined
  }
  const { AuthorizationCode, DeviceCode, RefreshToken } = context.oidc.entities
  const source = AuthorizationCode ?? DeviceCode ?? RefreshToken
  return {
    org_id: account.organization.id,
    org_slug: account.organization.slug,
    roles: [...account.roles],
    ...(source?.acr === undefined ? {} : { acr: source.acr }),
    ...(source?.amr === undefined ? {} : { amr: [...source.amr] }),
    ...(source?.authTime === undefined ? {} : { auth_time: source.authTime }),
  }
}
