// Looks at a request and says whose token it brings, or how to refuse it. When the issuer does not say, nobody comes in.
import { createCache } from './cache.ts'
import { createConnection } from './connection.ts'
import {
  checkProof,
  createReplayMemory,
  type ProofAlgorithm,
  type ProofRules,
  proofAlgorithms,
  type ReplayMemory,
} from './dpop.ts'
import { type Credentials, createIntrospection, isSafeAddress } from './introspection.ts'
import { type Presented, type RequestLike, readAuthorization } from './request.ts'
import { toAccessToken } from './token.ts'
import { type AccessToken, challenge, type Reason, type Refusal, type Verdict } from './verdict.ts'

/** Longer than this no answer is kept: it is what everybody is promised about a token that died. */
export const maxCacheSeconds = 5
const retrySeconds = 5

interface Settings {
  /** As it names itself, such as https://auth.example. */
  readonly issuer: string
  /** What this API is called in `aud`. Given, only tokens for it are taken. */
  readonly audience?: string
  /** The apps whose tokens are taken; all that the issuer tells about, unless given. */
  readonly acceptedClients?: readonly string[]
  /** How long a good answer is kept: 0 (the default) to 5. */
  readonly cacheSeconds?: number
  readonly maxCachedTokens?: number
  /** How long the issuer may take: 100 to 5,000. */
  readonly timeoutMs?: number
  /** Connections to the issuer at a time. */
  readonly maxSockets?: number
  /** Tokens bound to a key are taken only when this is given. */
  readonly dpop?: DpopSettings
  /** Told why the issuer could not be asked: the caller hears only that. Never of a token. */
  readonly onProblem?: (error: unknown) => void
}

export interface DpopSettings {
  /** Where clients reach this API, such as https://api.example. What a request says of its own host is not believed. */
  readonly origin: string
  readonly algorithms?: readonly ProofAlgorithm[]
  /** How far from now a proof may say it was made: 1 to 300. */
  readonly windowSeconds?: number
  readonly replayMemory?: ReplayMemory
}

export type VerifierOptions = Settings & Credentials

export interface Verifier {
  verify(request: RequestLike): Promise<Verdict>
  /** Closes the connections to the issuer. */
  close(): void
}

export function createVerifier(options: VerifierOptions): Verifier {
  checkOptions(options)
  const connection = createConnection({ timeoutMs: options.timeoutMs ?? 2_000, maxSockets: options.maxSockets ?? 64 })
  const introspect = createIntrospection({ issuer: options.issuer, credentials: options, connection })
  const find = createCache(async (token) => toAccessToken(await introspect(token)), {
    keepMs: (options.cacheSeconds ?? 0) * 1000,
    maxEntries: options.maxCachedTokens ?? 10_000,
  })
  const binding = options.dpop && createBinding(options.dpop)
  const refuse = createRefusals(binding?.rules.algorithms)

  async function verify(request: RequestLike): Promise<Verdict> {
    const presented = readAuthorization(request)
    if (typeof presented === 'string') return refuse(presented)
    let token: AccessToken | undefined
    try {
      token = await find(presented.token)
    } catch (error) {
      options.onProblem?.(error)
      return refuse('issuer_unavailable')
    }
    if (!token) return refuse('inactive', presented)
    const reason = tokenProblem(token, options) ?? (await bindingProblem(request, presented, token, binding))
    return reason === undefined ? { ok: true, token } : refuse(reason, presented, token)
  }

  return { verify, close: connection.close }
}

/** Of a token that is active: whether it is for this API. */
function tokenProblem(token: AccessToken, options: VerifierOptions): Reason | undefined {
  // A refresh token is active too, but has no type (RFC 7662 §2.2): it is not for resource servers.
  if (token.token_type === '') return 'not_an_access_token'
  if (token.iss !== undefined && token.iss !== options.issuer) return 'wrong_issuer'
  if (!isForHere(token.aud, options)) return 'wrong_audience'
  if (options.acceptedClients && !options.acceptedClients.includes(token.client_id)) return 'wrong_client'
  return undefined
}

/**
 * RFC 8707 §2: a token for somebody else opens nothing here. One for all APIs of an organisation does, as the issuer tells
 * of it to that organisation alone, and so does one for nobody in particular, unless we have a name.
 */
function isForHere(audience: AccessToken['aud'], options: VerifierOptions): boolean {
  const named = audience === undefined ? [] : [audience].flat()
  if (options.audience !== undefined) return named.includes(options.audience)
  const clientId = 'clientId' in options ? options.clientId : undefined
  const ours = clientId ? [clientId, `${options.issuer}/apis/${clientId}`] : []
  return (
    audience === undefined ||
    named.some((name) => name.startsWith(`${options.issuer}/organizations/`) || ours.includes(name))
  )
}

