// What the tests of resource servers are held against: resource servers that may ask and such that may not, and an app
// whose people gave it the scope to ask.
import { Browser, type Issuer, obtainTokens, post, redirectUri } from '../support/client.ts'
import { people } from '../support/server.ts'

const service = { organization: 'mercy', grant_types: ['client_credentials' as const] }

export const seed = (jwk: Record<string, unknown>) => ({
  ...people,
  clients: [
    ...(people.clients ?? []),
    {
      ...service,
      client_id: 'reader',
      client_secret: 'reader-secret-0123456789',
      client_name: 'Reads by bearer',
      scope: 'openid introspect',
      introspection: 'organization' as const,
    },
    {
      ...service,
      client_id: 'keyed',
      client_name: 'Has a key and no secret',
      token_endpoint_auth_method: 'private_key_jwt' as const,
      jwks: { keys: [jwk] } as never,
      scope: 'introspect',
      introspection: 'organization' as const,
    },
    {
      ...service,
      client_id: 'signed',
      client_secret: 'signed-secret-0123456789',
      client_name: 'Wants signed answers',
      scope: 'openid',
      introspection: 'organization' as const,
      introspection_signed_response_alg: 'ES256' as const,
    },
    {
      ...service,
      client_id: 'blind',
      client_secret: 'blind-secret-0123456789',
      client_name: 'May see nothing',
      scope: 'introspect',
    },
    {
      client_id: 'asker',
      client_secret: 'asker-secret-0123456789',
      client_name: 'App of people',
      organization: 'mercy',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code' as const, 'refresh_token' as const],
      scope: 'openid introspect admin:read',
      first_party: true,
      introspection: 'organization' as const,
    },
    {
      client_id: 'alone',
      client_secret: 'alone-secret-0123456789',
      client_name: 'Asks about its own',
      organization: 'mercy',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code' as const],
      scope: 'openid admin:read',
      first_party: true,
      introspection: 'own' as const,
    },
  ],
})

/** An access token of a service for itself. */
export async function serviceToken(
  server: Issuer,
  clientId: string,
  form: Record<string, string> = {},
  headers: Record<string, string> = {},
): Promise<string> {
  const { status, body } = await post(
    server,
    '/oauth/token',
    clientId,
    { grant_type: 'client_credentials', ...form },
    headers,
  )
  if (status !== 200) throw new Error(`no token: ${status} ${JSON.stringify(body)}`)
  return String(body['access_token'])
}

/** Tokens of a person for the first party's app. */
export const personTokens = (server: Issuer, clientId = 'first', extra: Record<string, string> = {}) =>
  obtainTokens(server, clientId, extra, new Browser(server))
