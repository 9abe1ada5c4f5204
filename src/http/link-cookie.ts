// Takes the token of a mailed link out of the address at once: it goes into a cookie of that page alone, and the browser
// comes back without it. So it stands in no history, no referrer and no log (F55). Setting a cookie spends nothing.
import type { FastifyReply, FastifyRequest } from 'fastify'

const maxAgeSeconds = 1_800
const tokenPattern = /^[A-Za-z0-9_-]{43}$/

export interface LinkCookie {
  /**
   * The token of this request. Undefined: none, or the browser was sent to the page again, without it in the address.
   */
  receive(request: FastifyRequest, reply: FastifyReply): { readonly token: string | undefined; readonly sent: boolean }
  read(request: FastifyRequest): string | undefined
  /** @param path of the page that received it */
  clear(reply: FastifyReply, path: string): void
}

export function createLinkCookie(issuer: string): LinkCookie {
  const secure = issuer.startsWith('https://')
  const name = secure ? '__Secure-mlpipes_link' : 'mlpipes_link'
  const pathOf = (request: FastifyRequest) => request.url.split('?', 1)[0] ?? '/'
  const read = (request: FastifyRequest) => {
    const token = request.cookies[name]
    return token !== undefined && tokenPattern.test(token) ? token : undefined
  }
  return {
    receive(request, reply) {
      const given = new URL(request.url, issuer).searchParams.get('token')
      if (given === null) return { token: read(request), sent: false }
      const path = pathOf(request)
      if (tokenPattern.test(given))
        reply.setCookie(name, given, { path, httpOnly: true, secure, sameSite: 'lax', maxAge: maxAgeSeconds })
      reply.header('cache-control', 'no-store').header('referrer-policy', 'no-referrer').redirect(path, 303)
      return { token: undefined, sent: true }
    },
    read,
    clear: (reply, path) => void reply.clearCookie(name, { path }),
  }
}
