// How the provider calls out: by our own rules for addresses that others registered (F78). The global fetch would follow a
// redirect, down to http too. What it fetches here are the keys of clients (`jwks_uri`).
import type { Configuration } from 'oidc-provider'
import { type Outbound, OutboundFailed } from '../http/outbound.ts'

/** How long keys may be used before they are asked for again, whatever is said of them: they may have been withdrawn. */
const maxAgeSeconds = 3_600

export function createProviderFetch(outbound: Pick<Outbound, 'get'>): NonNullable<Configuration['fetch']> {
  return async (input, init) => {
    if ((init?.method ?? 'GET') !== 'GET') throw new OutboundFailed('ENOTGET')
    const url = input instanceof Request ? input.url : String(input)
    const { status, cacheControl, body } = await outbound.get(url, { accept: 'application/json' })
    // A redirect is no answer, and of an error the provider would read how long it is good for.
    if (status !== 200) throw new OutboundFailed('ESTATUS')
    const saidSeconds = Number(/\bmax-age=(\d{1,9})/i.exec(cacheControl ?? '')?.[1] ?? 0)
    return new Response(new Uint8Array(body), {
      headers: { 'cache-control': `max-age=${Math.min(saidSeconds, maxAgeSeconds)}` },
    })
  }
}
