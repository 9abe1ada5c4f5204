// The integration itself: everything this app knows about its identity provider, written with openid-client.
import * as oidc from 'openid-client'
import { z } from 'zod'

export interface OidcOptions {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** Address of this app; its callback is registered with the provider. */
  readonly appUrl: string
}

/** What a link to /login may ask of the provider. What makes no sense is left out. */
export const signInWishes = z.object({
  prompt: z.string().max(64).optional().catch(undefined),
  max_age: z
    .string()
    .regex(/^\d{1,9}$/)
    .optional()
    .catch(undefined),
  login_hint: z.string().max(320).optional().catch(undefined),
})
export type SignInWishes = z.infer<typeof signInWishes>

/** What the app must remember between sending a person away and their return. */
export interface Pending {
  readonly verifier: string
  readonly state: string
  readonly nonce: string
  readonly maxAgeSeconds: number | undefined
}

const personClaims = z.object({
  sub: z.string(),
  org_slug: z.string().optional(),
  roles: z.array(z.string()).default([]),
  acr: z.string().optional(),
})

/** A signed-in person and the tokens that act for them. Tokens stay on the server. */
export interface SignedIn {
  readonly claims: z.infer<typeof personClaims>
  readonly name: string
  readonly idToken: string
  readonly accessToken: string
  readonly refreshToken: string | undefined
  readonly expiresAt: Date
}

// No offline_access: what the app may do ends with the session of whoever sits at the ward's PC.
const scope = 'openid profile email'
const timeoutSeconds = 5

/** Discovers the provider at first use and tries again next time if that failed: it may start after this app. */
function createDiscovery(issuer: string, clientId: string, clientSecret: string): () => Promise<oidc.Configuration> {
  let found: Promise<oidc.Configuration> | undefined
  // http is for a provider on this very machine; a real one has https.
  const execute = issuer.startsWith('http:') ? [oidc.allowInsecureRequests] : []
  const options = { execute, timeout: timeoutSeconds }
  return () => {
    if (found) return found
    const attempt = oidc.discovery(new URL(issuer), clientId, undefined, oidc.ClientSecretBasic(clientSecret), options)
    attempt.catch(() => {
      found = undefined
    })
    found = attempt
    return attempt
  }
}

/** The four things an app asks of its provider: begin and complete a sign-in, refresh, sign out. */
export function createOidc({ issuer, clientId, clientSecret, appUrl }: OidcOptions) {
  const discover = createDiscovery(issuer, clientId, clientSecret)
  return {
    /** Where to send the browser, and what to remember until it comes back. */
    async begin(wishes: SignInWishes): Promise<{ url: URL; pending: Pending }> {
      const verifier = oidc.randomPKCECodeVerifier()
      const state = oidc.randomState()
      const nonce = oidc.randomNonce()
      const url = oidc.buildAuthorizationUrl(await discover(), {
        redirect_uri: `${appUrl}/callback`,
        scope,
        state,
        nonce,
        code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
        ...(wishes.prompt === undefined ? {} : { prompt: wishes.prompt }),
        ...(wishes.max_age === undefined ? {} : { max_age: wishes.max_age }),
        ...(wishes.login_hint === undefined ? {} : { login_hint: wishes.login_hint }),
      })
      const maxAgeSeconds = wishes.max_age === undefined ? undefined : Number(wishes.max_age)
      return { url, pending: { verifier, state, nonce, maxAgeSeconds } }
    },

    /** Redeems the code in the address that the browser came back to. openid-client checks state, nonce, issuer and signature. */
    async complete(callback: URL, pending: Pending): Promise<SignedIn> {
      const config = await discover()
      const tokens = await oidc.authorizationCodeGrant(config, callback, {
        pkceCodeVerifier: pending.verifier,
        expectedState: pending.state,
        expectedNonce: pending.nonce,
        idTokenExpected: true,
        // The browser carried max_age and may have removed it; only auth_time shows how old the sign-in is.
        ...(pending.maxAgeSeconds === undefined ? {} : { maxAge: pending.maxAgeSeconds }),
      })
      const claims = personClaims.parse(tokens.claims())
      const profile = await oidc.fetchUserInfo(config, tokens.access_token, claims.sub)
      return {
        claims,
        name: profile.name ?? profile.email ?? claims.sub,
        idToken: tokens.id_token ?? '',
        accessToken: tokens.access_token,
        refreshToken: tokens.refresh_token,
        expiresAt: expiry(tokens),
      }
    },

    /** New tokens, or nothing when the provider says that this sign-in is over. Throws when it does not answer. */
    async refresh(signedIn: SignedIn): Promise<SignedIn | undefined> {
      try {
        const tokens = await oidc.refreshTokenGrant(await discover(), signedIn.refreshToken ?? '')
        return {
          ...signedIn,
          accessToken: tokens.access_token,
          refreshToken: tokens.refresh_token ?? signedIn.refreshToken,
          expiresAt: expiry(tokens),
        }
      } catch (error) {
        if (errorCode(error) === 'invalid_grant') return undefined
        throw error
      }
    },

    /** Where to send the browser so that the person is signed out at the provider too. */
    async signOutUrl(signedIn: SignedIn): Promise<URL> {
      return oidc.buildEndSessionUrl(await discover(), {
        id_token_hint: signedIn.idToken,
        post_logout_redirect_uri: `${appUrl}/`,
      })
    },
  }
}

/** The provider's own error code, such as access_denied, if it gave one. */
export function errorCode(error: unknown): string | undefined {
  const isAnswer = error instanceof oidc.AuthorizationResponseError || error instanceof oidc.ResponseBodyError
  return isAnswer ? error.error : undefined
}

function expiry(tokens: oidc.TokenEndpointResponseHelpers): Date {
  return new Date(Date.now() + (tokens.expiresIn() ?? 0) * 1000)
}
