// A session of the provider without an authorization request: a first-party app signed somebody in over the API. The
// provider makes sessions only at its own endpoints, where its middleware writes the row and the cookie. This does the
// same with the same model, the same adapter and the same signed cookie, so that there is one kind of session.
import { AsyncLocalStorage } from 'node:async_hooks'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Provider } from 'oidc-provider'
import type { ClientPlace } from '../accounts/place.ts'
import type { Origin } from '../audit/events.ts'
import { sessionCookieName } from './browser-session.ts'
import { sessionSeconds } from './lifetimes.ts'

/** What the adapter reads from the provider's context of a request, for writes that have none. */
export interface DirectContext {
  readonly origin: Origin
  readonly clientId: string
  /** The organisation that the sign-in was for; the home organisation when undefined. */
  readonly organizationId: string | undefined
  /** The organisation of the app, whose policy holds too; undefined for our own pages. */
  readonly place: ClientPlace | undefined
}

const contexts = new AsyncLocalStorage<DirectContext>()

/** The context of a session that is being made past the provider's endpoints. */
export function directContext(): DirectContext | undefined {
  return contexts.getStore()
}

export interface DirectSessions {
  /**
   * Stores a new session of this sign-in, in the transaction that the caller joined. A session always gets a new id here,
   * so that nobody can have set it before (F21).
   * @returns its id, which is the value of the cookie and a secret
   */
  create(
    signIn: { readonly accountId: string; readonly amr: string[]; readonly acr: string; readonly ts: number },
    context: DirectContext,
  ): Promise<string>
  /** Gives the browser the cookie of a session that was committed, signed as the provider signs it. */
  setCookie(request: FastifyRequest, reply: FastifyReply, id: string): void
  clearCookie(request: FastifyRequest, reply: FastifyReply): void
}

/** @param parts.provider the provider of the moment */
export function createDirectSessions(parts: { readonly issuer: string; provider(): Provider }): DirectSessions {
  const name = sessionCookieName(parts.issuer)
  const secure = parts.issuer.startsWith('https://')

  /**
   * The provider writes cookies to the raw response, where Fastify's own would replace them: they are moved over.
   * @param value null removes the cookie and its signature
   */
  function write(request: FastifyRequest, reply: FastifyReply, value: string | null): void {
    const { cookies } = parts.provider().createContext(request.raw, reply.raw)
    // Behind a proxy the connection here is plain; the issuer says what the browser sees.
    cookies.secure = secure
    cookies.set(name, value, { signed: true, httpOnly: true, secure, sameSite: 'lax', overwrite: true, path: '/' })
    const written = reply.raw.getHeader('set-cookie')
    reply.raw.removeHeader('set-cookie')
    for (const line of [written ?? []].flat()) reply.header('set-cookie', String(line))
  }

  return {
    async create({ accountId, amr, acr, ts }, context) {
      const session = new (parts.provider().Session)()
      // Transient as on the pages: the cookie goes with the browser's own session.
      session.loginAccount({ accountId, amr, acr, loginTs: ts, transient: true })
      await contexts.run(context, () => session.save(sessionSeconds))
      return session.jti
    },
    setCookie: write,
    clearCookie: (request, reply) => write(request, reply, null),
  }
}
