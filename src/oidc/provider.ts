// The provider's configuration: what oidc-provider does for us and by which rules. It is built again when keys change.

import type { JWK } from 'jose'
import type { Configuration, KoaContextWithOIDC, Provider } from 'oidc-provider'
import type { Accounts } from '../accounts/accounts.ts'
import type { AuditEvent } from '../audit/events.ts'
import { type Clients, supportedScopes } from '../clients/clients.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import type { Db } from '../db/database.ts'
import { withScope } from '../db/transaction.ts'
import { originOf } from '../http/origin.ts'
import type { Outbound } from '../http/outbound.ts'
import type { Activity } from '../sessions/activity.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { acrs } from './acr.ts'
import { createAdapterFactory } from './adapter.ts'
import { sessionCookieName } from './browser-session.ts'
import { accountClaims } from './claims.ts'
import { assertClientAssertion, clockToleranceSeconds } from './client-signatures.ts'
import { countCodeFailure } from './code-failures.ts'
import type { Consents } from './consents.ts'
import { devicePath, showCodeOfLink } from './device.ts'
import type { DeviceCodes } from './device-codes.ts'
import { answerFaults } from './faults.ts'
import { features } from './features.ts'
import {
  acceptWhoIsLetIn,
  alwaysIncludeSid,
  compareClientSecretsByDigest,
  createProviderWith,
  forgetStaleKeys,
  keepOwnMembers,
  leaveLogoutToTheOutbox,
  pinUrlsToIssuer,
  reportSatisfiedAcr,
} from './internals.ts'
import type { FindIntrospected } from './introspected.ts'
import type { IntrospectionPolicy } from './introspection.ts'
import { acceptIntrospectionBearer } from './introspection-bearer.ts'
import { createJwtTokens } from './jwt-tokens.ts'
import { grantSeconds, lifetimes } from './lifetimes.ts'
import type { ProtocolPages } from './pages.ts'
import { prompts, scopesOfAskedClaims } from './prompts.ts'
import { createProviderFetch } from './provider-fetch.ts'
import { sessionOfToken } from './request-session.ts'
import { addScopes, missingScopes, type ScopeRequest } from './resources.ts'
import { claimsByScope } from './scopes.ts'
import type { Standings } from './standing.ts'
import type { PayloadStore } from './store.ts'
import { isProviders } from './token-events.ts'

export interface ProviderParts {
  readonly issuer: string
  readonly secrets: Secrets
  readonly db: Db
  readonly payloads: PayloadStore
  readonly sessions: Sessions
  readonly clients: Clients
  readonly accounts: Accounts
  readonly standings: Standings
  readonly introspected: FindIntrospected
  readonly mayIntrospect: IntrospectionPolicy
  readonly consents: Consents
  readonly deviceCodes: DeviceCodes
  readonly activity: Activity
  readonly pages: ProtocolPages
  readonly outbound: Pick<Outbound, 'get'>
  record(event: AuditEvent): Promise<void>
  /** Told of what failed on our side, for the log. */
  onFault(error: unknown): void
}

export const authorizePath = '/oauth/authorize'
/** Our own pages under /account as a relying party. It stands in no table, so nobody can register or change it. */
export const accountClientId = 'mlpipes-account'

const signingAlgorithms = ['RS256', 'ES256'] as const
const clientAuthMethods = ['client_secret_basic', 'client_secret_post', 'private_key_jwt'] as const
const clientAuthAlgorithms = ['RS256', 'RS384', 'PS256', 'ES256', 'ES384', 'Ed25519'] as const
/** Where a person's app uses what it was given. */
const tokenRoutes = new Set(['token', 'userinfo'])
/** What a refresh token may come of. */
const refreshable: ReadonlySet<string | undefined> = new Set(['AuthorizationCode', 'DeviceCode'])
// Routes whose statements belong together; each opens its transaction at the first that needs one.
const transactionalRoutes = new Set(['/oauth/token', '/oauth/revoke', '/oauth/logout/confirm'])

