// Resource indicators (RFC 8707): whom an access token is for. This server's own API is the one resource so far. A token
// for it says so in `aud`, and a token for anybody else opens nothing there.
import { type Client, errors, type KoaContextWithOIDC, type Provider } from 'oidc-provider'

const apiScopes = ['admin:read', 'admin:write'] as const

/** The audience of tokens for our own API. */
export function apiResource(issuer: string): string {
  return `${issuer}/api`
}

/** Those of the scopes that are asked of our own API. */
export function scopesOfApi(scopes: readonly string[]): string[] {
  return apiScopes.filter((name) => scopes.includes(name))
}

export function createResources(issuer: string) {
  const api = apiResource(issuer)
  return {
    enabled: true,
    /** Who asks for one of the API's scopes and names no resource means the API. */
    defaultResource: async ({ oidc }: KoaContextWithOIDC): Promise<string | string[]> =>
      scopesOfApi(String(oidc.params?.['scope'] ?? '').split(' ')).length > 0 ? api : [],
    useGrantedResource: async () => true,
    getResourceServerInfo: async (_context: KoaContextWithOIDC, resource: string, client: Client) => {
      if (resource !== api) throw new errors.InvalidTarget('this resource is not known here')
      // A client gets no scope that it was not registered with.
      return {
        scope: scopesOfApi((client.scope ?? '').split(' ')).join(' '),
        audience: api,
        accessTokenFormat: 'opaque' as const,
      }
    },
  }
}

type Grant = InstanceType<Provider['Grant']>

/** What was allowed, where the provider looks for it: the API's scopes are those of a resource too (RFC 8707). */
export function addScopes(
  grant: Pick<Grant, 'addOIDCScope' | 'addResourceScope'>,
  scopes: readonly string[],
  issuer: string,
): void {
  grant.addOIDCScope(scopes.join(' '))
  const ofApi = scopesOfApi(scopes)
  if (ofApi.length > 0) grant.addResourceScope(apiResource(issuer), ofApi.join(' '))
}
