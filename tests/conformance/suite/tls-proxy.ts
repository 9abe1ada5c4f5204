// The proxy that the server is made to stand behind, as small as one can be: it ends TLS and says who asked.
import { request } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { Certificate } from './certificate.ts'

// BCP 195 (RFC 9325 §4.2): forward secrecy and authenticated encryption alone. TLS 1.3 has nothing else.
const ciphers = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES128-GCM-SHA256',
].join(':')

/** @param port where the server listens on this machine */
export function createTlsProxy(certificate: Certificate, port: number): Server {
  return createServer({ ...certificate, minVersion: 'TLSv1.2', ciphers }, (incoming, outgoing) => {
    const { connection: _, ...headers } = incoming.headers
    const onward = request(
      {
        host: '127.0.0.1',
        port,
        method: incoming.method,
        path: incoming.url,
        headers: { ...headers, 'x-forwarded-for': incoming.socket.remoteAddress ?? '', 'x-forwarded-proto': 'https' },
      },
      (answer) => {
        const { connection: __, 'keep-alive': ___, ...answered } = answer.headers
        outgoing.writeHead(answer.statusCode ?? 502, answered)
        answer.pipe(outgoing)
      },
    )
    onward.on('error', () => (outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end()))
    outgoing.on('close', () => onward.destroy())
    incoming.pipe(onward)
  })
}
