// What of a request is looked at: any framework's, and a Fetch API Request.
import type { Reason } from './verdict.ts'

export interface RequestLike {
  readonly method?: string | undefined
  /** As it came in: a path, or the whole address. */
  readonly url?: string | undefined
  readonly headers: HeaderRecord | HeaderReader
}

type HeaderRecord = Readonly<Record<string, string | readonly string[] | undefined>>

interface HeaderReader {
  get(name: string): string | null
}

export interface Presented {
  readonly scheme: 'bearer' | 'dpop'
  readonly token: string
  readonly proof: string | undefined
}

// Longer than any token of the issuer's.
const maxTokenLength = 4_096
// RFC 6750 §2.1
const pattern = /^(bearer|dpop) +([\w~.+/-]+=*)$/i

/** The token of the Authorization header, the only place where it is looked for: addresses end up in logs. */
export function readAuthorization(request: RequestLike): Presented | Reason {
  const header = readHeader(request, 'authorization')
  if (header === undefined) return 'no_token'
  const [, scheme = '', token = ''] = pattern.exec(header) ?? []
  if (token === '' || token.length > maxTokenLength) return 'malformed_authorization'
  return {
    scheme: scheme.toLowerCase() === 'dpop' ? 'dpop' : 'bearer',
    token,
    proof: readHeader(request, 'dpop'),
  }
}

/** Undefined when it is not there, or there more than once. */
function readHeader({ headers }: RequestLike, name: string): string | undefined {
  if (isReader(headers)) return headers.get(name) ?? undefined
  const value = headers[name]
  return typeof value === 'string' ? value : undefined
}

function isReader(headers: HeaderRecord | HeaderReader): headers is HeaderReader {
  return typeof headers['get'] === 'function'
}
