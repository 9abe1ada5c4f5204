// Resource indicators (RFC 8707): whom an access token is for. This server's own API is one resource, and a token for
// anybody else opens nothing there. The others belong to the app's organisation, as with introspection: all its APIs, or
// one by its client id, so that what one API was shown is worth nothing at the next.
import { type Client, errors, type KoaContextWithOIDC, type Provider } from 'oidc-provider'
import { claimsOf } from './scopes.ts'

const apiScopes = ['admin:read', 'admin:write'] as const

/** The audience of tokens for our own API. */
export function apiResource(issuer: string): string {
  return `${issuer}/api`
}

/** The audience of tokens for any API of an organisation. */
export function organizationResource(issuer: string, organizationId: string): string {
  return `${issuer}/organizations/${organizationId}`
}

/** The audience of tokens for one API alone, which is a client that may introspect. */
export function clientResource(issuer: string, clientId: string): string {
  return `${issuer}/apis/${clientId}`
}

/** Those of the scopes that are asked of our own API. */
export function scopesOfApi(scopes: readonly string[]): string[] {
  return apiScopes.filter((name) => scopes.includes(name))
}

const scopesOfOthers = (scopes: readonly string[]) => scopes.filter((name) => scopesOfApi([name]).length === 0)

/** What the provider knows of the app, by the names of its registration. */
type ClientMetadata = Readonly<Record<string, unknown>>

const wantsJwt = (client: ClientMetadata) => client['access_token_format'] === 'jwt'

const organizationOf = (client: ClientMetadata, issuer: string) =>
  organizationResource(issuer, String(client['organization_id']))

export function createResources(issuer: string) {
  const api = apiResource(issuer)
  const clientPrefix = clientResource(issuer, '')

  async function isKnown(provider: Provider, client: Client, resource: string): Promise<boolean> {
    if (resource === organizationOf(client, issuer)) return true
    if (!resource.startsWith(clientPrefix)) return false
    const named = await provider.Client.find(resource.slice(clientPrefix.length))
    return (
      named !== undefined && named['organization_id'] === client['organization_id'] && named['introspection'] !== 'none'
    )
  }

  return {
    enabled: true,
    /**
     * Who asks for one of the API's scopes and names no resource means the API.
     * @param granted several that a token request may choose from, and has not
     */
    defaultResource: async (context: KoaContextWithOIDC, client: Client, granted?: readonly string[]) => {
      assertRegisteredScopes(context, client)
      if (scopesOfApi(scopesIn(context)).length > 0) return api
      // Without a resource a token opens userinfo; a JWT is nothing that userinfo takes.
      if (wantsJwt(client)) return organizationOf(client, issuer)
      // Its typings know of no undefined; for an empty list the provider would keep scopes that nobody knows.
      return granted as string[]
    },
    useGrantedResource: async () => true,
    getResourceServerInfo: async (context: KoaContextWithOIDC, resource: string, client: Client) => {
      assertRegisteredScopes(context, client)
      const { oidc } = context
      const scopes = (client.scope ?? '').split(' ')
      // A client gets no scope that it was not registered with.
      if (resource === api)
        return { scope: scopesOfApi(scopes).join(' '), audience: api, accessTokenFormat: 'opaque' as const }
      if (!(await isKnown(oidc.provider, client, resource)))
        throw new errors.InvalidTarget('this resource is not known here')
      return {
        scope: scopesOfOthers(scopes).join(' '),
        audience: resource,
        accessTokenFormat: wantsJwt(client) ? ('jwt' as const) : ('opaque' as const),
        jwt: { sign: { alg: client.idTokenSignedResponseAlg === 'ES256' ? ('ES256' as const) : ('RS256' as const) } },
      }
    },
  }
}

const scopesIn = ({ oidc }: KoaContextWithOIDC) =>
  String(oidc.params?.['scope'] ?? '')
    .split(' ')
    .filter(Boolean)

/**
 * A service gets the scopes that it was registered with and no others. The provider compares those alone that it knows, and
 * would repeat any other; a person's app is shown what it gets by the consent page.
 * @throws InvalidScope (RFC 6749 §5.2)
 */
function assertRegisteredScopes(context: KoaContextWithOIDC, client: Client): void {
  if (context.oidc.params?.['grant_type'] !== 'client_credentials') return
  const registered = new Set((client.scope ?? '').split(' '))
  const unknown = scopesIn(context).find((name) => !registered.has(name))
  if (unknown !== undefined) throw new errors.InvalidScope('requested scope is not allowed', unknown)
}

interface IssuedToken {
  readonly resourceServer?: { readonly accessTokenFormat?: string | undefined } | undefined
}

export function isJwt({ resourceServer }: IssuedToken): boolean {
  return resourceServer?.accessTokenFormat === 'jwt'
}

type Grant = InstanceType<Provider['Grant']>

/** Where a request asks for scopes: whose app it is, and its parameters, in which the provider put the default resource. */
export interface ScopeRequest {
  readonly issuer: string
  readonly client: ClientMetadata
  readonly params: Readonly<Record<string, unknown>> | undefined
}

/** What was allowed, where the provider looks for it: each scope is one of the resource too that it is asked of. */
export function addScopes(
  grant: Pick<Grant, 'addOIDCScope' | 'addOIDCClaims' | 'addResourceScope'>,
  scopes: readonly string[],
  request: ScopeRequest,
): void {
  grant.addOIDCScope(scopes.join(' '))
  // A claim that is asked for by name (OpenID Connect Core §5.5) is given by its scope and by nothing else.
  grant.addOIDCClaims(claimsOf(scopes))
  const ofApi = scopesOfApi(scopes)
  if (ofApi.length > 0) grant.addResourceScope(apiResource(request.issuer), ofApi.join(' '))
  const ofOthers = scopesOfOthers(scopes)
  if (ofOthers.length > 0)
    for (const resource of otherResources(request)) grant.addResourceScope(resource, ofOthers.join(' '))
}

/** Those of the scopes that a grant does not have everywhere where the app needs them. */
export function missingScopes(
  grant: Pick<Grant, 'getOIDCScope' | 'getResourceScope'>,
  scopes: readonly string[],
  request: ScopeRequest,
): string[] {
  const ofResource = (resource: string) => grant.getResourceScope(resource).split(' ')
  const known = new Set([...grant.getOIDCScope().split(' '), ...ofResource(apiResource(request.issuer))])
  const others = otherResources(request).map((resource) => new Set(ofResource(resource)))
  return scopes.filter(
    (name) => !known.has(name) || (scopesOfApi([name]).length === 0 && others.some((of) => !of.has(name))),
  )
}

/** The resources of a request besides our own API; an app with JWTs may come back for one without naming it. */
function otherResources({ issuer, client, params }: ScopeRequest): string[] {
  const named = [params?.['resource'] ?? []].flat().map(String)
  const own = wantsJwt(client) ? [organizationOf(client, issuer)] : []
  return [...new Set([...named, ...own])].filter((resource) => resource !== apiResource(issuer))
}
