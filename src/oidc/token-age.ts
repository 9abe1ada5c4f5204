// How old a token may get under the policy of now, whatever it was promised when it was issued (lifetimes.ts). Pure.
import type { Policy } from '../organizations/policy.ts'

/** What of a token tells how old it is. */
export interface DatedToken {
  readonly kind?: string | undefined
  /** When it was issued, in seconds since 1970. */
  readonly iat?: number | undefined
  /** Of a refresh token, when the first of its family was issued. */
  readonly iiat?: number | undefined
}

/** What a policy of now promises a token in all, and from when on. Nothing of others, which last as long for everybody. */
function promiseOf({ kind, iat, iiat }: DatedToken, { tokens }: Pick<Policy, 'tokens'>) {
  if (kind === 'AccessToken') return { from: iat, seconds: tokens.accessTokenTtl }
  // Rotation does not lengthen what was granted once.
  if (kind === 'RefreshToken') return { from: iiat ?? iat, seconds: tokens.refreshTokenTtl }
  return undefined
}

/**
 * Whether a token has had all the time that this policy gives to one. Asked of what was issued under another policy, so
 * that a stricter one acts on it too; from the second on that `exp` would name (RFC 7519 §4.1.4).
 */
export function isOutlived(token: DatedToken, policy: Pick<Policy, 'tokens'>, nowSeconds: number): boolean {
  const promise = promiseOf(token, policy)
  return promise?.from !== undefined && promise.from + promise.seconds <= nowSeconds
}
