// Address ranges as sets: one spelling for each set, and what two sets have in common. Pure arithmetic. Which address a
// request came from, and whether it is allowed, is network.ts.

/** Addresses on one line: IPv4 at its start, IPv6 from 2^128 on, so that the families never touch. */
interface Range {
  readonly first: bigint
  /** A power of two that `first` is a multiple of. */
  readonly size: bigint
}

const ipv4Bits = 32
const ipv6Bits = 128
const mappedBits = 96
const ipv6Start = 1n << 128n
const mappedPrefix = 0xffffn

/**
 * The same set in its one shortest spelling: host bits cleared, what lies inside another range left out, neighbours
 * joined, in order. Two lists allow the same addresses exactly when this gives the same list. IPv4-mapped IPv6 ranges are
 * the IPv4 ranges that they carry (RFC 4291 §2.5.5.2). A text that is no range allows nobody.
 */
export function canonicalRanges(texts: readonly string[]): readonly string[] {
  return rangesOf(texts).map(formatRange)
}

/** The addresses that are in both lists. Of two ranges, one holds the other or they share nothing. */
export function commonRanges(a: readonly string[], b: readonly string[]): readonly string[] {
  const [left, right] = [rangesOf(a), rangesOf(b)]
  const common: Range[] = []
  for (let i = 0, j = 0; ; ) {
    const [one, other] = [left[i], right[j]]
    if (one === undefined || other === undefined) return common.map(formatRange)
    if (isInside(one, other)) common.push(one)
    else if (isInside(other, one)) common.push(other)
    if (endOf(one) < endOf(other)) i += 1
    else j += 1
  }
}

const endOf = ({ first, size }: Range) => first + size
const isInside = (inner: Range, outer: Range) => inner.first >= outer.first && endOf(inner) <= endOf(outer)

function rangesOf(texts: readonly string[]): readonly Range[] {
  const parsed = texts.map(parseRange).filter((range) => range !== undefined)
  const sorted = parsed.toSorted((a, b) => compare(a.first, b.first) || compare(b.size, a.size))
  const kept: Range[] = []
  for (const range of sorted) {
    const last = kept.at(-1)
    if (last !== undefined && isInside(range, last)) continue
    kept.push(range)
    joinNeighbours(kept)
  }
  return kept
}

const compare = (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0)

/** Two halves of one range become it, as long as the last two are such. */
function joinNeighbours(ranges: Range[]): void {
  for (;;) {
    const [left, right] = ranges.slice(-2)
    if (left === undefined || right === undefined) return
    const size = left.size * 2n
    if (left.size !== right.size || endOf(left) !== right.first || left.first % size !== 0n) return
    ranges.splice(-2, 2, { first: left.first, size })
  }
}

function parseRange(text: string): Range | undefined {
  const [address = '', prefix = ''] = text.split('/')
  const bits = /^\d{1,3}$/.test(prefix) ? Number(prefix) : -1
  const ipv4 = parseIpv4(address)
  if (ipv4 !== undefined) return rangeAt(0n, ipv4, ipv4Bits, bits)
  const ipv6 = parseIpv6(address)
  if (ipv6 === undefined) return undefined
  const carried = BigInt.asUintN(ipv4Bits, ipv6)
  return bits >= mappedBits && ipv6 >> BigInt(ipv4Bits) === mappedPrefix
    ? rangeAt(0n, carried, ipv4Bits, bits - mappedBits)
    : rangeAt(ipv6Start, ipv6, ipv6Bits, bits)
}

function rangeAt(start: bigint, value: bigint, width: number, bits: number): Range | undefined {
  if (bits < 0 || bits > width) return undefined
  const size = 1n << BigInt(width - bits)
  return { first: start + value - (value % size), size }
}

function parseIpv4(text: string): bigint | undefined {
  if (!/^(\d{1,3}\.){3}\d{1,3}$/.test(text)) return undefined
  const bytes = text.split('.').map(Number)
  return bytes.some((byte) => byte > 255) ? undefined : bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
}

function parseIpv6(text: string): bigint | undefined {
  // The URL parser knows every spelling of an IPv6 address and answers in the shortest (WHATWG URL, IPv6 serialiser).
  if (!/^[\da-f:.]{2,45}$/i.test(text) || !text.includes(':')) return undefined
  const host = URL.parse(`http://[${text}]/`)?.hostname
  if (host === undefined) return undefined
  const [head = '', tail = ''] = host.slice(1, -1).split('::')
  const groups = (part: string) => (part === '' ? [] : part.split(':'))
  const [left, right] = [groups(head), groups(tail)]
  const zeros = Array<string>(8 - left.length - right.length).fill('0')
  return [...left, ...zeros, ...right].reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n)
}

function formatRange({ first, size }: Range): string {
  const hostBits = size.toString(2).length - 1
  if (first < ipv6Start) {
    const bytes = [24n, 16n, 8n, 0n].map((shift) => (first >> shift) & 0xffn)
    return `${bytes.join('.')}/${ipv4Bits - hostBits}`
  }
  const value = first - ipv6Start
  const groups = Array.from({ length: 8 }, (_, index) => (value >> BigInt(112 - index * 16)) & 0xffffn)
  const text = groups.map((group) => group.toString(16)).join(':')
  return `${URL.parse(`http://[${text}]/`)?.hostname.slice(1, -1) ?? text}/${ipv6Bits - hostBits}`
}
