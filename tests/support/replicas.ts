// Two servers over one PostgreSQL behind one address, as behind a load balancer. The test says who answers next.
import { createServer, request as forward } from 'node:http'
import { freePort } from './free-port.ts'
import { startServer, type TestServer, type TestServerOptions } from './server.ts'

export interface Replicas {
  /** The first, under the address of both. */
  readonly here: TestServer
  readonly there: TestServer
  /** Who answers what is asked from now on. */
  ask(replica: 'here' | 'there'): void
  close(): Promise<void>
}

export async function startReplicas(options: TestServerOptions = {}): Promise<Replicas> {
  const port = await freePort()
  const issuer = `http://localhost:${port}`
  const environment = { ...options.environment, MLPIPES_AUTH_URL: issuer }
  const here = { ...(await startServer('postgres', { ...options, environment })), issuer }
  const there = await startServer('postgres', { ...options, environment, share: here })
  let asked: TestServer = here
  const front = createServer((incoming, answer) => {
    const { method, url, headers } = incoming
    const outgoing = forward({ host: '127.0.0.1', port: asked.port, method, path: url, headers }, (received) => {
      answer.writeHead(received.statusCode ?? 502, received.rawHeaders)
      received.pipe(answer)
    })
    outgoing.on('error', () => answer.destroy())
    incoming.pipe(outgoing)
  })
  await new Promise<void>((resolve) => front.listen(port, '127.0.0.1', resolve))
  return {
    here,
    there,
    ask(replica) {
      asked = replica === 'here' ? here : there
    },
    async close() {
      front.closeAllConnections()
      await new Promise((resolve) => front.close(resolve))
      await there.close()
      await here.close()
    },
  }
}
