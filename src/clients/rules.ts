// Who may set what of a client at the admin API: one table. Pure. `apply` is the operator's and is held to none of it.
import { type ClientField, type ClientMembers, clientFields } from './clients.ts'
import { isSameJson } from './same-json.ts'

export interface ClientRule {
  /** Who may give it a value that is not harmless: the organisation's own administrators, or the platform's. */
  readonly by: 'organization' | 'platform'
  /** Who may change it where the client skips the consent page, which would otherwise tell people. */
  readonly ofFirstParty: 'organization' | 'platform'
  /** Needs a fresh second factor: never, when it is changed, or also when a client is registered with it. */
  readonly stepUp: 'never' | 'changed' | 'always'
  /** Values that ask for neither `by` nor `stepUp`. */
  readonly harmless: readonly unknown[]
}

const free: ClientRule = { by: 'organization', ofFirstParty: 'organization', stepUp: 'never', harmless: [] }
/** Where codes go, and what they are good for. */
const asked: ClientRule = { ...free, ofFirstParty: 'platform' }
/** What the client proves itself with: changing it is taking the client over. */
const credential: ClientRule = { ...free, stepUp: 'changed' }

export const clientRules: Readonly<Record<ClientField, ClientRule>> = {
  client_name: free,
  redirect_uris: asked,
  post_logout_redirect_uris: free,
  // Who adds the device grant lets tokens go to whoever asked, instead of to the app's own address.
  grant_types: asked,
  token_endpoint_auth_method: credential,
  application_type: free,
  id_token_signed_response_alg: free,
  jwks: credential,
  jwks_uri: credential,
  require_pushed_authorization_requests: free,
  dpop_bound_access_tokens: free,
  access_token_format: free,
  introspection_signed_response_alg: free,
  scope: asked,
  // Sees every token of the organisation, and no further than that.
  introspection: { ...free, stepUp: 'always', harmless: ['none', 'own'] },
  // People of any organisation are not asked, and its pages may take passwords: the platform vouches for it.
  first_party: { ...free, by: 'platform', harmless: [false] },
  session_activity: free,
  backchannel_logout_uri: free,
  backchannel_logout_session_required: free,
  backchannel_logout_causes: free,
  // Without PKCE.
  profile: { ...free, by: 'platform', harmless: ['standard', 'fapi2'] },
}

const fieldNames = Object.keys(clientFields).filter((name): name is ClientField => Object.hasOwn(clientRules, name))

export interface ClientNeeds {
  /** Fields that only somebody of the platform may set to this. */
  readonly platform: readonly ClientField[]
  /** Fields for which the second factor has to be proven anew. */
  readonly stepUp: readonly ClientField[]
}

/** What a change asks of whoever makes it; of a registration, without `before`. */
export function needsOf(before: ClientMembers | undefined, after: ClientMembers): ClientNeeds {
  const changed = fieldNames.filter((field) => !before || !isSameJson(before[field], after[field]))
  const powerful = (field: ClientField) => !clientRules[field].harmless.some((value) => value === after[field])
  const isFirstParty = before?.first_party === true
  return {
    platform: changed.filter(
      (field) =>
        (clientRules[field].by === 'platform' && powerful(field)) ||
        (isFirstParty && clientRules[field].ofFirstParty === 'platform'),
    ),
    stepUp: changed.filter((field) => {
      const { stepUp } = clientRules[field]
      return powerful(field) && (stepUp === 'always' || (stepUp === 'changed' && before !== undefined))
    }),
  }
}

/** What stands in the way of a client holding permissions at the admin API. */
export function permissionProblems({ grant_types, scope }: ClientMembers): { path: ClientField; message: string }[] {
  const hasAdminScope = scope.split(' ').some((name) => name.startsWith('admin:'))
  return [
    ...(grant_types.includes('client_credentials')
      ? []
      : [{ path: 'grant_types' as const, message: 'a client with permissions needs client_credentials' }]),
    ...(hasAdminScope
      ? []
      : [{ path: 'scope' as const, message: 'a client with permissions needs admin:read or admin:write' }]),
  ]
}
