// Whether an address may be where somebody acts from. Which ranges are allowed is the policy; how ranges combine is
// policy-ranges.ts; which address a request came from is decided at the edge.
import { BlockList, isIP } from 'node:net'
import { canonicalAddress } from '../http/address.ts'
import type { Policy } from './policy.ts'
import { canonicalRanges } from './policy-ranges.ts'

interface Lists {
  readonly ipv4: BlockList
  readonly ipv6: BlockList
}

// Effective policies are few and live long, and a list of 200 ranges takes longer to build than to ask.
const built = new WeakMap<readonly string[], Lists>()

/**
 * Whether the policy lets somebody act from this address. An IPv4-mapped IPv6 address is the IPv4 address it carries.
 * Where there is a list, an address that is unknown or unreadable is on none.
 */
export function isAddressAllowed({ network }: Pick<Policy, 'network'>, ip: string | undefined): boolean {
  if (network.allowedCidrs === null) return true
  const address = canonicalAddress(ip)
  if (address === undefined) return false
  const { ipv4, ipv6 } = listsOf(network.allowedCidrs)
  // Node finds an IPv4 address in ::/0 too. Who wrote that beside IPv4 ranges meant IPv6, hence a list for each.
  return isIP(address) === 4 ? ipv4.check(address, 'ipv4') : ipv6.check(address, 'ipv6')
}

function listsOf(ranges: readonly string[]): Lists {
  const known = built.get(ranges)
  if (known) return known
  const lists: Lists = { ipv4: new BlockList(), ipv6: new BlockList() }
  for (const range of canonicalRanges(ranges)) {
    const [address = '', prefix] = range.split('/')
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    lists[family].addSubnet(address, Number(prefix), family)
  }
  built.set(ranges, lists)
  return lists
}
