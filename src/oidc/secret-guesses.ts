// Where guesses at clients' secrets are stopped (F08), how they are counted being credentials/client-secrets.ts's: at every
// endpoint where the provider compares a secret, and in front of the introspection that goes past it. A client that proves
// itself with a key, or with a token, has nothing here to be guessed.
import type { IncomingMessage } from 'node:http'
import { errors, type KoaContextWithOIDC, Provider } from 'oidc-provider'
import type { SecretGuesses } from '../credentials/client-secrets.ts'
import { originOf } from '../http/origin.ts'
import type { DirectIntrospection } from './introspection-direct.ts'

/** So many secrets were wrong that none is looked at for a while, not even the right one. */
class TooManySecrets extends errors.OIDCProviderError {
  constructor() {
    super(429, 'temporarily_unavailable')
    this.name = 'TooManySecrets'
    this.error_description = 'too many wrong secrets of this client came from this address'
  }
}

/** Compares a secret, if it is to be looked at. `isRight` answers at once, so that of many at one time none slips past. */
export async function compareLimited(
  guesses: SecretGuesses,
  clientId: string,
  isRight: () => boolean,
): Promise<boolean> {
  const context: KoaContextWithOIDC | undefined = Provider.ctx
  const ip = context && originOf(context.req).ip
  const seconds = guesses.pauseSeconds(clientId, ip)
  if (seconds !== undefined) {
    context?.set('Retry-After', String(seconds))
    throw new TooManySecrets()
  }
  if (isRight()) return true
  await guesses.count(clientId, ip)
  return false
}

/** Leaves what must not be answered to the provider, which refuses it. */
export function limitIntrospection(guesses: SecretGuesses, direct: DirectIntrospection): DirectIntrospection {
  return async (request) => (guesses.isQuiet() || !isPaused(guesses, request) ? direct(request) : undefined)
}

function isPaused(guesses: SecretGuesses, request: IncomingMessage): boolean {
  const basic = /^Basic ([A-Za-z0-9+/=]{1,1024})$/i.exec(request.headers.authorization ?? '')?.[1]
  // As introspection-direct.ts reads it: what is encoded in another way is the provider's in any case.
  const [clientId = ''] = Buffer.from(basic ?? '', 'base64')
    .toString('latin1')
    .split(':', 1)
  return guesses.pauseSeconds(clientId, originOf(request).ip) !== undefined
}
