// The session rows that a request read, kept for whoever answers the rest of it: the provider's own model knows nothing of
// their organisation, their place and their times.
import type { StoredSession } from '../sessions/sessions.ts'
import type { FindIntrospected, Introspected } from './introspected.ts'

const ofTokens = new WeakMap<object, StoredSession>()
const ofBrowsers = new WeakMap<object, StoredSession>()

/** The session of the token that a request used, if one was read for it: not for tokens that outlive their session. */
export function sessionOfToken(request: object): StoredSession | undefined {
  return ofTokens.get(request)
}

export function keepSessionOfToken(request: object, session: StoredSession): void {
  ofTokens.set(request, session)
}

/** The live session of the browser that sent a request. */
export function browserSessionOf(request: object): StoredSession | undefined {
  return ofBrowsers.get(request)
}

export function keepBrowserSession(request: object, session: StoredSession): void {
  ofBrowsers.set(request, session)
}

const ends = new WeakMap<object, string>()

/** Why the session whose cookie came with a request is over; undefined when none was, or nobody knows. */
export function endOfSession(request: object): string | undefined {
  return ends.get(request)
}

export function keepEndOfSession(request: object, reason: string | undefined): void {
  if (reason !== undefined) ends.set(request, reason)
}

const introspected = new WeakMap<object, { readonly hash: string; readonly found: Promise<Introspected | undefined> }>()

/** What was read of the token that a request introspects; undefined before, and for a request that does not. */
export function introspectedOf(request: object): Promise<Introspected | undefined> | undefined {
  return introspected.get(request)?.found
}

/** Reads it, once for the three kinds of token that the value may be. */
export function keepIntrospected(
  request: object,
  hash: string,
  find: FindIntrospected,
): Promise<Introspected | undefined> {
  const known = introspected.get(request)
  if (known?.hash === hash) return known.found
  const found = find(hash)
  introspected.set(request, { hash, found })
  return found
}
