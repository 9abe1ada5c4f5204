// The integration itself: everything this app knows about its identity provider, written with openid-client.
import * as oidc from 'openid-client'

export interface OidcOptions {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** Address of this app; its callback is registered with the provider. */
  readonly appUrl: string
}

/** What the app must remember between sending a person away and their return. */
export interface Pending {
  readonly verifier: string
  readonly state: string
  readonly nonce: string
}

/** A signed-in person and the tokens that act for them. Tokens stay on the server. */
export interface SignedIn {
  readonly claims: Readonly<Record<string, unknown>>
  readonly name: string
  readonly idToken: string
  readonly accessToken: string
  readonly refreshToken: string | undefined
  readonly expiresAt: Date
}

const scope = 'openid profile email offline_access'

/** Discovers the provider at first use and tries again next time if that failed: it may start after this app. */
export function createDiscovery(
  issuer: string,
  clientId: string,
  clientSecret: string,
): () => Promise<oidc.Configuration> {
  let found: Promise<oidc.Configuration> | undefined
  // http is for a provider on this very machine; a real one has https.
  const execute = issuer.startsWith('http:') ? [oidc.allowInsecureRequests] : []
  return () => {
    found ??= oidc.discovery(new URL(issuer), clientId, undefined, oidc.ClientSecretBasic(clientSecret), { execute })
    found.catch(() => {
      found = undefined
    })
    return found
  }
}

export function createOidc({ issuer, clientId, clientSecret, appUrl }: OidcOptions) {
  const discover = createDiscovery(issuer, clientId, clientSecret)
  return {
    /** Where to send the browser, and what to remember until it comes back. */
    async begin(extra: Readonly<Record<string, string>>): Promise<{ url: URL; pending: Pending }> {
      const pending = { verifier: oidc.randomPKCECodeVerifier(), state: oidc.randomState(), nonce: oidc.randomNonce() }
      const url = oidc.buildAuthorizationUrl(await discover(), {
        redirect_uri: `${appUrl}/callback`,
        scope,
        state: pending.state,
        nonce: pending.nonce,
        code_challenge: await oidc.calculatePKCECodeChallenge(pending.verifier),
        code_challenge_method: 'S256',
        ...extra,
      })
      return { url, pending }
    },

    /** Redeems the code in the address that the browser came back to. openid-client checks state, nonce, issuer and signature. */
    async complete(callback: URL, pending: Pending): Promise<SignedIn> {
      const config = await discover()
      const tokens = await oidc.authorizationCodeGrant(config, callback, {
        pkceCodeVerifier: pending.verifier,
        expectedState: pending.state,
        expectedNonce: pending.nonce,
        idTokenExpected: true,
      })
      const claims = { ...tokens.claims() }
      const profile = await oidc.fetchUserInfo(config, tokens.access_token, String(claims['sub']))
      return {
        claims,
        name: profile.name ?? 'Unknown person',
        idToken: tokens.id_token ?? '',
        accessToken: tokens.access_token,
        refreshToken: tokens.refresh_token,
        expiresAt: new Date(Date.now() + (tokens.expiresIn() ?? 0) * 1000),
      }
    },

    async refresh(signedIn: SignedIn): Promise<SignedIn> {
      const tokens = await oidc.refreshTokenGrant(await discover(), signedIn.refreshToken ?? '')
      return {
        ...signedIn,
        accessToken: tokens.access_token,
        refreshToken: tokens.refresh_token ?? signedIn.refreshToken,
        expiresAt: new Date(Date.now() + (tokens.expiresIn() ?? 0) * 1000),
      }
    },

    async signOutUrl(signedIn: SignedIn): Promise<URL> {
      return oidc.buildEndSessionUrl(await discover(), {
        id_token_hint: signedIn.idToken,
        post_logout_redirect_uri: `${appUrl}/`,
      })
    },
  }
}
