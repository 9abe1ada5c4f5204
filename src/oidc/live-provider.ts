// The provider of the moment: built over today's keys, and built anew when they change, on every replica within
// seconds. Requests that are under way finish on the one they began with.
import type { FastifyBaseLogger } from 'fastify'
import type { Provider } from 'oidc-provider'
import type { ClientFault } from '../clients/fault-reasons.ts'
import type { SecretGuesses } from '../credentials/client-secrets.ts'
import { watchClientFaults } from './client-faults.ts'
import { type Documents, renderDocuments } from './documents.ts'
import { limitClientSecrets } from './internals.ts'
import type { Keys } from './keys.ts'
import { createProvider, type ProviderParts, recordRefusals } from './provider.ts'

export const keyPollMs = 5_000

export interface LiveProvider {
  current(): Provider
  /** Discovery and JWKS of that provider, by path. */
  documents(): Documents
  /** Looks at the keys now; builds a new provider if they changed. */
  refresh(): Promise<void>
  stop(): void
}

export async function startLiveProvider(
  parts: ProviderParts & { noteFault(fault: ClientFault): void; readonly secretGuesses: SecretGuesses },
  keys: Keys,
  log: FastifyBaseLogger,
): Promise<LiveProvider> {
  const build = (jwks: Parameters<typeof createProvider>[1]) => {
    const provider = createProvider(parts, jwks)
    limitClientSecrets(provider, parts.secretGuesses)
    recordRefusals(provider, parts.record, parts.onFault)
    watchClientFaults(provider, parts.noteFault)
    return provider
  }
  const first = await keys.load()
  let version = first.version
  let provider = build(first.jwks)
  let documents = await renderDocuments(provider)
  const refresh = async () => {
    const loaded = await keys.load()
    if (loaded.version === version) return
    const next = build(loaded.jwks)
    documents = await renderDocuments(next)
    provider = next
    version = loaded.version
    log.info('signing keys changed')
  }
  // An outage must not end the process: the provider stays as it is and the next poll tries again.
  const timer = setInterval(
    () => refresh().catch((error: unknown) => log.warn({ err: error }, 'cannot read signing keys')),
    keyPollMs,
  )
  timer.unref()
  return { current: () => provider, documents: () => documents, refresh, stop: () => clearInterval(timer) }
}
