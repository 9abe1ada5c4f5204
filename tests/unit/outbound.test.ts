// F78: this server calls nobody inside its own network, whatever was registered and whatever DNS says.
import { createServer, type Server } from 'node:http'
import { type AddressInfo, createServer as createSocketServer } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import {
  createOutbound,
  isPublicAddress,
  maxAnswerBytes,
  maxDocumentBytes,
  type OutboundDocument,
  OutboundFailed,
} from '../../src/http/outbound.ts'

const headers = { 'content-type': 'text/plain' }
let served = 0
let trap: Server
let port: number
beforeAll(async () => {
  trap = createServer((request, response) => {
    served += 1
    if (request.url === '/redirect') response.writeHead(302, { location: '/secret' }).end()
    else if (request.url === '/huge') response.end('x'.repeat(maxAnswerBytes * 64))
    else if (request.url === '/largest') response.end('x'.repeat(maxDocumentBytes))
    else if (request.url === '/larger') response.end('x'.repeat(maxDocumentBytes + 1))
    else if (request.url === '/drip') response.write('x')
    else if (request.url === '/cut')
      response.writeHead(200, { 'content-length': '9' }).write('x', () => response.destroy())
    else if (request.url === '/document')
      response.writeHead(200, { 'cache-control': 'max-age=7' }).end(JSON.stringify([request.method, request.headers]))
    else if (request.url !== '/never') response.writeHead(204).end()
  })
  await new Promise<void>((resolve) => void trap.listen(0, '127.0.0.1', () => resolve()))
  port = (trap.address() as AddressInfo).port
})
afterAll(() => {
  trap.closeAllConnections()
  trap.close()
})
beforeEach(() => {
  served = 0
})

const code = (call: Promise<number | OutboundDocument>) =>
  call.then(
    (answer) => (typeof answer === 'number' ? answer : answer.status),
    (error: unknown) => (error instanceof OutboundFailed ? error.code : error),
  )

describe('addresses', () => {
  it.each([
    '0.0.0.0',
    '0.1.2.3',
    '10.0.0.1',
    '100.64.0.1',
    '100.127.255.255',
    '127.0.0.1',
    '127.255.255.254',
    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.0.0.8',
    '192.0.2.1',
    '192.168.1.1',
    '198.18.0.1',
    '198.19.255.255',
    '203.0.113.9',
    '224.0.0.1',
    '239.255.255.255',
    '240.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:127.0.0.1',
    '::ffff:8.8.8.8',
    '::ffff:7f00:1',
    '::127.0.0.1',
    '64:ff9b::7f00:1',
    '64:ff9b:1::1',
    '100::1',
    'fc00::1',
    'fd12:3456::1',
    'fe80::1',
    'fec0::1',
    'ff02::1',
    '2001:db8::1',
    '2001::1',
    '2002:7f00:1::',
    '3fff::1',
    'localhost',
    '',
    '1.2.3',
  ])('%s is nobody on the internet', (address) => expect(isPublicAddress(address)).toBe(false))
  it.each([
    '1.1.1.1',
    '8.8.8.8',
    '100.63.255.255',
    '100.128.0.0',
    '172.15.255.255',
    '172.32.0.0',
    '192.0.1.1',
    '198.17.255.255',
    '198.20.0.0',
    '223.255.255.255',
    '2606:4700::1111',
    '2a00:1450::1',
  ])('%s is somebody', (address) => expect(isPublicAddress(address)).toBe(true))
})

describe('F78: in production', () => {
  const outbound = () => createOutbound({ allowLoopback: false })
  it.each([
    ['http', (p: number) => `http://127.0.0.1:${p}/`],
    ['http by name', (p: number) => `http://localhost:${p}/`],
    ['https', (p: number) => `https://127.0.0.1:${p}/`],
    ['https by name', (p: number) => `https://localhost:${p}/`],
    ['decimal', (p: number) => `https://2130706433:${p}/`],
    ['octal', (p: number) => `https://0177.0.0.1:${p}/`],
    ['hexadecimal', (p: number) => `https://0x7f.1:${p}/`],
    ['zero', (p: number) => `https://0:${p}/`],
    ['full width digits', (p: number) => `https://１２７.0.0.1:${p}/`],
    ['IPv6', (p: number) => `https://[::1]:${p}/`],
    ['mapped', (p: number) => `https://[::ffff:127.0.0.1]:${p}/`],
    ['another protocol', (p: number) => `ftp://127.0.0.1:${p}/`],
    ['nonsense', () => 'nonsense'],
  ])('a %s address serves nothing', async (_name, url) => {
    const refused = /^E(NOTHTTPS|FORBIDDENADDRESS)$/
    expect(await code(outbound().post(url(port), headers, 'x'))).toMatch(refused)
    expect(await code(outbound().get(url(port), headers))).toMatch(refused)
    expect(served).toBe(0)
  })
})

