// Logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4), signed with the key that signs ID tokens at this moment.
import { type CryptoKey, importJWK, type JWK, SignJWT } from 'jose'
import type { Keys } from '../oidc/keys.ts'

const tokenSeconds = 120
const event = 'http://schemas.openid.net/event/backchannel-logout'
/** Keys are announced for a minute before they sign, so one that is a few seconds old is right. */
const keysFreshMs = 5_000

export interface Logout {
  readonly deliveryId: string
  readonly clientId: string
  readonly accountId: string
  /** What the client knows the session by. */
  readonly sid: string | undefined
  /** The client's `id_token_signed_response_alg`. */
  readonly alg: string
}

export type SignLogoutToken = (logout: Logout) => Promise<string>

export function createLogoutTokens(parts: {
  readonly issuer: string
  readonly keys: Pick<Keys, 'load'>
  now(): Date
}): SignLogoutToken {
  const { issuer, keys, now } = parts
  let held: { readonly at: number; readonly jwks: Promise<readonly JWK[]> } | undefined
  // To import a key costs about as much as to sign with it, and many are told at once.
  const imported = new WeakMap<JWK, Promise<CryptoKey | Uint8Array>>()

  function toKey(jwk: JWK, alg: string): Promise<CryptoKey | Uint8Array> {
    const key = imported.get(jwk) ?? importJWK(jwk, alg)
    imported.set(jwk, key)
    return key
  }

  async function signingKey(alg: string): Promise<JWK> {
    const at = now().getTime()
    if (!held || Math.abs(at - held.at) > keysFreshMs) held = { at, jwks: keys.load().then(({ jwks }) => jwks) }
    const { jwks } = held
    const loaded = await jwks.catch((error: unknown) => {
      held = undefined
      throw error
    })
    const jwk = loaded.find((key) => key.alg === alg)
    if (!jwk) throw new Error(`there is no key for ${alg}`)
    return jwk
  }

  return async ({ deliveryId, clientId, accountId, sid, alg }) => {
    const jwk = await signingKey(alg)
    const issuedAt = Math.floor(now().getTime() / 1_000)
    // No nonce: §2.4 forbids it, so that nobody takes this for an ID token.
    return new SignJWT({ events: { [event]: {} }, ...(sid === undefined ? {} : { sid }) })
      .setProtectedHeader({ alg, typ: 'logout+jwt', ...(jwk.kid === undefined ? {} : { kid: jwk.kid }) })
      .setIssuer(issuer)
      .setAudience(clientId)
      .setSubject(accountId)
      .setIssuedAt(issuedAt)
      .setExpirationTime(issuedAt + tokenSeconds)
      .setJti(deliveryId)
      .sign(await toKey(jwk, alg))
  }
}
