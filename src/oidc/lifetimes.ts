// How long what the provider issues lasts. What a policy says of tokens, and when the session of one ends, decides; codes
// and what a service gets for itself last as long for everybody. What is out already is held to the policy of now by
// token-age.ts.
import type { Configuration, KoaContextWithOIDC } from 'oidc-provider'
import { sessionLimits } from '../sessions/policy.ts'
import { accountOf } from './claims.ts'
import { deviceCodeSeconds } from './device-codes.ts'
import { sessionOfToken } from './request-session.ts'
import { isJwt } from './resources.ts'

/** A JWT is good until it expires, whatever happens meanwhile: so that is soon, whatever the policy says. */
export const maxJwtSeconds = 300
const clientCredentialsSeconds = maxJwtSeconds
const authorizationCodeSeconds = 60
const interactionSeconds = 900
const accessTokenSeconds = 900
const refreshTokenSeconds = 7_776_000

/** What the provider itself compares: the longest that a policy can say. The limits of a session are columns of ours. */
export const sessionSeconds = 31_536_000
const anonymousSessionSeconds = 86_400

export const lifetimes: NonNullable<Configuration['ttl']> = {
  AuthorizationCode: authorizationCodeSeconds,
  ClientCredentials: clientCredentialsSeconds,
  DeviceCode: deviceCodeSeconds,
  Interaction: interactionSeconds,
  IdToken: 3_600,
  AccessToken: (context, token) => {
    const seconds = accountOf(context)?.policy.tokens.accessTokenTtl ?? accessTokenSeconds
    return withinSession(context, token, isJwt(token) ? Math.min(seconds, maxJwtSeconds) : seconds)
  },
  RefreshToken: (context, token) => {
    const cap = accountOf(context)?.policy.tokens.refreshTokenTtl ?? refreshTokenSeconds
    const ageSeconds = token.iiat === undefined ? 0 : Math.floor(Date.now() / 1000) - token.iiat
    // One that is older is refused before (token-age.ts), unless its last second went by since.
    return withinSession(context, token, Math.max(1, cap - ageSeconds))
  },
  // Twice as long as it must, so that it is prolonged for a later code once in that time only (provider.ts).
  Grant: (context) => 2 * grantSeconds(context),
  Session: (_context, session) => (session.accountId === undefined ? anonymousSessionSeconds : sessionSeconds),
}

/** How long a grant must last from now on, for what is issued under it. */
export function grantSeconds(context: KoaContextWithOIDC | undefined): number {
  const tokens = accountOf(context)?.policy.tokens
  return Math.max(tokens?.refreshTokenTtl ?? refreshTokenSeconds, tokens?.accessTokenTtl ?? accessTokenSeconds)
}

type SessionToken = Parameters<typeof isJwt>[0] & { readonly expiresWithSession?: boolean | undefined }

/**
 * A token that ends with its session is not promised for longer than the session may last: nor, where nobody asks us about
 * it any more, than it would if its person did nothing from now on.
 */
function withinSession(context: KoaContextWithOIDC, token: SessionToken, seconds: number): number {
  const session = token.expiresWithSession === true ? sessionOfToken(context.req) : undefined
  if (!session) return seconds
  const { absoluteExpiresAt, idleExpiresAt, lastActivityAt, readAt } = session
  const policy = accountOf(context)?.policy
  // A policy that got stricter a moment ago may not be written into the session yet (sessions/tightening.ts).
  const idleMs = policy ? sessionLimits(policy).idleSeconds * 1_000 : Number.POSITIVE_INFINITY
  const idleEnd = Math.min(idleExpiresAt.getTime(), lastActivityAt.getTime() + idleMs)
  const end = Math.min(absoluteExpiresAt.getTime(), isJwt(token) ? idleEnd : Number.POSITIVE_INFINITY)
  return Math.max(1, Math.min(seconds, Math.floor((end - readAt.getTime()) / 1000)))
}
