// What one route asks beyond a good token. Each answers a refusal, or undefined when the token will do.
import { type AccessToken, challenge, type Refusal } from './verdict.ts'

export interface Requirements {
  /** Every one of these, space-separated. */
  readonly scope?: string
  readonly acr?: AcrRequirement
}

export interface AcrRequirement {
  /** Any of these will do. List the stronger ones too: this package knows no order. */
  readonly acrValues?: readonly string[]
  /** How long ago the person may have proven who they are. */
  readonly maxAgeSeconds?: number
}

export function unmetRequirement(token: AccessToken, { scope, acr }: Requirements): Refusal | undefined {
  return (scope === undefined ? undefined : requireScope(token, scope)) ?? (acr && requireAcr(token, acr))
}

/** RFC 6750 §3.1 */
export function requireScope(token: AccessToken, scope: string): Refusal | undefined {
  const given = new Set(token.scope.split(' '))
  if (scope.split(' ').every((name) => given.has(name))) return undefined
  const wwwAuthenticate = challenge(schemeOf(token), { error: 'insufficient_scope', scope })
  return { ok: false, status: 403, reason: 'insufficient_scope', wwwAuthenticate }
}

/** RFC 9470 §3: the app takes both values into its next authorization request. */
export function requireAcr(
  token: AccessToken,
  { acrValues, maxAgeSeconds }: AcrRequirement,
  nowMs = Date.now(),
): Refusal | undefined {
  const isStrong = acrValues === undefined || (token.acr !== undefined && acrValues.includes(token.acr))
  const provenMs = (token.auth_time ?? Number.NEGATIVE_INFINITY) * 1000
  const isFresh = maxAgeSeconds === undefined || nowMs - provenMs <= maxAgeSeconds * 1000
  if (isStrong && isFresh) return undefined
  const wwwAuthenticate = challenge(schemeOf(token), {
    error: 'insufficient_user_authentication',
    acr_values: acrValues?.join(' '),
    max_age: maxAgeSeconds === undefined ? undefined : String(maxAgeSeconds),
  })
  return { ok: false, status: 401, reason: 'insufficient_user_authentication', wwwAuthenticate }
}

const schemeOf = (token: AccessToken) => (token.cnf?.jkt === undefined ? 'Bearer' : 'DPoP')
