// What a client signs, beyond what the provider asks of it: client assertions (RFC 7523 §3), request objects (RFC 9101) and
// DPoP proofs (RFC 9449). The hooks of the first two are told of what was found well signed by a key of this client, except
// for what a request object says first.
import { decodeJwt } from 'jose'
import { type Configuration, errors } from 'oidc-provider'

type ClientAssertionHook = NonNullable<Configuration['assertJwtClientAuthClaimsAndHeader']>
type Client = Parameters<ClientAssertionHook>[3]
type Members = Parameters<ClientAssertionHook>[1]

/** For what others sign. What is stored expires by the database's clock, to the second. */
export const clockToleranceSeconds = 10
/** SMART App Launch 2.2, Asymmetric Client Authentication: `exp` is no more than five minutes in the future. */
const longestAheadSeconds = 300
/** FAPI 2.0 Security Profile §5.4.1. The provider looks at what the key says of itself, and it may say nothing. */
const fapi2Algorithms: ReadonlySet<unknown> = new Set(['PS256', 'ES256', 'Ed25519', 'EdDSA'])
/** FAPI 2.0 Security Profile §5.3.2.1. */
const latestIssueSeconds = 60
const fapi2LongestRequestSeconds = 3_600
/** Keys come from the registration alone, never from who signs (RFC 7515 §4.1, F10). */
const keyMembers = ['jwk', 'x5u', 'x5c'] as const

const isFapi2 = (client: Client) => client['profile'] === 'fapi2'

/** @throws InvalidClientAuth, whose words go to the log and not to the client */
export const assertClientAssertion: ClientAssertionHook = ({ oidc }, claims, header, client) => {
  const problem = assertionProblem(claims, header, { client, issuer: oidc.issuer, nowSeconds: Date.now() / 1_000 })
  if (problem !== undefined) throw new errors.InvalidClientAuth(problem)
}

function assertionProblem(
  { aud, exp, iat }: Members,
  header: Members,
  { client, issuer, nowSeconds }: { client: Client; issuer: string; nowSeconds: number },
): string | undefined {
  if (keyMembers.some((member) => Object.hasOwn(header, member))) return 'the client_assertion must not bring its key'
  // SMART lets a client repeat what it registered; we do not look there for it.
  if (Object.hasOwn(header, 'jku') && header['jku'] !== client.jwksUri)
    return 'jku of the client_assertion must be the registered jwks_uri'
  if (Number(exp) > nowSeconds + longestAheadSeconds + clockToleranceSeconds)
    return `exp of the client_assertion must be at most ${longestAheadSeconds} seconds ahead`
  if (!isFapi2(client)) return undefined
  if (!fapi2Algorithms.has(header['alg'])) return 'alg mismatch'
  if (aud !== issuer) return 'audience (aud) must equal the issuer identifier url'
  if (iat !== undefined && Number(iat) > nowSeconds + latestIssueSeconds)
    return 'the client_assertion was issued in the future'
  return undefined
}

type RequestObjectHook = NonNullable<
  NonNullable<NonNullable<Configuration['features']>['requestObjects']>['assertJwtClaimsAndHeader']
>

/** Stands in the place of the provider's own rules, which are those of FAPI 2.0 Message Signing §5.3.1. */
export const assertRequestObject: RequestObjectHook = ({ oidc }, claims, header, client) => {
  // What was pushed was judged then; the provider keeps it as a request object, an unsigned one where there was none.
  if (!isFapi2(client) || oidc.entities.PushedAuthorizationRequest) return
  if (!fapi2Algorithms.has(header['alg'])) throw new errors.InvalidRequestObject('unsupported signed request alg')
  for (const claim of ['exp', 'aud', 'nbf'])
    if (claims[claim] === undefined)
      throw new errors.InvalidRequestObject(`Request Object is missing the '${claim}' claim`)
  if (claims['iat'] !== undefined && Number(claims['iat']) > Date.now() / 1_000 + latestIssueSeconds)
    throw new errors.InvalidRequestObject('the Request Object was issued in the future')
  const seconds = Number(claims['exp']) - Number(claims['nbf'])
  if (!(seconds > 0 && seconds <= fapi2LongestRequestSeconds))
    throw new errors.InvalidRequestObject("Request Object 'exp' claim too far from 'nbf' claim")
}

type NonceHook = NonNullable<NonNullable<NonNullable<Configuration['features']>['dPoP']>['requireNonce']>

/**
 * The provider takes a proof of the next five minutes, and with a nonce one of any time. This hook is asked before it looks
 * at a proof, wherever one comes in, and no proof needs a nonce. The rule is one for every client: at userinfo nobody knows
 * yet whose the token is, and APIs that use our package refuse such a proof too.
 * @throws InvalidDpopProof
 */
export const refuseEarlyProof: NonceHook = (context) => {
  if (issuedAt(context.get('DPoP')) > Date.now() / 1_000 + latestIssueSeconds)
    throw new errors.InvalidDpopProof('DPoP proof was issued in the future')
  return false
}

/** What cannot be read is the provider's to refuse. */
function issuedAt(proof: string): number {
  try {
    return Number(decodeJwt(proof).iat)
  } catch {
    return Number.NaN
  }
}
