// Resource indicators (RFC 8707): whom an access token is for. This server's own API is one resource, and a token for
// anybody else opens nothing there. The other is the APIs of an organisation, for apps whose tokens those read themselves
// (RFC 9068): as with introspection, it is the app's organisation whose APIs may know its tokens.
import { type Client, errors, type KoaContextWithOIDC, type Provider } from 'oidc-provider'

const apiScopes = ['admin:read', 'admin:write'] as const

/** The audience of tokens for our own API. */
export function apiResource(issuer: string): string {
  return `${issuer}/api`
}

/** The audience of tokens that APIs of an organisation read themselves. */
export function organizationResource(issuer: string, organizationId: string): string {
  return `${issuer}/organizations/${organizationId}`
}

/** Those of the scopes that are asked of our own API. */
export function scopesOfApi(scopes: readonly string[]): string[] {
  return apiScopes.filter((name) => scopes.includes(name))
}

const scopesOfOthers = (scopes: readonly string[]) => scopes.filter((name) => scopesOfApi([name]).length === 0)

/** What the provider knows of the app, by the names of its registration. */
type ClientMetadata = Readonly<Record<string, unknown>>

const wantsJwt = (client: ClientMetadata) => client['access_token_format'] === 'jwt'

/** Whom the app's tokens are for when its request does not say, and is about nothing of our API. */
function jwtResource(client: ClientMetadata, issuer: string): string | undefined {
  const organizationId = client['organization_id']
  return wantsJwt(client) && typeof organizationId === 'string'
    ? organizationResource(issuer, organizationId)
    : undefined
}

export function createResources(issuer: string) {
  const api = apiResource(issuer)
  return {
    enabled: true,
    /** Who asks for one of the API's scopes and names no resource means the API. */
    defaultResource: async ({ oidc }: KoaContextWithOIDC, client: Client): Promise<string | string[]> =>
      scopesOfApi(String(oidc.params?.['scope'] ?? '').split(' ')).length > 0
        ? api
        : (jwtResource(client, issuer) ?? []),
    useGrantedResource: async () => true,
    getResourceServerInfo: async ({ oidc }: KoaContextWithOIDC, resource: string, client: Client) => {
      const scopes = (client.scope ?? '').split(' ')
      // A client gets no scope that it was not registered with.
      if (resource === api)
        return { scope: scopesOfApi(scopes).join(' '), audience: api, accessTokenFormat: 'opaque' as const }
      const isJwt = wantsJwt(client)
      // What an app asked for while it had the other form goes on in the one that it has now.
      const isKnown = resource === organizationResource(issuer, String(client['organization_id']))
      if (!isKnown || !(isJwt || oidc.route === 'token'))
        throw new errors.InvalidTarget('this resource is not known here')
      return {
        scope: scopesOfOthers(scopes).join(' '),
        audience: resource,
        accessTokenFormat: isJwt ? ('jwt' as const) : ('opaque' as const),
        jwt: { sign: { alg: client.idTokenSignedResponseAlg === 'ES256' ? ('ES256' as const) : ('RS256' as const) } },
      }
    },
  }
}

interface IssuedToken {
  readonly resourceServer?: { readonly accessTokenFormat?: string | undefined } | undefined
}

export function isJwt({ resourceServer }: IssuedToken): boolean {
  return resourceServer?.accessTokenFormat === 'jwt'
}

type Grant = InstanceType<Provider['Grant']>

/** What was allowed, where the provider looks for it: each scope is one of the resource too that it is asked of. */
export function addScopes(
  grant: Pick<Grant, 'addOIDCScope' | 'addResourceScope'>,
  scopes: readonly string[],
  { issuer, client }: { readonly issuer: string; readonly client: ClientMetadata },
): void {
  grant.addOIDCScope(scopes.join(' '))
  const ofApi = scopesOfApi(scopes)
  if (ofApi.length > 0) grant.addResourceScope(apiResource(issuer), ofApi.join(' '))
  const ofOthers = scopesOfOthers(scopes)
  const own = jwtResource(client, issuer)
  if (own !== undefined && ofOthers.length > 0) grant.addResourceScope(own, ofOthers.join(' '))
}

/** Those of the scopes that a grant does not have everywhere where the app needs them. */
export function missingScopes(
  grant: Pick<Grant, 'getOIDCScope' | 'getResourceScope'>,
  scopes: readonly string[],
  { issuer, client }: { readonly issuer: string; readonly client: ClientMetadata },
): string[] {
  const own = jwtResource(client, issuer)
  const known = new Set([...grant.getOIDCScope().split(' '), ...grant.getResourceScope(apiResource(issuer)).split(' ')])
  const ofOwn = own === undefined ? undefined : new Set(grant.getResourceScope(own).split(' '))
  return scopes.filter(
    (name) => !known.has(name) || (ofOwn !== undefined && !ofOwn.has(name) && scopesOfApi([name]).length === 0),
  )
}
