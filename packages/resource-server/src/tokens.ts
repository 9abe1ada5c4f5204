// Which token came with which request, for whoever answers the rest of it.
import type { AccessToken } from './verdict.ts'

const tokens = new WeakMap<object, AccessToken>()

/** The token that a guard let through. Throws where no guard stands: that is a bug, and must not look like a stranger. */
export function tokenOf(request: object): AccessToken {
  const token = tokens.get(request)
  if (!token) throw new Error('no guard looked at this request')
  return token
}

export function keepToken(request: object, token: AccessToken): void {
  tokens.set(request, token)
}