interface Binding {
  readonly origin: string
  readonly rules: ProofRules
  readonly memory: ReplayMemory
}

function createBinding(settings: DpopSettings): Binding {
  return {
    origin: new URL(settings.origin).origin,
    rules: { algorithms: settings.algorithms ?? proofAlgorithms, windowSeconds: settings.windowSeconds ?? 60 },
    memory: settings.replayMemory ?? createReplayMemory(100_000),
  }
}

/** RFC 9449 §7.1: a bound token comes with a proof of its key, and never as if it were anybody's. */
async function bindingProblem(
  request: RequestLike,
  { scheme, token: accessToken, proof }: Presented,
  { cnf }: AccessToken,
  binding: Binding | undefined,
): Promise<Reason | undefined> {
  const jkt = cnf?.jkt
  // Bound to something that we do not check, such as a certificate (RFC 8705).
  if (cnf && jkt === undefined) return 'unsupported_binding'
  if (jkt === undefined) return scheme === 'bearer' ? undefined : 'not_bound'
  if (!binding) return 'dpop_not_offered'
  if (scheme === 'bearer' || proof === undefined) return 'proof_required'
  const url = addressOf(request.url ?? '/', binding.origin)
  if (!url) return 'invalid_proof'
  const checked = checkProof(proof, { method: request.method ?? '', url, accessToken, jkt }, binding.rules)
  if (!checked) return 'invalid_proof'
  const isFirst = await binding.memory.claim(checked.id, checked.untilMs)
  if (isFirst === 'full') return 'replay_memory_full'
  return isFirst ? undefined : 'replayed_proof'
}

/** What the client must have asked for, whatever the request says of its host. A path may begin with two slashes. */
function addressOf(url: string, origin: string): URL | null {
  const path = url.startsWith('/') ? url : URL.parse(url)?.pathname
  return path === undefined ? null : URL.parse(`${origin}${path}`)
}

const proofReasons: readonly Reason[] = ['invalid_proof', 'replayed_proof']

function createRefusals(algorithms: readonly ProofAlgorithm[] | undefined) {
  const algs = algorithms?.join(' ')
  return (reason: Reason, presented?: Presented, token?: AccessToken): Refusal => {
    if (reason === 'issuer_unavailable' || reason === 'replay_memory_full')
      return { ok: false, status: 503, reason, retryAfterSeconds: retrySeconds }
    const refusal = { ok: false, status: 401, reason } as const
    // RFC 6750 §3.1: who has shown no token is told what is taken, and no error.
    if (!presented) {
      const offered = algs === undefined ? [] : [challenge('DPoP', { algs })]
      return { ...refusal, wwwAuthenticate: [challenge('Bearer', { realm: 'api' }), ...offered].join(', ') }
    }
    const isDpop = algs !== undefined && (presented.scheme === 'dpop' || token?.cnf?.jkt !== undefined)
    const error = proofReasons.includes(reason) ? 'invalid_dpop_proof' : 'invalid_token'
    return { ...refusal, wwwAuthenticate: isDpop ? challenge('DPoP', { error, algs }) : challenge('Bearer', { error }) }
  }
}

/** A wrong setting is a bug of whoever wrote it: it stops the start. */
function checkOptions(options: VerifierOptions): void {
  const issuer = URL.parse(options.issuer)
  if (!issuer || !isSafeAddress(issuer)) throw new TypeError('issuer must be an https URL (http only for localhost)')
  const ranges: readonly [string, number | undefined, number, number][] = [
    ['cacheSeconds', options.cacheSeconds, 0, maxCacheSeconds],
    ['maxCachedTokens', options.maxCachedTokens, 1, 1_000_000],
    ['timeoutMs', options.timeoutMs, 100, 5_000],
    ['maxSockets', options.maxSockets, 1, 1_024],
    ['dpop.windowSeconds', options.dpop?.windowSeconds, 1, 300],
  ]
  for (const [name, value, least, most] of ranges) {
    if (value !== undefined && !(value >= least && value <= most))
      throw new TypeError(`${name} must be a number from ${least} to ${most}`)
  }
  if (options.dpop && !URL.canParse(options.dpop.origin)) throw new TypeError('dpop.origin must be an absolute URL')
  const algorithms = options.dpop?.algorithms ?? proofAlgorithms
  if (algorithms.length === 0 || !algorithms.every((name) => proofAlgorithms.includes(name)))
    throw new TypeError(`dpop.algorithms must be some of: ${proofAlgorithms.join(' ')}`)
}
