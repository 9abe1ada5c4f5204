// What of the protocols is offered, and to whom (RFC 9126, RFC 9101, RFC 9449, RFC 9701, RFC 8707, Back-Channel Logout 1.0).
import { type Configuration, errors } from 'oidc-provider'
import { assertRequestObject, refuseEarlyProof } from './client-signatures.ts'
import { createDeviceFlow } from './device.ts'
import { toCaller } from './introspection.ts'
import type { ProviderParts } from './provider.ts'
import { createResources } from './resources.ts'

const maxClaimsDepth = 32

export function features(parts: ProviderParts): NonNullable<Configuration['features']> {
  return {
    devInteractions: { enabled: false },
    userinfo: { enabled: true },
    claimsParameter: { enabled: true, assertClaimsParameter: async (_context, claims) => assertShallow(claims) },
    clientCredentials: { enabled: true },
    deviceFlow: createDeviceFlow(parts),
    introspection: {
      enabled: true,
      allowedPolicy: (context, caller, token) => parts.mayIntrospect(context.req, toCaller(caller.metadata()), token),
    },
    // A resource server that asks for it gets an answer that it can keep as proof.
    jwtIntrospection: { enabled: true },
    revocation: {
      enabled: true,
      allowedPolicy: async (_context, client, token) => token.clientId === client.clientId,
    },
    // Replicas share the key of the nonces; a proof without a nonce will do, since each `jti` works once.
    dPoP: { enabled: true, nonceSecret: parts.secrets.dpopNonceKey, requireNonce: refuseEarlyProof },
    pushedAuthorizationRequests: { enabled: true, allowUnregisteredRedirectUris: false },
    // Signed request objects; the provider takes them by value, and PAR keeps them out of the address.
    requestObjects: { enabled: true, assertJwtClaimsAndHeader: assertRequestObject },
    fapi: { enabled: true, profile: (_context, client) => (client?.['profile'] === 'fapi2' ? '2.0' : undefined) },
    resourceIndicators: createResources(parts.issuer),
    // The provider tells nobody itself (internals.ts); deliveries/ does.
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: parts.pages.signOut,
      postLogoutSuccessSource: parts.pages.signedOut,
    },
  }
}

/** A JSON value nested without end would exhaust the stack of whoever walks or stores it (F91). */
function assertShallow(value: unknown, depth = 1): void {
  if (typeof value !== 'object' || value === null) return
  if (depth > maxClaimsDepth) throw new errors.InvalidRequest(`claims is nested deeper than ${maxClaimsDepth} levels`)
  for (const member of Object.values(value)) assertShallow(member, depth + 1)
}
