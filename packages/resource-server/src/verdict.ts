// What comes of looking at a request: a token, or a refusal with what to answer.

/** An access token that the issuer calls active. Names are those of introspection (RFC 7662, RFC 9470). */
export interface AccessToken {
  readonly client_id: string
  readonly scope: string
  readonly exp: number
  readonly iat?: number
  readonly iss?: string
  readonly aud?: string | readonly string[]
  /** The person; absent on a token that a service got for itself. */
  readonly sub?: string
  readonly org_id?: string
  readonly roles?: readonly string[]
  readonly acr?: string
  /** When the person proved who they are, in seconds since 1970. */
  readonly auth_time?: number
  readonly sid?: string
  readonly token_type: string
  readonly cnf?: { readonly jkt?: string }
  readonly [member: string]: unknown
}

export type Reason =
  | 'no_token'
  | 'malformed_authorization'
  | 'inactive'
  | 'not_an_access_token'
  | 'wrong_issuer'
  | 'wrong_audience'
  | 'wrong_client'
  | 'unsupported_binding'
  | 'proof_required'
  | 'not_bound'
  | 'dpop_not_offered'
  | 'invalid_proof'
  | 'replayed_proof'
  | 'replay_memory_full'
  | 'insufficient_scope'
  | 'insufficient_user_authentication'
  | 'issuer_unavailable'

export interface Refusal {
  readonly ok: false
  /** 401: get another token. 403: this one is not for that. 503: it cannot be checked now, keep it. */
  readonly status: 401 | 403 | 503
  readonly reason: Reason
  /** The header of that name; absent on 503. */
  readonly wwwAuthenticate?: string
  readonly retryAfterSeconds?: number
}

export type Verdict = { readonly ok: true; readonly token: AccessToken } | Refusal

/** The headers of an answer that refuses. */
export function refusalHeaders(refusal: Refusal): Record<string, string> {
  return {
    'cache-control': 'no-store',
    ...(refusal.wwwAuthenticate === undefined ? {} : { 'www-authenticate': refusal.wwwAuthenticate }),
    ...(refusal.retryAfterSeconds === undefined ? {} : { 'retry-after': String(refusal.retryAfterSeconds) }),
  }
}

/** The body of an answer that refuses: the same for everybody, so that it tells nothing about a token. */
export function refusalBody(refusal: Refusal): { readonly error: string } {
  return { error: errorOf(refusal) }
}

function errorOf({ status, reason }: Refusal): string {
  if (status === 503) return 'temporarily_unavailable'
  switch (reason) {
    case 'insufficient_scope':
    case 'insufficient_user_authentication':
      return reason
    case 'no_token':
      return 'unauthorized'
    default:
      return 'invalid_token'
  }
}

type Scheme = 'Bearer' | 'DPoP'

/** One challenge of a WWW-Authenticate header (RFC 9110 §11.6.1). */
export function challenge(scheme: Scheme, parameters: Readonly<Record<string, string | undefined>> = {}): string {
  const said = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return [scheme, said.map(([name, value]) => `${name}="${quote(value)}"`).join(', ')].join(' ').trim()
}

/** A quoted string cannot hold controls or what is not ASCII; values of ours have neither. */
function quote(value: string): string {
  return value.replace(/[^\x20-\x7e]/g, '').replace(/(["\\])/g, '\\$1')
}