describe('F78: what DNS says', () => {
  const withAnswers = (...answers: readonly (readonly string[])[]) => {
    let asked = 0
    const resolve = async () =>
      (answers[Math.min(asked++, answers.length - 1)] ?? []).map((address) => ({
        address,
        family: address.includes(':') ? 6 : 4,
      }))
    return { outbound: createOutbound({ allowLoopback: true, resolve, timeoutMs: 1_000 }), asked: () => asked }
  }
  /** Whether anybody connected, which is before TLS and so counts for https too. */
  async function connections(call: (port: number) => Promise<unknown>): Promise<number> {
    let count = 0
    const server = createSocketServer((socket) => {
      count += 1
      socket.destroy()
    })
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()))
    await call((server.address() as AddressInfo).port)
    await new Promise((resolve) => server.close(resolve))
    return count
  }

  it.each([[['127.0.0.1']], [['8.8.8.8', '127.0.0.1']], [['::1']], [['10.1.2.3']], [['::ffff:127.0.0.1']], [[]]])(
    'a name that is at %j is not called, in development either',
    async (answers) => {
      const { outbound } = withAnswers(answers)
      const refused = /^E(FORBIDDENADDRESS|NOTFOUND)$/
      const count = await connections(async (at) => {
        expect(await code(outbound.post(`https://evil.example:${at}/`, headers, 'x'))).toMatch(refused)
        expect(await code(outbound.get(`https://evil.example:${at}/`, headers))).toMatch(refused)
      })
      expect(count).toBe(0)
    },
  )
  it('a name that moves home after it was looked at is never looked up again', async () => {
    const { outbound, asked } = withAnswers(['203.0.113.1'], ['127.0.0.1'])
    const count = await connections((at) => code(outbound.post(`https://rebind.example:${at}/`, headers, 'x')))
    expect([count, asked()]).toEqual([0, 1])
  })
  it('nor is one that documents are fetched from', async () => {
    const { outbound, asked } = withAnswers(['203.0.113.1'], ['127.0.0.1'])
    const count = await connections((at) => code(outbound.get(`https://rebind.example:${at}/`, headers)))
    expect([count, asked()]).toEqual([0, 1])
  })
})

describe('a receiver on this machine, in development', () => {
  const outbound = createOutbound({ allowLoopback: true, timeoutMs: 300 })
  const at = (path: string) => outbound.post(`http://127.0.0.1:${port}${path}`, headers, 'x')
  it('is called', async () => expect(await at('/')).toBe(204))
  it('is called by name', async () => expect(await outbound.post(`http://localhost:${port}/`, headers, 'x')).toBe(204))
  it('sends us nowhere else', async () => {
    expect(await at('/redirect')).toBe(302)
    expect(served).toBe(1)
  })
  it('may say as much as it likes; we stop listening', async () => expect(await at('/huge')).toBe(200))
  it('may not keep us waiting', async () => expect(await code(at('/never'))).toBe('ETIMEDOUT'))
  it('may be down', async () =>
    expect(await code(outbound.post('http://127.0.0.1:1/', headers, 'x'))).toBe('ECONNREFUSED'))
})

describe('a document on this machine, in development', () => {
  const outbound = createOutbound({ allowLoopback: true, timeoutMs: 300 })
  const at = (path: string) => outbound.get(`http://127.0.0.1:${port}${path}`, { accept: 'application/json' })
  it('is fetched', async () => {
    const { status, cacheControl, body } = await at('/document')
    expect([status, cacheControl]).toEqual([200, 'max-age=7'])
    expect(JSON.parse(body.toString())).toEqual([
      'GET',
      { accept: 'application/json', 'user-agent': 'mlpipes-auth', host: `127.0.0.1:${port}`, connection: 'close' },
    ])
  })
  it('is not where it says that it moved to', async () => {
    expect(await code(at('/redirect'))).toBe(302)
    expect(served).toBe(1)
  })
  it('has a limit', async () => {
    expect((await at('/largest')).body).toHaveLength(maxDocumentBytes)
    expect(await code(at('/larger'))).toBe('ETOOLARGE')
  })
  it.each(['/never', '/drip'])('may not keep us waiting: %s', async (path) =>
    expect(await code(at(path))).toBe('ETIMEDOUT'),
  )
  it('is whole or not there', async () => expect(await code(at('/cut'))).toBe('ECONNRESET'))
  it('may be down', async () => expect(await code(outbound.get('http://127.0.0.1:1/', {}))).toBe('ECONNREFUSED'))
})
