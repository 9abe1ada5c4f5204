// Who the official suite signs in and as which apps. The suite is one relying party under a different alias for each plan:
// all its addresses follow from its own address and that alias.
import type { JWK } from 'jose'
import type { ApplyInput } from '../../../src/apply/apply.ts'

type ClientInput = NonNullable<ApplyInput['clients']>[number]

export const person = { email: 'kim@conformance.example', password: 'Harbor-Lantern-58-Suite' } as const

export const callbackOf = (suite: string, alias: string) => `${suite}/test/a/${alias}/callback`
/** The suite registers its second FAPI client with a query, to see that it is kept. */
export const secondCallbackOf = (suite: string, alias: string) =>
  `${callbackOf(suite, alias)}?dummy1=lorem&dummy2=ipsum`
export const postLogoutOf = (suite: string, alias: string) => `${suite}/test/a/${alias}/post_logout_redirect`
export const backChannelOf = (suite: string, alias: string) => `${suite}/test/a/${alias}/backchannel_logout`

/** Public keys of the two clients that sign their assertions. */
export interface ClientKeys {
  readonly first: JWK
  readonly second: JWK
}

/** The file that `apply` takes. Its secrets are public: it is for an empty database that holds nobody. */
export function suiteFile(suite: string, keys: ClientKeys): ApplyInput {
  return {
    organizations: [{ slug: 'conformance', name: 'Conformance' }],
    accounts: [{ ...person, name: 'Kim Conform', emailVerified: true, organization: 'conformance' }],
    clients: suiteClients(suite, keys),
  }
}

function suiteClients(suite: string, keys: ClientKeys): ClientInput[] {
  const basic = ['mlpipes-basic', 'mlpipes-form-post', 'mlpipes-rp-logout']
  const fapi = 'mlpipes-fapi2'
  const logout = 'mlpipes-back-channel'
  return [
    certified('suite-first', suite, basic),
    certified('suite-second', suite, basic),
    { ...certified('suite-post', suite, basic), token_endpoint_auth_method: 'client_secret_post' },
    {
      ...certified('suite-back-channel', suite, [logout]),
      backchannel_logout_uri: backChannelOf(suite, logout),
      backchannel_logout_session_required: true,
    },
    assured('suite-fapi', callbackOf(suite, fapi), keys.first),
    assured('suite-fapi-second', secondCallbackOf(suite, fapi), keys.second),
  ]
}

const ofThePlatform = {
  organization: 'conformance',
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid profile email offline_access',
  first_party: true,
}

/** Without PKCE, which the modules of OpenID Connect do not send. */
function certified(id: string, suite: string, aliases: readonly string[]): ClientInput {
  return {
    ...ofThePlatform,
    client_id: id,
    client_secret: `${id}-secret-for-the-conformance-suite-only`,
    client_name: `OpenID conformance suite (${id})`,
    redirect_uris: aliases.map((alias) => callbackOf(suite, alias)),
    post_logout_redirect_uris: aliases.map((alias) => postLogoutOf(suite, alias)),
    profile: 'oidc-certification',
  }
}

function assured(id: string, redirect: string, key: JWK): ClientInput {
  return {
    ...ofThePlatform,
    client_id: id,
    client_name: `OpenID conformance suite (${id})`,
    redirect_uris: [redirect],
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [{ ...key }] },
    profile: 'fapi2',
  }
}
