// Asks the issuer about a token (RFC 7662), as the client that this resource server is.
import type { Connection, JsonAnswer } from './connection.ts'

export type Credentials =
  | { readonly clientId: string; readonly clientSecret: string }
  | {
      /** An access token with scope `introspect`, got by client_credentials. Asked again when the issuer refused the last. */
      bearerToken(lastWasRefused: boolean): string | Promise<string>
    }

/**
 * One whole set of credentials out of the options. What comes from an environment may be missing at run time whatever its
 * type says; every caller would then be answered 503, and the issuer would count a wrong secret for each.
 * @throws TypeError that says what is missing
 */
export function credentialsOf(options: Credentials): Credentials {
  const said = (name: string): unknown => Reflect.get(options, name)
  if (said('bearerToken') === undefined)
    return {
      clientId: textOf('clientId', said('clientId')),
      clientSecret: textOf('clientSecret', said('clientSecret')),
    }
  if (typeof said('bearerToken') !== 'function') throw new TypeError('bearerToken must be a function')
  return options
}

function textOf(name: string, value: unknown): string {
  if (typeof value === 'string' && value !== '') return value
  const isSet = value === undefined || value === '' ? 'is missing' : 'must be text'
  throw new TypeError(
    `${name} ${isSet}: give clientId and clientSecret, or bearerToken; what comes from the environment may not be set there`,
  )
}

/** What the issuer says of a token; undefined when it is not active. Rejects when it does not say. */
export type Introspect = (token: string) => Promise<Readonly<Record<string, unknown>> | undefined>

export function createIntrospection(parts: {
  readonly issuer: string
  readonly credentials: Credentials
  readonly connection: Connection
}): Introspect {
  const { issuer, connection } = parts
  const credentials = credentialsOf(parts.credentials)
  let discovered: Promise<URL> | undefined

  /** Found at the first use and kept; one that failed is tried again by the next who asks. */
  function endpoint(): Promise<URL> {
    if (discovered) return discovered
    const attempt = discoverEndpoint(issuer, connection)
    attempt.catch(() => {
      discovered = undefined
    })
    discovered = attempt
    return attempt
  }

  async function ask(token: string, lastWasRefused: boolean): Promise<JsonAnswer> {
    const body = new URLSearchParams({ token, token_type_hint: 'access_token' }).toString()
    const headers = {
      authorization: await authorization(credentials, lastWasRefused),
      'content-type': 'application/x-www-form-urlencoded',
    }
    return connection.send(await endpoint(), { method: 'POST', headers, body })
  }

  return async (token) => {
    const first = await ask(token, false)
    const answer = first.status === 401 && 'bearerToken' in credentials ? await ask(token, true) : first
    if (answer.status === 200) return answer.body['active'] === true ? answer.body : undefined
    // A token in a form that this endpoint does not take is no token of ours.
    if (answer.status === 400 && answer.body['error'] === 'unsupported_token_type') return undefined
    // It may have moved.
    if (answer.status === 404) discovered = undefined
    throw new Error(`the introspection endpoint answered ${answer.status} ${String(answer.body['error'] ?? '')}`.trim())
  }
}

async function discoverEndpoint(issuer: string, connection: Connection): Promise<URL> {
  const address = new URL(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
  const { status, body } = await connection.send(address, { method: 'GET' })
  if (status !== 200) throw new Error(`discovery answered ${status}`)
  // OpenID Connect Discovery §4.3: another issuer's document would send our tokens to it.
  if (body['issuer'] !== issuer) throw new Error('discovery names another issuer')
  const endpoint = URL.parse(String(body['introspection_endpoint'] ?? ''))
  if (!endpoint || !isSafeAddress(endpoint)) throw new Error('discovery names no introspection endpoint over https')
  return endpoint
}

/** Tokens and secrets travel over TLS, or do not leave this machine. */
export function isSafeAddress(url: URL): boolean {
  const isLoopback = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback)
}

async function authorization(credentials: Credentials, lastWasRefused: boolean): Promise<string> {
  if ('bearerToken' in credentials) return `Bearer ${await credentials.bearerToken(lastWasRefused)}`
  // RFC 6749 §2.3.1: both halves are form-encoded first.
  const encode = (text: string) => new URLSearchParams([['', text]]).toString().slice(1)
  const pair = `${encode(credentials.clientId)}:${encode(credentials.clientSecret)}`
  return `Basic ${Buffer.from(pair).toString('base64')}`
}
