// What an app can be refused for at the protocol's endpoints, as a closed list, told from the provider's own words, which
// are constants. Pure. What was sent is never kept as it stands: an error can echo a code, a secret or a person.
export const faultReasons = [
  'redirect_uri_unknown',
  'parameter_missing',
  'parameter_twice',
  'scope_unknown',
  'scope_unreadable',
  'openid_missing',
  'pkce_missing',
  'pkce_method',
  'challenge_unreadable',
  'response_type',
  'response_mode',
  'prompt_unknown',
  'max_age_unreadable',
  'claims_unreadable',
  'id_token_hint_refused',
  'par_required',
  'request_uri_dead',
  'request_uri_remote',
  'request_object',
  'verifier_missing',
  'verifier_wrong',
  'verifier_unreadable',
  'code_unknown',
  'code_used',
  'code_expired',
  'code_redirect_uri',
  'refresh_unknown',
  'refresh_used',
  'refresh_parallel',
  'refresh_scope',
  'refresh_expired',
  'grant_over',
  'of_another_app',
  'app_off',
  'method_mismatch',
  'method_twice',
  'secret_wrong',
  'credentials_unreadable',
  'assertion_refused',
  'grant_type_unregistered',
  'grant_type_unknown',
  'dpop_missing',
  'dpop_refused',
  'target_unknown',
  'token_is_jwt',
  'sign_out_uri_unknown',
  'other',
] as const

export type FaultReason = (typeof faultReasons)[number]
export const faultEndpoints = ['authorize', 'par', 'token', 'device', 'introspect', 'revoke', 'logout'] as const
export type FaultEndpoint = (typeof faultEndpoints)[number]

/** Plain facts of a fault, each out of a closed list or cut to what can hold no secret. */
export interface FaultFacts {
  /** Without query, fragment and user. */
  readonly redirectUri?: string
  readonly scope?: string
  readonly grantType?: string
  readonly method?: 'secret' | 'private_key_jwt' | 'none'
  readonly parameters?: readonly string[]
}

export interface ClientFault {
  readonly clientId: string
  readonly endpoint: FaultEndpoint
  /** The OAuth error code. */
  readonly error: string
  readonly reason: FaultReason
  readonly facts: FaultFacts
}

/** What is no fault of an app: what its person decided or lacks, and how devices and DPoP go. */
const ordinary: ReadonlySet<string> = new Set([
  'access_denied',
  'login_required',
  'consent_required',
  'interaction_required',
  'account_selection_required',
  'unmet_authentication_requirements',
  'authorization_pending',
  'slow_down',
  'expired_token',
  'use_dpop_nonce',
  'server_error',
  'temporarily_unavailable',
])

/** What an error is about, whatever it says. */
export const byError: Readonly<Record<string, FaultReason>> = {
  invalid_redirect_uri: 'redirect_uri_unknown',
  unsupported_response_type: 'response_type',
  unsupported_response_mode: 'response_mode',
  unsupported_grant_type: 'grant_type_unknown',
  invalid_request_uri: 'request_uri_dead',
  request_uri_not_supported: 'request_uri_remote',
  invalid_request_object: 'request_object',
  invalid_dpop_proof: 'dpop_refused',
  invalid_target: 'target_unknown',
  unsupported_token_type: 'token_is_jwt',
}

