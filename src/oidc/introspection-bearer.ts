// Introspection by bearer token (RFC 7662 §2.1, SMART App Launch): instead of its secret a resource server may show an
// access token that it got for itself with the scope `introspect`. What it may see is then the provider's to answer and
// introspection.ts's to decide, as for any client.
import type { Provider } from 'oidc-provider'
import { letIn } from './internals.ts'
import { protocolErrors } from './protocol-errors.ts'

const path = '/oauth/introspect'
const scope = 'introspect'
/** Longer than any token of ours. What could not be one is not looked up. */
const tokenPattern = /^[\w-]{20,128}$/

interface Refusal {
  readonly error: 'invalid_token' | 'insufficient_scope'
  readonly text: string
}

const dead = { error: 'invalid_token', text: 'the access token is not good here' } as const
const bound = { ...dead, text: 'an access token that is bound to a key cannot be used here' } as const
const narrow = { error: 'insufficient_scope', text: `the access token lacks the scope ${scope}` } as const

/** Call it after `answerFaults`. */
export function acceptIntrospectionBearer(provider: Provider): void {
  provider.use(async (context, next) => {
    const token = isIntrospection(context) ? bearerOf(context.headers.authorization) : undefined
    if (token === undefined) return next()
    const caller = await findCaller(provider, token)
    if (typeof caller !== 'string') return refuse(context, caller)
    letIn(context.req, caller)
    await next()
    // The client of the token may not act any more. Its caller knows of no other credentials.
    if (context.status === 401) refuse(context, dead)
  })
}

/** The client that a token was issued to for itself. A person's token is none, whatever its scope: it is in other hands. */
async function findCaller(provider: Provider, value: string): Promise<string | Refusal> {
  const token = tokenPattern.test(value) ? await provider.ClientCredentials.find(value) : undefined
  // One that is for a certain resource is not for us.
  if (!token || token.isExpired || token.clientId === undefined || token.aud !== undefined) return dead
  if (token.isSenderConstrained()) return bound
  return token.scope?.split(' ').includes(scope) ? token.clientId : narrow
}

function isIntrospection(context: { readonly method: string; readonly path: string }): boolean {
  return context.method === 'POST' && context.path.toLowerCase().replace(/\/$/, '') === path
}

function bearerOf(authorization: string | undefined): string | undefined {
  return /^bearer (.*)$/i.exec(authorization ?? '')?.[1]
}

interface Answering {
  status: number
  body: unknown
  set(name: string, value: string): void
}

function refuse(context: Answering, { error, text }: Refusal): void {
  const asked = error === 'insufficient_scope' ? `, scope="${scope}"` : ''
  context.status = protocolErrors.tokens[error].status
  context.set('Cache-Control', 'no-store')
  context.set('WWW-Authenticate', `Bearer error="${error}", error_description="${text}"${asked}`)
  context.body = { error, error_description: text }
}
