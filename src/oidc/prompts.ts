// When the authorization endpoint asks a person to sign in again, and what it refuses without asking. How much a request
// asks for is in acr.ts; what a sign-in consists of is for the pages to say.
import { strict as assert } from 'node:assert'
import { errors, interactionPolicy, type KoaContextWithOIDC } from 'oidc-provider'
import { type AcrRequest, requiredAcr, satisfies } from './acr.ts'
import { accountOf, decisionOf } from './claims.ts'
import { browserSessionOf } from './request-session.ts'
import { scopesWith } from './scopes.ts'
import { sessionBreach } from './standing.ts'

const acrUnmet = 'acr_unmet'
const mfaUnmet = 'mfa_unmet'
const organizationUnchosen = 'organization_unchosen'
const networkUnmet = 'network_unmet'
/** Reasons of a prompt that only asks for more than the session has proven. Every other one asks for all anew. */
export const lighterReasons: ReadonlySet<string> = new Set([acrUnmet, mfaUnmet, organizationUnchosen, networkUnmet])

const { Check } = interactionPolicy

/** The provider's own prompts, with what this server adds to the login. */
export function prompts(): interactionPolicy.DefaultPolicy {
  const policy = interactionPolicy.base()
  const checks = policy.get('login')?.checks
  assert(checks, 'the provider has no login prompt')
  // These two compare the session's context as text, so that a stronger one fails, and they ask again without end when
  // the sign-in does not give it. They also never see an essential claim that comes together with acr_values, because
  // the provider puts the one in the place of the other. The check below decides all of it.
  checks.remove('essential_acr')
  checks.remove('essential_acrs')
  const consentChecks = policy.get('consent')?.checks
  assert(consentChecks, 'the provider has no consent prompt')
  // It would ask for claims by their names, whatever the app is registered for. Here people are asked for scopes.
  consentChecks.remove('op_claims_missing')
  consentChecks.add(
    new Check(
      'claims_missing',
      'requested claims not granted',
      'consent_required',
      (context) => missingClaimScopes(context).length > 0,
      (context) => ({ missingClaimScopes: missingClaimScopes(context) }),
    ),
  )
  checks.add(new Check('account_gone', 'the account of this session may not act any more', 'login_required', isGone))
  checks.add(new Check('organization_foreign', 'this session is not of that organisation', 'login_required', isForeign))
  checks.add(
    new Check(organizationUnchosen, 'an organisation is to be chosen', 'account_selection_required', isUnchosen),
  )
  checks.add(new Check('session_over', 'this session is too old for the organisation', 'login_required', isOver))
  checks.add(
    new Check('method_unmet', 'this sign-in is not one that the organisation takes', 'login_required', isMethodUnmet),
  )
  checks.add(new Check(mfaUnmet, 'the organisation asks for a second factor', 'login_required', breaks('mfa')))
  checks.add(
    new Check(networkUnmet, 'the organisation does not allow this network', 'access_denied', breaks('network')),
  )
  checks.add(new Check(acrUnmet, 'this session was signed in to more weakly than asked', 'login_required', isUnmet))
  return policy
}

/** The scopes of the claims that a request asks for by name, of those that the app was registered with. */
export function scopesOfAskedClaims({ oidc: { client, requestParamClaims } }: KoaContextWithOIDC): string[] {
  const registered = (client?.scope ?? '').split(' ')
  return scopesWith(requestParamClaims).filter((scope) => registered.includes(scope))
}

function missingClaimScopes(context: KoaContextWithOIDC): string[] {
  const granted = (context.oidc.grant?.getOIDCScope() ?? '').split(' ')
  return scopesOfAskedClaims(context).filter((scope) => !granted.includes(scope))
}

/** What the parameters of a request ask of a sign-in. */
export function acrRequestOf(params: Readonly<Record<string, unknown>> | undefined): AcrRequest {
  return requiredAcr({ acrValues: toText(params?.['acr_values']), claims: toText(params?.['claims']) })
}

function isGone({ oidc: { session, account } }: KoaContextWithOIDC): boolean {
  return session?.accountId !== undefined && account === undefined
}

/**
 * Whether the app asked for an organisation that the person of this session does not belong to: somebody else may sign in.
 * @throws AccessDenied when they just did
 */
function isForeign(context: KoaContextWithOIDC): boolean {
  if (decisionOf(context)?.kind !== 'foreign') return false
  if (context.oidc.result?.login) throw new errors.AccessDenied('this account does not belong to that organisation')
  return true
}

function isUnchosen(context: KoaContextWithOIDC): boolean {
  return decisionOf(context)?.kind === 'choose'
}

/** What the policy of now finds wanting in the session; it cannot be asked before the organisation is known. */
function breachIn(context: KoaContextWithOIDC) {
  const account = accountOf(context)
  if (!account || decisionOf(context)?.kind !== 'in') return undefined
  return sessionBreach(context, account.policy)
}

function breaks(breach: 'mfa' | 'network'): (context: KoaContextWithOIDC) => boolean {
  return (context) => breachIn(context) === breach
}

/**
 * The sign-in itself (login/flow.ts) gives no session by a method that the policy does not take.
 * @throws AccessDenied when the policy changed while somebody signed in
 */
function isMethodUnmet(context: KoaContextWithOIDC): boolean {
  if (breachIn(context) !== 'method') return false
  if (context.oidc.result?.login) throw new errors.AccessDenied('the organisation does not take this way of signing in')
  return true
}

function isOver(context: KoaContextWithOIDC): boolean {
  // Who just signed in begins the limits anew; who only chose an organisation or proved more does not.
  const { login } = context.oidc.result ?? {}
  if (login && login.ts !== browserSessionOf(context.req)?.payload['loginTs']) return false
  const breach = breachIn(context)
  return breach === 'idle' || breach === 'absolute'
}

/**
 * Whether the session is too weak for the request. It runs when the request arrives and again when a sign-in answered
 * it, before any code.
 * @throws InvalidRequest for a claim that cannot be read
 * @throws UnmetAuthenticationRequirements (OpenID Connect Core Error Code unmet_authentication_requirements 1.0) for an
 * essential context that this server does not know, and for a sign-in that ended below what was asked: asking again
 * would ask for ever
 */
function isUnmet({ oidc: { session, result, params } }: KoaContextWithOIDC): boolean {
  const request = acrRequestOf(params)
  if (!request.ok) {
    if (request.reason === 'malformed') throw new errors.InvalidRequest('claims.id_token.acr cannot be read')
    throw new errors.UnmetAuthenticationRequirements('none of the essential acr values is known here')
  }
  if (request.least === undefined || satisfies(session?.acr, request.least)) return false
  if (result?.login) throw new errors.UnmetAuthenticationRequirements('the sign-in did not reach the acr asked for')
  return true
}

function toText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
