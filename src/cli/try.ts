// `mlpipes-auth try`: signs in to a server from a terminal, as an app would, and says what came and whether it holds. By the
// code flow with PKCE on a listener of this machine (RFC 8252), or by the device flow (RFC 8628). It opens no browser, keeps
// nothing, and prints no secret.
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import { type Check, checkClaims, checkSignature, type DecodedToken, decodeToken, same } from './try-checks.ts'
import { listenOnce } from './try-listener.ts'

export interface TryOptions {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret?: string | undefined
  readonly device?: boolean | undefined
  readonly scope: string
  /** Http on this machine; port 0 takes a free one. */
  readonly redirectUri: string
  readonly timeoutSeconds: number
}

export interface TryReport {
  readonly ok: boolean
  readonly steps: readonly string[]
  readonly checks: readonly Check[]
  readonly tokens: Readonly<Record<string, DecodedToken>>
  /** Why it ended before its end. */
  readonly problem: string | undefined
}

/** What is happening, told while it happens. */
export interface Teller {
  step(text: string): void
  check(check: Check): void
}

/** The sign-in cannot go on; the message says why. */
class Stopped extends Error {}

const callSeconds = 15
const maxAnswerBytes = 1_048_576
const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code'
const url = z.url({ protocol: /^https?$/ })
const metadataSchema = z.object({
  issuer: z.string(),
  authorization_endpoint: url,
  token_endpoint: url,
  jwks_uri: url,
  userinfo_endpoint: url.optional(),
  device_authorization_endpoint: url.optional(),
  id_token_signing_alg_values_supported: z.array(z.string()).default(['RS256']),
  authorization_response_iss_parameter_supported: z.boolean().default(false),
})
type Metadata = z.output<typeof metadataSchema>
const keysSchema = z.object({ keys: z.array(z.looseObject({ kty: z.string() })) })
const tokensSchema = z.object({
  access_token: z.string(),
  token_type: z.string(),
  id_token: z.string().optional(),
  refresh_token: z.string().optional(),
  scope: z.string().optional(),
})
type Tokens = z.output<typeof tokensSchema>
const errorSchema = z.object({ error: z.string(), error_description: z.string().optional() })
const deviceSchema = z.object({
  device_code: z.string(),
  user_code: z.string(),
  verification_uri: url,
  verification_uri_complete: url.optional(),
  expires_in: z.number(),
  interval: z.number().default(5),
})

/** Runs one sign-in. Never throws for what the server does. */
export async function trySignIn(options: TryOptions, teller: Teller): Promise<TryReport> {
  const steps: string[] = []
  const checks: Check[] = []
  const tokens: Record<string, DecodedToken> = {}
  const run: Run = {
    options,
    step(text) {
      steps.push(text)
      teller.step(text)
    },
    check(check) {
      checks.push(check)
      teller.check(check)
      return check.ok
    },
  }
  let problem: string | undefined
  try {
    const metadata = await discover(run)
    const nonce = options.device ? undefined : random()
    const granted = nonce === undefined ? await byDevice(run, metadata) : await byCode(run, metadata, nonce)
    for (const name of ['id_token', 'access_token', 'refresh_token'] as const) {
      const token = granted[name]
      if (token !== undefined) tokens[name] = decodeToken(token)
    }
    await examine(run, metadata, granted, nonce)
  } catch (error) {
    if (!(error instanceof Stopped)) throw error
    problem = error.message
  }
  return { ok: problem === undefined && checks.every((check) => check.ok), steps, checks, tokens, problem }
}

interface Run {
  readonly options: TryOptions
  step(text: string): void
  check(check: Check): boolean
}