/** Builds a provider over these private keys, the signing ones first. Throws when there is none. */
export function createProvider(parts: ProviderParts, jwks: readonly JWK[]): Provider {
  if (jwks.length === 0) throw new Error('there are no signing keys')
  const provider = createProviderWith(parts.pages.goingBack, parts.issuer, configuration(parts, jwks))
  // Forwarded headers are set by our own edge, never by the network (see mount.ts).
  provider.proxy = true
  pinUrlsToIssuer(provider)
  alwaysIncludeSid(provider)
  reportSatisfiedAcr(provider)
  leaveLogoutToTheOutbox(provider)
  keepOwnMembers(provider)
  compareClientSecretsByDigest(provider, parts.secrets)
  acceptWhoIsLetIn(provider)
  forgetStaleKeys(provider)
  answerFaults(provider, parts)
  showCodeOfLink(provider, parts.pages)
  provider.use(async (context, next) => {
    const path = context.path.toLowerCase().replace(/\/$/, '')
    if (!transactionalRoutes.has(path)) return next()
    const work = async () => {
      await next()
      if (isProviders(context)) await countCodeFailure(parts.db, context)
    }
    return withScope(parts.db, work, () => context.status < 500 && !isUntouched(context))
  })
  provider.use(async (context, next) => {
    await next()
    // RFC 6749 §5.1 and SMART App Launch want both headers on a token response.
    if (String(context.response.get('cache-control') ?? '').includes('no-store')) context.set('Pragma', 'no-cache')
  })
  acceptIntrospectionBearer(provider)
  return provider
}

/**
 * Whether what was sent to be spent is to stay as it was. The provider looks at the resource last, when it has spent the code or
 * refresh token: an app that named a wrong one would lose its people by it, as the next try is that of a token used before.
 */
function isUntouched({ body }: { readonly body: unknown }): boolean {
  return Reflect.get(Object(body), 'error') === 'invalid_target'
}

function adapterFactory(parts: ProviderParts): ReturnType<typeof createAdapterFactory> {
  const create = createAdapterFactory(parts)
  return (model) => (model === 'DeviceCode' ? parts.deviceCodes.adapter(create(model)) : create(model))
}

function configuration(parts: ProviderParts, jwks: readonly JWK[]): Configuration {
  const secure = parts.issuer.startsWith('https://')
  const cookie = { signed: true, httpOnly: true, secure, sameSite: 'lax', overwrite: true } as const
  return {
    adapter: adapterFactory(parts),
    jwks: { keys: [...jwks] as NonNullable<Configuration['jwks']>['keys'] },
    clients: [accountClient(parts.issuer)],
    cookies: {
      keys: [...parts.secrets.cookieKeys],
      names: {
        session: sessionCookieName(parts.issuer),
        interaction: secure ? '__Secure-mlpipes_interaction' : 'mlpipes_interaction',
        resume: secure ? '__Secure-mlpipes_resume' : 'mlpipes_resume',
      },
      long: { ...cookie, path: '/' },
      short: cookie,
    },
    routes: {
      authorization: authorizePath,
      token: '/oauth/token',
      device_authorization: '/oauth/device',
      code_verification: devicePath,
      userinfo: '/oauth/userinfo',
      jwks: '/oauth/jwks',
      introspection: '/oauth/introspect',
      pushed_authorization_request: '/oauth/par',
      revocation: '/oauth/revoke',
      end_session: '/oauth/logout',
    },
    discovery: discovery(parts.issuer),
    responseTypes: ['code'],
    scopes: [...supportedScopes],
    claims: { openid: [...claimsByScope.openid], profile: [...claimsByScope.profile], email: [...claimsByScope.email] },
    acrValues: [...acrs],
    subjectTypes: ['public'],
    clientAuthMethods: [...clientAuthMethods, 'none'],
    enabledJWA: {
      idTokenSigningAlgValues: [...signingAlgorithms],
      clientAuthSigningAlgValues: [...clientAuthAlgorithms],
      userinfoSigningAlgValues: [...signingAlgorithms],
      introspectionSigningAlgValues: [...signingAlgorithms],
      requestObjectSigningAlgValues: ['RS256', 'PS256', 'ES256'],
    },
    // RFC 9700 §2.1: a redirect URI is always said and always compared.
    allowOmittingSingleRegisteredRedirectUri: false,
    clockTolerance: clockToleranceSeconds,
    conformIdTokenClaims: true,
    // Which of their organisations somebody signs in to, by its slug.
    extraParams: ['organization'],
    extraClientMetadata: {
      properties: [
        'access_token_format',
        'introspection',
        'session_activity',
        'first_party',
        'profile',
        'organization_id',
        'organization_name',
        'organization_policy',
        'previous_secret',
      ],
    },
    pkce: { required: (_context, client) => client['profile'] !== 'oidc-certification' },
    // FAPI 2.0 Security Profile §5.3.2.1: no rotation; its tokens are bound to the client's key instead.
    rotateRefreshToken: ({ oidc }) => oidc.client?.['profile'] !== 'fapi2',
    // A refresh token without offline_access dies with the session; with it, it outlives a sign-out.
    issueRefreshToken: async (_context, client, code) =>
      client.grantTypeAllowed('refresh_token') && refreshable.has(code.kind),
    expiresWithSession: async (_context, token) => !token.scopes.has('offline_access'),
    findAccount: async (context, id, token) => {
      const found = await parts.standings.findAccount(context, id, token)
      // userinfo and the refresh grant: the session of the token was read a moment ago.
      const session = sessionOfToken(context.req)
      if (found && session && tokenRoutes.has(String(context.oidc.route)))
        await parts.activity.used(session, found.account.policy)
      return found
    },
    loadExistingGrant: (context) => loadExistingGrant(context, parts),
    extraTokenClaims: async (context, token) => accountClaims(context, token),
    ttl: lifetimes,
    features: features(parts),
    interactions: { policy: prompts(), url: (_context, interaction) => `/interaction/${interaction.uid}` },
    renderError: parts.pages.error,
    assertJwtClientAuthClaimsAndHeader: assertClientAssertion,
    // By our own rules for whom this server calls, up to which size and for how long (F78).
    fetch: createProviderFetch(parts.outbound),
    formats: { bitsOfOpaqueRandomness: 256, customizers: { jwt: createJwtTokens(parts) } },
  }
}

