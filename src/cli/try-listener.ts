// The loopback listener of `mlpipes-auth try` (RFC 8252 §7.3): waits for one browser to come back, and tells it so.
import { createServer } from 'node:http'
import { isLoopbackUri } from './try-address.ts'

export interface Listener {
  /** Where it listens, with the port that it got. */
  readonly uri: string
  /** The parameters that came; undefined when nobody came in time. */
  answer(timeoutMs: number): Promise<URLSearchParams | undefined>
  close(): void
}

const page = 'The terminal has the answer now. You can close this page.\n'

/** Throws when the address is not of this machine, or taken. */
export async function listenOnce(redirectUri: string): Promise<Listener> {
  if (!isLoopbackUri(redirectUri)) throw new Error('not an http address of this machine')
  const wanted = new URL(redirectUri)
  let arrive: (parameters: URLSearchParams) => void = () => undefined
  const arrived = new Promise<URLSearchParams>((resolve) => {
    arrive = resolve
  })
  const server = createServer((request, response) => {
    const asked = URL.parse(request.url ?? '', wanted.href)
    const isHere = request.method === 'GET' && asked?.pathname === wanted.pathname
    response.writeHead(isHere ? 200 : 404, {
      'content-type': 'text/plain; charset=utf-8',
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
      'content-security-policy': "default-src 'none'",
      connection: 'close',
    })
    response.end(isHere ? page : 'Nothing here.\n')
    if (isHere && asked) arrive(asked.searchParams)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(Number(wanted.port || 80), wanted.hostname.replace(/^\[|\]$/g, ''), resolve)
  })
  const address = server.address()
  if (typeof address === 'object' && address !== null) wanted.port = String(address.port)
  return {
    uri: wanted.href,
    answer(timeoutMs) {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<undefined>((resolve) => {
        timer = setTimeout(() => resolve(undefined), timeoutMs)
      })
      return Promise.race([arrived, late]).finally(() => clearTimeout(timer))
    },
    close: () => void server.close(),
  }
}
