// The only way this server calls out to addresses that others registered (F78): https, to no address of the machine, its
// network or any special-purpose range, checked in the look-up that the connection itself makes; no redirects; an end to the
// time and to what is read.
import { lookup as systemLookup } from 'node:dns/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { BlockList, isIP, type LookupFunction } from 'node:net'

export const outboundTimeoutMs = 5_000
export const maxAnswerBytes = 16_384
/** Of what is fetched while somebody waits for it. */
export const documentTimeoutMs = 2_500
export const maxDocumentBytes = 65_536

// IANA's special-purpose address registries (RFC 6890), and what carries an IPv4 address inside an IPv6 one.
const special = new BlockList()
for (const [address, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const)
  special.addSubnet(address, prefix, 'ipv4')
// Only 2000::/3 is given out to anybody; of it these are not.
const global = new BlockList()
global.addSubnet('2000::', 3, 'ipv6')
for (const [address, prefix] of [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const)
  special.addSubnet(address, prefix, 'ipv6')

/** Whether an address is one that anybody on the internet may have. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address)
  if (family === 4) return !special.check(address, 'ipv4')
  return family === 6 && global.check(address, 'ipv6') && !special.check(address, 'ipv6')
}

const loopbackNames = new Set(['localhost', '127.0.0.1', '[::1]'])
const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** Why a call was not answered. The code is safe to store and to show: it says nothing of what was answered. */
export class OutboundFailed extends Error {
  readonly code: string
  constructor(code: string) {
    super(code)
    this.code = code
  }
}

export interface Outbound {
  /**
   * Posts a body and returns the status, whatever it is. What is answered beside it is thrown away.
   * @throws OutboundFailed when there is no answer
   */
  post(url: string, headers: Readonly<Record<string, string>>, body: string): Promise<number>
  /**
   * Fetches a small document, whatever the status.
   * @throws OutboundFailed when there is no answer, or one that is too large or not all there in time
   */
  get(url: string, headers: Readonly<Record<string, string>>): Promise<OutboundDocument>
}

export interface OutboundDocument {
  readonly status: number
  readonly cacheControl: string | undefined
  readonly body: Buffer
}

export interface OutboundOptions {
  /** Development and tests: http, and this machine, for addresses that say so by name. */
  readonly allowLoopback: boolean
  readonly resolve?: (hostname: string) => Promise<readonly { readonly address: string; readonly family: number }[]>
  readonly timeoutMs?: number
}

export function createOutbound(options: OutboundOptions): Outbound {
  const resolve = options.resolve ?? ((hostname) => systemLookup(hostname, { all: true, verbatim: true }))
  return {
    post: async (text, headers, body) =>
      send(
        target(text),
        {
          method: 'POST',
          headers: { ...headers, 'content-length': String(Buffer.byteLength(body)) },
          timeoutMs: options.timeoutMs ?? outboundTimeoutMs,
          body,
        },
        readStatus,
      ),
    get: async (text, headers) =>
      send(target(text), { method: 'GET', headers, timeoutMs: options.timeoutMs ?? documentTimeoutMs }, readDocument),
  }

  function target(text: string): Target {
    const url = URL.parse(text)
    const isLoopback = url !== null && options.allowLoopback && loopbackNames.has(url.hostname)
    if (!url || !(url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback)))
      throw new OutboundFailed('ENOTHTTPS')
    const isAllowed = (address: string) =>
      isPublicAddress(address) || (isLoopback && loopback.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4'))
    // An address in the place of a name is never looked up.
    const literal = url.hostname.replace(/^\[|\]$/g, '')
    if (isIP(literal) !== 0 && !isAllowed(literal)) throw new OutboundFailed('EFORBIDDENADDRESS')
    return { url, lookup: checkedLookup(resolve, isAllowed) }
  }
}

/** An address that may be called, as far as it can be judged before it is looked up, and the look-up that judges the rest. */
interface Target {
  readonly url: URL
  readonly lookup: LookupFunction
}

/** What the socket asks for an address: one answer is used, so nothing changes between the check and the connection. */
function checkedLookup(
  resolve: NonNullable<OutboundOptions['resolve']>,
  isAllowed: (address: string) => boolean,
): LookupFunction {
  return (hostname, { all }, callback) => {
    resolve(hostname).then(
      (addresses) => {
        const [first] = addresses
        // One forbidden address among others is no accident.
        if (!first || !addresses.every(({ address }) => isAllowed(address)))
          return callback(new OutboundFailed(first ? 'EFORBIDDENADDRESS' : 'ENOTFOUND'), '', 0)
        return all ? callback(null, [...addresses]) : callback(null, first.address, first.family)
      },
      (error: unknown) => callback(new OutboundFailed(codeOf(error)), '', 0),
    )
  }
}

interface Call {
  readonly method: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly body?: string
}

function send<T>(
  { url, lookup }: Target,
  { method, headers, timeoutMs, body }: Call,
  read: (answer: IncomingMessage) => Promise<T>,
): Promise<T> {
  const signal = AbortSignal.timeout(timeoutMs)
  const options: RequestOptions = {
    method,
    headers: { ...headers, 'user-agent': 'mlpipes-auth' },
    lookup,
    // A connection of its own: one kept from before was checked for another name, or at another time.
    agent: false,
    signal,
  }
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      if (error instanceof OutboundFailed) reject(error)
      else reject(new OutboundFailed(signal.aborted ? 'ETIMEDOUT' : codeOf(error)))
    }
    const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(url, options, (answer) => {
      read(answer).then(resolve, fail)
    })
    request.on('error', fail)
    request.end(body)
  })
}

/** What else is said is not kept, and not listened to for long. */
async function readStatus(answer: IncomingMessage): Promise<number> {
  let bytes = 0
  for await (const chunk of answer) {
    bytes += Buffer.byteLength(chunk)
    if (bytes > maxAnswerBytes) break
  }
  return answer.statusCode ?? 0
}

async function readDocument(answer: IncomingMessage): Promise<OutboundDocument> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer) {
    bytes += Buffer.byteLength(chunk)
    if (bytes > maxDocumentBytes) throw new OutboundFailed('ETOOLARGE')
    chunks.push(Buffer.from(chunk))
  }
  return {
    status: answer.statusCode ?? 0,
    cacheControl: answer.headers['cache-control'],
    body: Buffer.concat(chunks),
  }
}

function codeOf(error: unknown): string {
  if (error instanceof Error && error.name === 'TimeoutError') return 'ETIMEDOUT'
  const cause: unknown = error instanceof Error ? error.cause : undefined
  if (cause instanceof Error && cause.name === 'TimeoutError') return 'ETIMEDOUT'
  const code: unknown = Reflect.get(Object(error), 'code')
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]{1,39}$/.test(code) ? code : 'EFAILED'
}
