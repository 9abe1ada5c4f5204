// Proof that a domain is somebody's: a TXT record below it, asked for in DNS. Nothing else of the network is touched.
import { Resolver } from 'node:dns/promises'

const timeoutMs = 3_000
const recordLabel = '_mlpipes-auth'
const recordKey = 'mlpipes-auth-verification'

export function recordOf(domain: string, challenge: string): { readonly name: string; readonly value: string } {
  return { name: `${recordLabel}.${domain}`, value: `${recordKey}=${challenge}` }
}

/** `missing`: the zone answers without it. `unreachable`: no answer that says either. */
export type RecordState = 'found' | 'missing' | 'unreachable'

export interface DomainRecords {
  look(domain: string, challenge: string): Promise<RecordState>
}

/** @param servers addresses of name servers; those of the system unless given */
export function createDomainRecords(servers?: readonly string[]): DomainRecords {
  return {
    async look(domain, challenge) {
      // One for each look: cancelling one would cancel those of others.
      const resolver = new Resolver({ timeout: timeoutMs, tries: 1 })
      if (servers) resolver.setServers([...servers])
      const { name, value } = recordOf(domain, challenge)
      // With several servers the resolver asks one after the other, each for as long.
      const limit = setTimeout(() => resolver.cancel(), timeoutMs)
      try {
        const records = await resolver.resolveTxt(name)
        return records.some((chunks) => chunks.join('') === value) ? 'found' : 'missing'
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? error.code : undefined
        return code === 'ENODATA' || code === 'ENOTFOUND' ? 'missing' : 'unreachable'
      } finally {
        clearTimeout(limit)
      }
    },
  }
}
