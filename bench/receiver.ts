// An app's end of back-channel logout: says when a logout token came in, by the `sid` in it.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Receiver {
  readonly url: string
  /** How many have come in. */
  count(): number
  /** When the token for this `sid` came in, by `performance.now()`; undefined when it does not within the time. */
  heard(sid: string, withinMs: number): Promise<number | undefined>
  close(): void
}

export async function startReceiver(): Promise<Receiver> {
  const times = new Map<string, number>()
  const waiting = new Map<string, (at: number) => void>()
  let count = 0
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const at = performance.now()
      count += 1
      const sid = sidOf(Buffer.concat(chunks).toString())
      times.set(sid, at)
      waiting.get(sid)?.(at)
      response.writeHead(200).end()
    })
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()))
  const address = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${address.port}`,
    count: () => count,
    async heard(sid, withinMs) {
      const { promise, resolve } = Promise.withResolvers<number | undefined>()
      waiting.set(sid, resolve)
      const timer = setTimeout(() => resolve(undefined), withinMs)
      const at = times.get(sid) ?? (await promise)
      clearTimeout(timer)
      waiting.delete(sid)
      return at
    },
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}

const sidOf = (body: string) => {
  const [, claims = ''] = (new URLSearchParams(body).get('logout_token') ?? '').split('.')
  return String(JSON.parse(Buffer.from(claims, 'base64url').toString())['sid'])
}
