// A client's address in one spelling, and the group of addresses that one client is taken to own. Which address a request
// came from is decided at the edge (app.ts).
import { isIP, SocketAddress } from 'node:net'

const mappedPrefix = '::ffff:'
const groupCount = 8
const networkGroups = 4

/**
 * The address in its canonical spelling (RFC 5952 for IPv6): `::ffff:192.0.2.1`, however written, is the IPv4 address it
 * carries (RFC 4291 §2.5.5.2), and a zone is no part of it. Undefined for what is no address.
 */
export function canonicalAddress(text: string | undefined): string | undefined {
  const [plain = ''] = (text ?? '').split('%', 1)
  const family = isIP(plain)
  if (family === 0) return undefined
  if (family === 4) return plain
  const { address } = new SocketAddress({ address: plain, family: 'ipv6' })
  const carried = address.startsWith(mappedPrefix) ? address.slice(mappedPrefix.length) : ''
  return isIP(carried) === 4 ? carried : address
}

/**
 * What counts as one client: an IPv4 address, or the /64 of an IPv6 address, because whoever has one of those addresses
 * has all 2^64 of them to choose from (RFC 4291 §2.5.4, RFC 6177). Undefined for what is no address.
 */
export function addressGroup(text: string | undefined): string | undefined {
  const address = canonicalAddress(text)
  if (address === undefined || isIP(address) === 4) return address
  const network = groupsOf(address).slice(0, networkGroups).join(':')
  return `${canonicalAddress(`${network}::`)}/64`
}

/** The eight groups of an IPv6 address. The last two may stand as one IPv4 address, which is never in the network part. */
function groupsOf(address: string): string[] {
  const [head = '', tail] = address.split('::')
  const split = (part: string) => (part === '' ? [] : part.split(':'))
  if (tail === undefined) return split(head)
  const [before, after] = [split(head), split(tail)]
  const width = groupCount - before.length - after.length - (tail.includes('.') ? 1 : 0)
  return [...before, ...Array.from({ length: width }, () => '0'), ...after]
}