/** What discovery says beside what the provider does (RFC 8414 §2). */
function discovery(issuer: string): Record<string, string | string[]> {
  return {
    // Answered by registration/routes.ts, past the provider.
    registration_endpoint: `${issuer}/oauth/register`,
    // Nobody is told of tokens without saying who they are; `Bearer` is introspection-bearer.ts.
    introspection_endpoint_auth_methods_supported: [...clientAuthMethods, 'Bearer'],
    introspection_endpoint_auth_signing_alg_values_supported: [...clientAuthAlgorithms],
    // An app without a secret takes its own tokens back.
    revocation_endpoint_auth_methods_supported: [...clientAuthMethods, 'none'],
    revocation_endpoint_auth_signing_alg_values_supported: [...clientAuthAlgorithms],
  }
}

/** The client that brings somebody to /account. Its codes are not redeemed: the session is what counts there. */
function accountClient(issuer: string) {
  return {
    client_id: accountClientId,
    client_name: 'MLPipes account',
    redirect_uris: [`${issuer}/account/callback`],
    grant_types: ['authorization_code'],
    response_types: ['code' as const],
    token_endpoint_auth_method: 'none' as const,
    scope: 'openid',
    first_party: true,
    introspection: 'none',
    profile: 'standard',
  }
}

/** The grant of this session and client, or a new one from what the person allowed this client before. */
async function loadExistingGrant(
  context: KoaContextWithOIDC,
  { issuer, consents, payloads }: Pick<ProviderParts, 'issuer' | 'consents' | 'payloads'>,
) {
  const { client, session, provider, result, params } = context.oidc
  const asked = () => [...String(params?.['scope'] ?? '').split(' '), ...scopesOfAskedClaims(context)].filter(Boolean)
  if (!client || !session?.accountId) return undefined
  const grantId = result?.consent?.grantId ?? session.grantIdFor(client.clientId)
  const existing = grantId === undefined ? undefined : await provider.Grant.find(grantId)
  if (existing) {
    const due = client['first_party'] === true ? asked() : existing.getOIDCScope().split(' ').filter(Boolean)
    await complete(existing, due, { issuer, client, params })
    // What is issued under it by a later code of the same session must not end with the first.
    const seconds = grantSeconds(context)
    if (Number(existing.exp) < Date.now() / 1000 + seconds)
      await payloads.prolong('Grant', sha256(existing.jti), 2 * seconds)
    return existing
  }
  const allowed = client['first_party'] === true ? asked() : await consents.find(session.accountId, client.clientId)
  if (allowed.length === 0) return undefined
  const grant = new provider.Grant({ accountId: session.accountId, clientId: client.clientId })
  addScopes(grant, allowed, { issuer, client, params })
  await grant.save()
  return grant
}

/** Gives a grant what nobody needs to be asked for: all to the first party, and to others what they have in another form. */
async function complete(grant: Grant, scopes: readonly string[], request: ScopeRequest) {
  const missing = missingScopes(grant, scopes, request)
  if (missing.length === 0) return
  addScopes(grant, missing, request)
  await grant.save()
}

type Grant = InstanceType<Provider['Grant']>

/** Records what the provider refuses at the authorization and token endpoints. */
export function recordRefusals(
  provider: Provider,
  record: (event: AuditEvent) => Promise<void>,
  onError: (error: unknown) => void,
): void {
  provider.on('authorization.error', (context, error) => {
    record({
      name: 'authorization.refused',
      outcome: 'failure',
      actor: { type: 'anonymous' },
      clientId: context.oidc.client?.clientId,
      origin: originOf(context.req),
      details: { error: error.message.slice(0, 64), detail: (error.error_description ?? '').slice(0, 200) },
    }).catch(onError)
  })
}
