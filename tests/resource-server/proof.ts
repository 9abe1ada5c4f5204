// A token that is bound to a key, and proofs of that key as a client makes them (RFC 9449).
import { createHash, randomUUID } from 'node:crypto'
import { exportJWK, type generateKeyPair, SignJWT } from 'jose'
import type { TestServer } from '../support/server.ts'
import { serviceToken } from './seed.ts'

type Pair = Awaited<ReturnType<typeof generateKeyPair>>

async function sign(pair: Pair, claims: Record<string, unknown>): Promise<string> {
  const jwk = await exportJWK(pair.publicKey)
  const proof = new SignJWT({ jti: randomUUID(), ...claims }).setIssuedAt()
  return proof.setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk }).sign(pair.privateKey)
}

/** For one request with this token. */
export async function proofFor(pair: Pair, token: string, htu: string, htm = 'GET'): Promise<string> {
  return sign(pair, { htm, htu, ath: createHash('sha256').update(token).digest('base64url') })
}

/** A service's token, bound by the proof that came with the request for it. */
export async function boundToken(server: TestServer, pair: Pair): Promise<string> {
  const dpop = await sign(pair, { htm: 'POST', htu: `${server.issuer}/oauth/token` })
  return serviceToken(server, 'reader', { scope: 'introspect' }, { dpop })
}