/** What an error is about, by its words; the first that fits. */
export const byWords: readonly (readonly [string, RegExp, FaultReason])[] = [
  ['invalid_scope', /^requested scope is not allowed/, 'scope_unknown'],
  ['invalid_scope', /^refresh token missing requested scope/, 'refresh_scope'],
  ['invalid_scope', /^scope contains invalid characters/, 'scope_unreadable'],
  ['invalid_request', /^openid scope must be requested/, 'openid_missing'],
  ['invalid_request', /^missing required parameter/, 'parameter_missing'],
  ['invalid_request', /must not be provided twice$/, 'parameter_twice'],
  ['invalid_request', /requires PKCE to be used|^code_challenge must be provided/, 'pkce_missing'],
  ['invalid_request', /code_challenge_method/, 'pkce_method'],
  ['invalid_request', /^code_challenge /, 'challenge_unreadable'],
  ['invalid_request', /^code_verifier /, 'verifier_unreadable'],
  ['invalid_request', /^requested response_type is not allowed/, 'response_type'],
  ['invalid_request', /^requested response_mode is not allowed/, 'response_mode'],
  ['invalid_request', /^unsupported prompt value|^prompt none must/, 'prompt_unknown'],
  ['invalid_request', /^invalid max_age/, 'max_age_unreadable'],
  ['invalid_request', /^could not parse the claims|^(invalid )?claims\b/, 'claims_unreadable'],
  ['invalid_request', /id_token_hint/, 'id_token_hint_refused'],
  ['invalid_request', /^post_logout_redirect_uri not registered/, 'sign_out_uri_unknown'],
  ['invalid_request', /^DPoP proof key thumbprint does not match/, 'dpop_missing'],
  ['invalid_request', /^Pushed Authorization Request must be used/, 'par_required'],
  [
    'invalid_request',
    /^requested grant type is not allowed|^[\w:.-]+ is not allowed for this client/,
    'grant_type_unregistered',
  ],
  ['invalid_request', /^client authentication must only be provided using one/, 'method_twice'],
  ['invalid_request', /authorization header|client_assertion|^client_id mismatch/i, 'credentials_unreadable'],
  ['invalid_client', /does not match the registered client authentication method/, 'method_mismatch'],
  ['invalid_client', /^invalid secret provided/, 'secret_wrong'],
  ['invalid_client', /^client not found/, 'app_off'],
  ['invalid_client', /./, 'assertion_refused'],
  ['invalid_grant', /^code_verifier must be provided/, 'verifier_missing'],
  ['invalid_grant', /^code_verifier does not match/, 'verifier_wrong'],
  ['invalid_grant', /^authorization code not found/, 'code_unknown'],
  ['invalid_grant', /^authorization code already consumed|^already used/, 'code_used'],
  ['invalid_grant', /^authorization code is expired/, 'code_expired'],
  ['invalid_grant', /^authorization code redirect_uri mismatch/, 'code_redirect_uri'],
  ['invalid_grant', /^refresh token not found/, 'refresh_unknown'],
  // Ours (oidc/adapter.ts): the copy of a moment ago, which ends nothing.
  ['invalid_grant', /^refresh token used in parallel/, 'refresh_parallel'],
  ['invalid_grant', /^refresh token already used/, 'refresh_used'],
  ['invalid_grant', /^refresh token is expired/, 'refresh_expired'],
  ['invalid_grant', /^grant (not found|is expired)|^accountId mismatch|referenced account not found/, 'grant_over'],
  ['invalid_grant', /^client mismatch/, 'of_another_app'],
  ['invalid_grant', /^(missing )?DPoP proof|jkt/, 'dpop_missing'],
]

/** What an error of the provider says besides its code. */
interface Said {
  readonly error: string
  readonly error_description?: string | undefined
  readonly error_detail?: string | undefined
}

/**
 * The words of an error that are constants of the provider. They stand in the detail, beside a description that is always
 * the same; of an invalid_request in the description, beside a detail that repeats what was sent.
 */
export function wordsOf({ error, error_description: description, error_detail: detail }: Said): string {
  return (error === 'invalid_request' ? description : (detail ?? description)) ?? ''
}

/**
 * What an error of the provider is about; undefined for what is no fault of an app.
 * @param words those of `wordsOf`
 */
export function reasonOf(error: string, words: string): FaultReason | undefined {
  if (ordinary.has(error) || !/^[a-z_]{1,64}$/.test(error)) return undefined
  const found = byWords.find(([code, pattern]) => code === error && pattern.test(words))?.[2]
  return found ?? (Object.hasOwn(byError, error) ? byError[error] : undefined) ?? 'other'
}

const maxUri = 200
const maxScope = 200

/** Where a redirect URI leads, without what may be secret in it. */
export function plainUri(text: string): string {
  const url = URL.parse(text)
  if (!url) return 'something that is no URI'
  const place = `${url.protocol}${url.host === '' ? '' : `//${url.host}`}${url.pathname}`
  return place.length > maxUri ? `${place.slice(0, maxUri)}…` : place
}

/** Names of scopes as they were asked for; what is no name is left out. */
export function plainScope(text: string): string {
  const names = text.split(/\s+/).filter((name) => /^[A-Za-z][\w:./*-]{0,63}$/.test(name))
  return names.join(' ').slice(0, maxScope)
}
