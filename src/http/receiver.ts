// Addresses that others give us to call out to, as far as they can be judged before anybody looks a name up: outbound.ts holds
// every call to the same rules, and to what the name then means.
import { isIP } from 'node:net'
import { isPublicAddress } from './outbound.ts'

const maxLength = 2_048
const loopbackNames = new Set(['localhost', '127.0.0.1', '[::1]'])
/** What names end in that nobody on the internet has: RFC 6761 §6.3, RFC 6762 §3, RFC 8375 §3, and ICANN's for private use. */
const privateEndings: readonly string[] = ['localhost', 'local', 'home.arpa', 'internal']

/** What is wrong with an address to call out to; undefined when nothing is. */
export function receiverProblem(text: string, { allowsLoopback }: { readonly allowsLoopback: boolean }) {
  const url = /^[\x21-\x7e]+$/.test(text) && text.length <= maxLength ? URL.parse(text) : null
  if (!url) return 'must be an address'
  if (url.username || url.password || text.includes('#')) return 'must not hold a user, a password or a fragment'
  const isLoopback = loopbackNames.has(url.hostname)
  const isAllowedLoopback = isLoopback && allowsLoopback
  if (!(url.protocol === 'https:' || (url.protocol === 'http:' && isAllowedLoopback))) return 'must be an https address'
  const literal = url.hostname.replace(/^\[|\]$/g, '')
  const isPublic = isIP(literal) === 0 ? isPublicName(literal) : isPublicAddress(literal)
  return isPublic || isAllowedLoopback ? undefined : 'must be on the public internet'
}

/** A name of one label is somebody's own network's, and a dot at the end changes nothing about a name (RFC 1034 §3.1). */
function isPublicName(hostname: string): boolean {
  const name = hostname.replace(/\.$/, '')
  return /[^.]\.[^.]/.test(name) && !privateEndings.some((ending) => name === ending || name.endsWith(`.${ending}`))
}
