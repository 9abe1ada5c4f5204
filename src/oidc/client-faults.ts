// What apps are refused for, out of the provider's events, as plain facts for the people who connect them.
import type { errors, KoaContextWithOIDC, Provider } from 'oidc-provider'
import { isClientId } from '../clients/clients.ts'
import {
  type ClientFault,
  type FaultEndpoint,
  type FaultFacts,
  type FaultReason,
  plainScope,
  plainUri,
  reasonOf,
  wordsOf,
} from '../clients/fault-reasons.ts'

type ProviderError = errors.OIDCProviderError

/** Tells `note` of every fault that can be laid at an app's door. It must not throw. */
export function watchClientFaults(provider: Provider, note: (fault: ClientFault) => void): void {
  const watch = (endpoint: FaultEndpoint) => (context: KoaContextWithOIDC, error: ProviderError) => {
    const fault = faultOf(endpoint, context, error)
    if (fault) note(fault)
  }
  provider.on('authorization.error', watch('authorize'))
  provider.on('pushed_authorization_request.error', watch('par'))
  provider.on('grant.error', watch('token'))
  provider.on('device_authorization.error', watch('device'))
  provider.on('introspection.error', watch('introspect'))
  provider.on('revocation.error', watch('revoke'))
  provider.on('end_session.error', watch('logout'))
}

function faultOf(endpoint: FaultEndpoint, context: KoaContextWithOIDC, error: ProviderError): ClientFault | undefined {
  const clientId = clientIdOf(context)
  if (clientId === undefined || !isClientId(clientId)) return undefined
  const reason = reasonOf(error.error, wordsOf(error))
  if (reason === undefined) return undefined
  return { clientId, endpoint, error: error.error, reason, facts: factsOf(reason, context, error) }
}

/** Which app this is about: the one that was found, or the one that was named. Whether there is one is looked up later. */
function clientIdOf({ oidc, headers }: KoaContextWithOIDC): string | undefined {
  if (oidc.client) return oidc.client.clientId
  const named = parametersOf(oidc)['client_id']
  if (typeof named === 'string') return named
  const basic = /^Basic ([A-Za-z0-9+/=]{1,1024})$/i.exec(headers.authorization ?? '')?.[1]
  return basic === undefined ? undefined : Buffer.from(basic, 'base64').toString('latin1').split(':', 1)[0]
}

/** Before they are read as parameters they are in the body. */
const parametersOf = (oidc: KoaContextWithOIDC['oidc']): Record<string, unknown> => ({ ...oidc.body, ...oidc.params })

const knownParameters = [
  'redirect_uri',
  'response_type',
  'client_id',
  'code',
  'refresh_token',
  'grant_type',
  'token',
  'code_challenge',
  'scope',
  'device_code',
]
const knownGrants: ReadonlySet<unknown> = new Set([
  'authorization_code',
  'refresh_token',
  'client_credentials',
  'implicit',
  'password',
  'urn:ietf:params:oauth:grant-type:device_code',
  'urn:ietf:params:oauth:grant-type:jwt-bearer',
  'urn:ietf:params:oauth:grant-type:token-exchange',
])

function factsOf(reason: FaultReason, context: KoaContextWithOIDC, error: ProviderError): FaultFacts {
  const sent = parametersOf(context.oidc)
  const said = (name: string) => (typeof sent[name] === 'string' ? sent[name] : '')
  switch (reason) {
    case 'redirect_uri_unknown':
    case 'code_redirect_uri':
      return { redirectUri: plainUri(said('redirect_uri')) }
    case 'sign_out_uri_unknown':
      return { redirectUri: plainUri(said('post_logout_redirect_uri')) }
    case 'scope_unknown':
    case 'refresh_scope':
      return { scope: plainScope('scope' in error ? String(error.scope) : said('scope')) }
    case 'grant_type_unregistered':
    case 'grant_type_unknown':
      return knownGrants.has(sent['grant_type']) ? { grantType: said('grant_type') } : {}
    case 'method_mismatch':
      return { method: methodOf(context, said('client_secret') !== '', said('client_assertion') !== '') }
    case 'parameter_missing':
    case 'parameter_twice': {
      const words = new Set(error.error_description?.match(/\w+/g) ?? [])
      return { parameters: knownParameters.filter((name) => words.has(name)) }
    }
    default:
      return {}
  }
}

function methodOf(
  { headers }: KoaContextWithOIDC,
  hasSecret: boolean,
  hasAssertion: boolean,
): NonNullable<FaultFacts['method']> {
  if (hasSecret || headers.authorization !== undefined) return 'secret'
  return hasAssertion ? 'private_key_jwt' : 'none'
}
