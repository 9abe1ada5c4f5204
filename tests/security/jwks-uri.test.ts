// F78: keys are fetched from where a client says, and from nowhere that this leads to; what was withdrawn there is no key.
import { createServer, type RequestListener, type Server } from 'node:http'
import { type AddressInfo, createServer as createSocketServer, type Server as SocketServer } from 'node:net'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createOutbound, maxDocumentBytes } from '../../src/http/outbound.ts'
import { createProviderFetch } from '../../src/oidc/provider-fetch.ts'
import { post } from '../support/client.ts'
import { people, startServer, type TestServer } from '../support/server.ts'

type Keys = Awaited<ReturnType<typeof newKeys>>
async function newKeys(kid: string) {
  const { privateKey, publicKey } = await generateKeyPair('ES384')
  return { kid, privateKey, jwks: { keys: [{ ...(await exportJWK(publicKey)), kid }] } }
}

// A client each, because the provider remembers what it fetched for one.
const clientIds = Array.from({ length: 20 }, (_, index) => `fetched-${index}`)
let server: TestServer
/** Where keys are, and what is answered there. */
let host: Server
let hostPort: number
let answer: RequestListener
let served = 0
/** Where nobody should come: any connection counts, so TLS needs no certificate. */
let trap: SocketServer
let trapPort: number
let trapped = 0
let keys: Keys

beforeAll(async () => {
  keys = await newKeys('one')
  const clients = clientIds.map((client_id) => ({
    client_id,
    client_name: 'Serves its keys',
    organization: 'mercy',
    grant_types: ['client_credentials' as const],
    token_endpoint_auth_method: 'private_key_jwt' as const,
    jwks_uri: 'https://keys.vendor.example/',
    scope: 'openid',
  }))
  // One connection, which must not wait for what somebody else serves.
  server = await startServer('postgres', {
    poolSize: 1,
    seed: { ...people, clients: [...(people.clients ?? []), ...clients] },
  })
  host = createServer((request, response) => {
    served += 1
    answer(request, response)
  })
  trap = createSocketServer((socket) => {
    trapped += 1
    socket.destroy()
  })
  for (const each of [host, trap])
    await new Promise<void>((resolve) => void each.listen(0, '127.0.0.1', () => resolve()))
  hostPort = (host.address() as AddressInfo).port
  trapPort = (trap.address() as AddressInfo).port
})
afterAll(async () => {
  host.closeAllConnections()
  host.close()
  trap.close()
  await server.close()
})
beforeEach(() => {
  served = 0
  trapped = 0
})
afterEach(() => void vi.useRealTimers())

/** A client whose keys are on this machine, which nobody can register. */
async function nextClient(uri = `http://127.0.0.1:${hostPort}/jwks`): Promise<string> {
  const clientId = clientIds.pop() ?? expect.fail('no clients left')
  await server.database.run(
    `update mlpipes_auth.clients set metadata = metadata || jsonb_build_object('jwks_uri', $2::text) where client_id = $1`,
    [clientId, uri],
  )
  return clientId
}

async function present(clientId: string, { kid, privateKey } = keys, header: { jku?: string } = {}) {
  const client_assertion = await new SignJWT({ jti: crypto.randomUUID() })
    .setProtectedHeader({ alg: 'ES384', kid, typ: 'JWT', ...header })
    .setIssuer(clientId)
    .setSubject(clientId)
    .setAudience(`${server.issuer}/oauth/token`)
    .setExpirationTime('1m')
    .sign(privateKey)
  const response = await fetch(`${server.issuer}/oauth/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion,
    }),
  })
  const body: unknown = await response.json()
  return { status: response.status, error: Reflect.get(Object(body), 'error') }
}
const accepted = { status: 200, error: undefined }
const refused = { status: 401, error: 'invalid_client' }

const serveJson =
  (document: unknown, headers: Record<string, string> = {}): RequestListener =>
  (_request, response) =>
    void response.writeHead(200, headers).end(JSON.stringify(document))
const redirectTo =
  (location: string, status = 302): RequestListener =>
  (_request, response) =>
    void response.writeHead(status, { location }).end()
/** The clock of the process, which is what key sets expire by. */
const setClock = (at: number) => vi.useFakeTimers({ toFake: ['Date'], now: at })

describe('a client whose keys are fetched', () => {
  it('authenticates by them, and by those that came in their place', async () => {
    const clientId = await nextClient()
    answer = serveJson(keys.jwks)
    expect(await present(clientId)).toEqual(accepted)
    expect(await present(clientId)).toEqual(accepted)
    expect(served).toBe(1)

    const next = await newKeys('two')
    answer = serveJson(next.jwks)
    setClock(Date.now() + 61_000)
    expect(await present(clientId, next)).toEqual(accepted)
    expect(await present(clientId)).toEqual(refused)
    expect(served).toBe(2)
  })

  it('does not authenticate by a key that was withdrawn, whether or not another is used', async () => {
    const clientId = await nextClient()
    answer = serveJson(keys.jwks)
    expect(await present(clientId)).toEqual(accepted)
    answer = serveJson((await newKeys('two')).jwks)
    setClock(Date.now() + 61_000)
    expect(await present(clientId)).toEqual(refused)
  })

  it.each([
    ['what it says', 'public, max-age=600', 599, 601],
    ['an hour at most', 'max-age=31536000', 3_599, 3_601],
    ['a minute at least', 'no-store, max-age=0', 59, 61],
  ])('has them remembered for %s', async (_name, header, before, after) => {
    const clientId = await nextClient()
    answer = serveJson(keys.jwks, { 'cache-control': header })
    expect(await present(clientId)).toEqual(accepted)
    const start = Date.now()
    setClock(start + (before - 1) * 1_000)
    expect(await present(clientId)).toEqual(accepted)
    expect(served).toBe(1)
    setClock(start + (after + 1) * 1_000)
    expect(await present(clientId)).toEqual(accepted)
    expect(served).toBe(2)
  })

  it('may repeat where they are (SMART App Launch), and not say another place', async () => {
    const jwksUri = `http://127.0.0.1:${hostPort}/jwks`
    const clientId = await nextClient(jwksUri)
    answer = serveJson(keys.jwks)
    expect(await present(clientId, keys, { jku: jwksUri })).toEqual(accepted)
    for (const jku of [`${jwksUri}/`, `${jwksUri}?`, `http://127.0.0.1:${trapPort}/jwks`])
      expect(await present(clientId, keys, { jku })).toEqual(refused)
    expect([served, trapped]).toEqual([1, 0])
  })

  it('is refused while they are not served, and let in when they are again', async () => {
    const clientId = await nextClient()
    answer = (_request, response) =>
      void response.writeHead(503, { 'cache-control': 'max-age=31536000' }).end(JSON.stringify(keys.jwks))
    expect(await present(clientId)).toEqual(refused)
    answer = serveJson(keys.jwks)
    expect(await present(clientId)).toEqual(accepted)
  })
})

