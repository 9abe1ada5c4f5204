// JSON over HTTP to the issuer: connections are kept, answers are bounded in time and size, redirects are not followed.
import * as http from 'node:http'
import * as https from 'node:https'

const maxAnswerBytes = 262_144

export interface JsonAnswer {
  readonly status: number
  readonly body: Readonly<Record<string, unknown>>
}

export interface Outgoing {
  readonly method: 'GET' | 'POST'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

export interface Connection {
  /** Rejects when there is no answer in time, or none in JSON. */
  send(url: URL, outgoing: Outgoing): Promise<JsonAnswer>
  close(): void
}

export function createConnection(parts: { readonly timeoutMs: number; readonly maxSockets: number }): Connection {
  const settings = { keepAlive: true, maxSockets: parts.maxSockets, scheduling: 'lifo' as const }
  const agents = { 'http:': new http.Agent(settings), 'https:': new https.Agent(settings) }

  async function send(url: URL, outgoing: Outgoing): Promise<JsonAnswer> {
    const signal = AbortSignal.timeout(parts.timeoutMs)
    try {
      return await exchange(url, outgoing, signal)
    } catch (error) {
      // The issuer may close an idle connection at the moment that it is taken up again. Asking twice does no harm.
      if (!(error instanceof StaleConnection) || signal.aborted) throw error
      return exchange(url, outgoing, signal)
    }
  }

  function exchange(url: URL, { method, headers, body }: Outgoing, signal: AbortSignal): Promise<JsonAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<JsonAnswer>()
    const isSecure = url.protocol === 'https:'
    const options = {
      method,
      signal,
      agent: isSecure ? agents['https:'] : agents['http:'],
      headers: {
        accept: 'application/json',
        ...headers,
        ...(body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }),
      },
    }
    const request = (isSecure ? https : http).request(url, options, (response) => {
      readJson(response).then((read) => resolve({ status: response.statusCode ?? 0, body: read }), reject)
    })
    request.on('error', (error) => {
      const isStale = request.reusedSocket && 'code' in error && error.code === 'ECONNRESET'
      reject(isStale ? new StaleConnection(error.message, { cause: error }) : error)
    })
    request.end(body)
    return promise
  }

  return {
    send,
    close() {
      agents['http:'].destroy()
      agents['https:'].destroy()
    },
  }
}

class StaleConnection extends Error {}

async function readJson(response: http.IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response) {
    const bytes = Buffer.from(chunk)
    size += bytes.length
    if (size > maxAnswerBytes) throw new Error(`the answer is larger than ${maxAnswerBytes} bytes`)
    chunks.push(bytes)
  }
  const parsed = parseObject(Buffer.concat(chunks).toString('utf8'))
  if (!parsed) throw new Error(`the answer with status ${response.statusCode} is not a JSON object`)
  return parsed
}

/** A JSON object; undefined for anything else. */
export function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(text)
    return isObject(parsed) ? parsed : undefined
  } catch {
    return undefined
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