async function discover({ options, step, check }: Run): Promise<Metadata> {
  const address = `${options.issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
  step(`Read ${address}`)
  const { status, body } = await call(address)
  if (status !== 200) throw new Stopped(`${address} answers ${status}. Is this the issuer?`)
  const metadata = read(metadataSchema, body, address)
  // A server that says it is another would have us trust the other's tokens.
  if (!check(same('issuer', metadata.issuer, options.issuer))) throw new Stopped('The server names another issuer.')
  return metadata
}

async function byCode(run: Run, metadata: Metadata, nonce: string): Promise<Tokens> {
  const { options, step, check } = run
  const [state, verifier] = [random(), random()]
  const listener = await listenOnce(options.redirectUri).catch((error: Error) => {
    throw new Stopped(`Cannot listen at ${options.redirectUri}: ${error.message}`)
  })
  try {
    const address = new URL(metadata.authorization_endpoint)
    const parameters = {
      client_id: options.clientId,
      response_type: 'code',
      redirect_uri: listener.uri,
      scope: options.scope,
      state,
      nonce,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      // Without it the server leaves the scope out (OpenID Connect Core §11).
      ...(options.scope.split(' ').includes('offline_access') ? { prompt: 'consent' } : {}),
    }
    for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value)
    step(`Open this address in a browser and sign in; waiting at ${listener.uri}\n${address.href}`)
    const answer = await listener.answer(options.timeoutSeconds * 1_000)
    if (!answer) throw new Stopped(`Nobody came back within ${options.timeoutSeconds} seconds.`)
    if (!check({ ...same('state', answer.get('state'), state), detail: 'is the one that was sent' }))
      throw new Stopped('The answer belongs to another request.')
    const iss = answer.get('iss') ?? undefined
    if (
      (metadata.authorization_response_iss_parameter_supported || iss !== undefined) &&
      !check(same('iss', iss, metadata.issuer))
    )
      throw new Stopped('The answer comes from another server (RFC 9207).')
    const [error, code] = [answer.get('error'), answer.get('code')]
    if (error !== null)
      throw new Stopped(`The server refused: ${error} ${answer.get('error_description') ?? ''}`.trim())
    if (code === null) throw new Stopped('The answer holds neither a code nor an error.')
    step('Redeem the code, with the PKCE verifier')
    const form = { grant_type: 'authorization_code', code, redirect_uri: listener.uri, code_verifier: verifier }
    return tokensOf(await post(run, metadata.token_endpoint, form), metadata.token_endpoint)
  } finally {
    listener.close()
  }
}

async function byDevice(run: Run, metadata: Metadata): Promise<Tokens> {
  const { options, step } = run
  const endpoint = metadata.device_authorization_endpoint
  if (endpoint === undefined) throw new Stopped('The server offers no device flow.')
  step('Ask for a device code')
  const asked = await post(run, endpoint, { scope: options.scope })
  if (asked.status !== 200) throw new Stopped(`No device code: ${wordsOf(asked)}`)
  const device = read(deviceSchema, asked.body, endpoint)
  const complete = device.verification_uri_complete
  step(
    `Open ${device.verification_uri} and type ${device.user_code}${complete === undefined ? '' : `\nor open ${complete}`}`,
  )
  const seconds = Math.min(device.expires_in, options.timeoutSeconds)
  const end = Date.now() + seconds * 1_000
  let interval = device.interval
  while (Date.now() < end) {
    await wait(interval * 1_000)
    const answer = await post(run, metadata.token_endpoint, {
      grant_type: deviceGrant,
      device_code: device.device_code,
    })
    const error = errorSchema.safeParse(answer.body).data?.error
    if (error === 'slow_down') interval += 5
    else if (error !== 'authorization_pending') return tokensOf(answer, metadata.token_endpoint)
  }
  throw new Stopped(`Nobody let the device in within ${seconds} seconds.`)
}

function tokensOf(answer: Answer, from: string): Tokens {
  if (answer.status !== 200) throw new Stopped(`No tokens: ${wordsOf(answer)}`)
  return read(tokensSchema, answer.body, from)
}

/** Holds what was given against what was asked. */
async function examine(run: Run, metadata: Metadata, tokens: Tokens, nonce: string | undefined): Promise<void> {
  const { options, step, check } = run
  check({ ...same('token_type', tokens.token_type.toLowerCase(), 'bearer'), detail: tokens.token_type })
  const wantsIdToken = options.scope.split(' ').includes('openid')
  if (tokens.id_token === undefined) {
    if (wantsIdToken) check({ name: 'id_token', ok: false, detail: 'is missing, though openid was asked for' })
    return
  }
  step(`Verify the ID token with the keys at ${metadata.jwks_uri}`)
  const keys = read(keysSchema, (await call(metadata.jwks_uri)).body, metadata.jwks_uri)
  check(await checkSignature(tokens.id_token, keys, metadata.id_token_signing_alg_values_supported))
  const decoded = decodeToken(tokens.id_token)
  if (decoded.format !== 'jwt') return
  const expected = {
    issuer: metadata.issuer,
    clientId: options.clientId,
    nonce,
    nowSeconds: Math.floor(Date.now() / 1_000),
  }
  for (const one of checkClaims(decoded.claims, expected)) check(one)
  if (metadata.userinfo_endpoint === undefined) return
  step(`Ask ${metadata.userinfo_endpoint} with the access token`)
  const { status, body } = await call(metadata.userinfo_endpoint, {
    headers: { authorization: `Bearer ${tokens.access_token}` },
  })
  const sub = z.object({ sub: z.string() }).safeParse(body).data?.sub
  check(status === 200 ? same('userinfo sub', sub, decoded.claims['sub']) : same('userinfo status', status, 200))
}

interface Answer {
  readonly status: number
  readonly body: unknown
}

/** A form to an endpoint, with the client's authentication. */
function post({ options }: Run, endpoint: string, form: Readonly<Record<string, string>>): Promise<Answer> {
  const { clientId, clientSecret } = options
  const secret =
    clientSecret === undefined ? undefined : `${encodeURIComponent(clientId)}:${encodeURIComponent(clientSecret)}`
  return call(endpoint, {
    method: 'POST',
    headers: secret === undefined ? {} : { authorization: `Basic ${Buffer.from(secret).toString('base64')}` },
    body: new URLSearchParams(secret === undefined ? { ...form, client_id: clientId } : { ...form }),
  })
}

async function call(address: string, init: RequestInit = {}): Promise<Answer> {
  try {
    const response = await fetch(address, {
      ...init,
      headers: { accept: 'application/json', ...init.headers },
      redirect: 'manual',
      signal: AbortSignal.timeout(callSeconds * 1_000),
    })
    const text = await response.text()
    if (text.length > maxAnswerBytes) throw new Stopped(`${address} answers more than a client should read.`)
    return { status: response.status, body: parseJson(text) }
  } catch (error) {
    if (error instanceof Stopped) throw error
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
    throw new Stopped(`${address} does not answer: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function read<T>(schema: z.ZodType<T>, body: unknown, from: string): T {
  const parsed = schema.safeParse(body)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new Stopped(`${from} answers what a client cannot use: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`)
}

function wordsOf({ status, body }: Answer): string {
  const error = errorSchema.safeParse(body).data
  return error ? `${error.error} ${error.error_description ?? ''}`.trim() : `the server answers ${status}`
}

function random(): string {
  return randomBytes(32).toString('base64url')
}