describe('F78: what is at a jwks_uri', () => {
  it('the trap works', async () => {
    answer = redirectTo(`http://127.0.0.1:${trapPort}/`)
    await expect(fetch(`http://127.0.0.1:${hostPort}/`)).rejects.toThrow()
    expect(trapped).toBe(1)
  })

  it.each([
    ['http', 302, () => `http://127.0.0.1:${trapPort}/`],
    ['https', 302, () => `https://localhost:${trapPort}/`],
    ['https, for good', 308, () => `https://127.0.0.1:${trapPort}/`],
    ['a private network', 307, () => 'http://169.254.169.254/latest/meta-data'],
    ['the same host', 303, () => '/elsewhere'],
  ])('a redirect to %s leads nowhere', async (_name, status, location) => {
    const clientId = await nextClient()
    answer = redirectTo(location(), status)
    expect(await present(clientId)).toEqual(refused)
    expect([served, trapped]).toEqual([1, 0])
  })

  it.each([
    ['larger than 64 KiB', () => serveJson({ ...keys.jwks, padding: 'x'.repeat(maxDocumentBytes) })],
    ['not JSON', (): RequestListener => (_request, response) => void response.end('<html>')],
    ['no key set', () => serveJson({ keys: 'none' })],
  ])('is refused when it is %s', async (_name, make) => {
    const clientId = await nextClient()
    answer = make()
    expect(await present(clientId)).toEqual(refused)
    expect(served).toBe(1)
  })

  it('is waited for 2.5 s and no longer, and nobody else waits', async () => {
    const clientId = await nextClient()
    answer = (_request, response) => void response.write('{')
    const start = performance.now()
    const slow = present(clientId).then((outcome) => ({ outcome, ms: performance.now() - start }))
    await vi.waitFor(() => expect(served).toBe(1))
    expect((await post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' })).status).toBe(200)
    expect(performance.now() - start).toBeLessThan(2_400)
    const { outcome, ms } = await slow
    expect(outcome).toEqual(refused)
    expect(ms).toBeLessThan(4_000)
  })
})

describe('F78: how the provider fetches in production', () => {
  const call = (uri: string, addresses: readonly string[] = [], init: RequestInit = {}) =>
    createProviderFetch(
      createOutbound({
        allowLoopback: false,
        resolve: async () => addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
      }),
    )(uri, init)

  it.each([
    ['http', 'http://keys.example', ['1.1.1.1'], 'ENOTHTTPS'],
    ['this machine', 'https://localhost', ['127.0.0.1'], 'EFORBIDDENADDRESS'],
    ['this machine by number', 'https://127.0.0.1', [], 'EFORBIDDENADDRESS'],
    ['this machine in decimal', 'https://2130706433', [], 'EFORBIDDENADDRESS'],
    ['this machine in IPv6', 'https://[::ffff:127.0.0.1]', [], 'EFORBIDDENADDRESS'],
    ['another protocol', 'ftp://keys.example', ['1.1.1.1'], 'ENOTHTTPS'],
    ['a name at a private address', 'https://keys.example', ['10.0.0.8'], 'EFORBIDDENADDRESS'],
    ['a name at a private address too', 'https://keys.example', ['1.1.1.1', '127.0.0.1'], 'EFORBIDDENADDRESS'],
    ['a name at a mapped address', 'https://keys.example', ['::ffff:127.0.0.1'], 'EFORBIDDENADDRESS'],
    ['a name of nobody', 'https://keys.example', [], 'ENOTFOUND'],
  ])('%s is not called', async (_name, origin, addresses, code) => {
    await expect(call(`${origin}:${trapPort}/jwks`, addresses)).rejects.toMatchObject({ code })
    expect(trapped).toBe(0)
  })
  it('nothing is posted', async () => {
    await expect(call('https://keys.example/', ['1.1.1.1'], { method: 'POST' })).rejects.toMatchObject({
      code: 'ENOTGET',
    })
  })
})
