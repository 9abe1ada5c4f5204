// What `mlpipes-auth try` holds the answers of a server against (OpenID Connect Core §3.1.3.7, RFC 9207). Pure, but for the
// signature, which is computed.
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, type JSONWebKeySet, jwtVerify } from 'jose'

export interface Check {
  readonly name: string
  readonly ok: boolean
  readonly detail: string
}

/** A token without what makes it one: neither its text nor its signature. */
export type DecodedToken =
  | { readonly format: 'jwt'; readonly header: Readonly<Record<string, unknown>>; readonly claims: Claims }
  | { readonly format: 'opaque'; readonly characters: number }
type Claims = Readonly<Record<string, unknown>>

const clockToleranceSeconds = 10
const shown = (value: unknown) => (value === undefined ? 'nothing' : JSON.stringify(value))

/** Passes when the two are the same, and says what came otherwise. */
export function same(name: string, actual: unknown, expected: unknown): Check {
  const ok = actual === expected
  return { name, ok, detail: ok ? shown(actual) : `expected ${shown(expected)}, got ${shown(actual)}` }
}

export function decodeToken(token: string): DecodedToken {
  try {
    return { format: 'jwt', header: { ...decodeProtectedHeader(token) }, claims: { ...decodeJwt(token) } }
  } catch {
    return { format: 'opaque', characters: token.length }
  }
}

export interface Expected {
  readonly issuer: string
  readonly clientId: string
  /** Of the code flow. The device flow has none. */
  readonly nonce: string | undefined
  readonly nowSeconds: number
}

/** The claims of an ID token against what was asked. */
export function checkClaims(claims: Claims, expected: Expected): Check[] {
  const { exp, iat, aud, azp, sub } = claims
  const audience = [aud].flat()
  const now = expected.nowSeconds
  return [
    same('id_token iss', claims['iss'], expected.issuer),
    {
      name: 'id_token aud',
      ok: audience.includes(expected.clientId) && (audience.length === 1 || azp === expected.clientId),
      detail: audience.includes(expected.clientId)
        ? `${shown(aud)}${audience.length > 1 ? `, azp ${shown(azp)}` : ''}`
        : `is for ${shown(aud)}, not for this client`,
    },
    {
      name: 'id_token exp',
      ok: typeof exp === 'number' && exp > now - clockToleranceSeconds,
      detail: typeof exp === 'number' ? `in ${exp - now} seconds` : 'is missing',
    },
    {
      name: 'id_token iat',
      ok: typeof iat === 'number' && iat <= now + clockToleranceSeconds,
      detail: typeof iat === 'number' ? `${now - iat} seconds ago` : 'is missing',
    },
    {
      name: 'id_token sub',
      ok: typeof sub === 'string' && sub !== '' && sub.length <= 255,
      detail: shown(sub),
    },
    ...(expected.nonce === undefined ? [] : [same('id_token nonce', claims['nonce'], expected.nonce)]),
  ]
}

/** The signature of an ID token by the server's published keys, made with one of the algorithms that it announced. */
export async function checkSignature(
  token: string,
  keys: JSONWebKeySet,
  algorithms: readonly string[],
): Promise<Check> {
  const name = 'id_token signature'
  try {
    const { protectedHeader } = await jwtVerify(token, createLocalJWKSet(keys), {
      algorithms: algorithms.filter((alg) => alg !== 'none' && !alg.startsWith('HS')),
      // The times are checks of their own.
      currentDate: new Date((decodeJwt(token).iat ?? 0) * 1_000),
    })
    return { name, ok: true, detail: `${protectedHeader.alg} by key ${protectedHeader.kid ?? 'without a name'}` }
  } catch (error) {
    return { name, ok: false, detail: error instanceof Error ? error.message : 'cannot be verified' }
  }
}
