// Proofs of possession (RFC 9449 §4.3): whoever shows a bound token shows with each request that they hold its key.
import { createHash, createPublicKey, type JsonWebKey, type KeyObject, verify } from 'node:crypto'
import { isObject, parseObject } from './connection.ts'

/** How a proof may be signed, and which kind of key that takes. A token is bound by a proof that the issuer took, so it is these. */
const algorithms = {
  ES256: { hash: 'sha256', kty: 'EC', crv: 'P-256', members: ['crv', 'kty', 'x', 'y'] },
  Ed25519: { hash: null, kty: 'OKP', crv: 'Ed25519', members: ['crv', 'kty', 'x'] },
  EdDSA: { hash: null, kty: 'OKP', crv: 'Ed25519', members: ['crv', 'kty', 'x'] },
} as const
export type ProofAlgorithm = keyof typeof algorithms
/** `dpop_signing_alg_values_supported` of the issuer (RFC 9449 §5.1). */
export const proofAlgorithms: readonly ProofAlgorithm[] = ['ES256', 'Ed25519', 'EdDSA']

const maxProofLength = 8_192
const maxJtiLength = 256
// What makes a JWK private or shared. A proof that gives its key away proves nothing.
const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

interface Proof {
  readonly alg: ProofAlgorithm
  readonly jwk: Readonly<Record<string, string>>
  readonly payload: Readonly<Record<string, unknown>>
  readonly signed: Buffer
  readonly signature: Buffer
}

/** The request and the token that a proof must have been made for. */
export interface ProofSubject {
  readonly method: string
  /** As the client wrote it; query and fragment do not count. */
  readonly url: URL
  readonly accessToken: string
  /** Thumbprint of the key that the token is bound to. */
  readonly jkt: string
}

export interface ProofRules {
  readonly algorithms: readonly ProofAlgorithm[]
  /** How far from now a proof may say it was made, to both sides. */
  readonly windowSeconds: number
}

/** @returns what names this proof among all of its key, and until when another with this name is a replay; undefined for a proof that proves nothing */
export function checkProof(
  text: string,
  subject: ProofSubject,
  rules: ProofRules,
  nowMs = Date.now(),
): { readonly id: string; readonly untilMs: number } | undefined {
  const proof = parseProof(text, rules.algorithms)
  if (!proof) return undefined
  const { iat, jti, htm, htu, ath } = proof.payload
  if (typeof jti !== 'string' || jti === '' || jti.length > maxJtiLength) return undefined
  if (typeof iat !== 'number' || !(Math.abs(nowMs / 1000 - iat) <= rules.windowSeconds)) return undefined
  if (htm !== subject.method || typeof htu !== 'string' || bare(htu) !== bare(subject.url.href)) return undefined
  if (ath !== digest(subject.accessToken)) return undefined
  if (thumbprint(proof) !== subject.jkt) return undefined
  // Last, because it costs most.
  if (!isSigned(proof)) return undefined
  return { id: digest(`${subject.jkt} ${jti}`), untilMs: (iat + rules.windowSeconds) * 1000 }
}

function parseProof(text: string, allowed: readonly ProofAlgorithm[]): Proof | undefined {
  const parts = /^([\w-]+)\.([\w-]+)\.([\w-]+)$/.exec(text)
  if (text.length > maxProofLength || !parts) return undefined
  const [, head = '', body = '', signature = ''] = parts
  const header = parseObject(decode(head).toString('utf8'))
  const payload = parseObject(decode(body).toString('utf8'))
  if (!header || !payload || header['typ'] !== 'dpop+jwt' || 'crit' in header) return undefined
  const alg = allowed.find((name) => name === header['alg'])
  const jwk = alg && publicKeyOf(header['jwk'], alg)
  if (!jwk) return undefined
  return { alg, jwk, payload, signed: Buffer.from(`${head}.${body}`), signature: decode(signature) }
}

/** Those members of a JWK that make the key, if it is one for this algorithm. */
function publicKeyOf(value: unknown, alg: ProofAlgorithm): Record<string, string> | undefined {
  if (!isObject(value) || secretMembers.some((name) => name in value)) return undefined
  const { kty, crv, members } = algorithms[alg]
  if (value['kty'] !== kty || value['crv'] !== crv) return undefined
  const key: Record<string, string> = {}
  for (const name of members) {
    const member = value[name]
    if (typeof member !== 'string') return undefined
    key[name] = member
  }
  return key
}

/** RFC 7638: the members that make the key, in the order of their names, which is the order in the table. */
function thumbprint({ alg, jwk }: Proof): string {
  return digest(JSON.stringify(Object.fromEntries(algorithms[alg].members.map((name) => [name, jwk[name]]))))
}

function isSigned({ alg, jwk, signed, signature }: Proof): boolean {
  const { hash } = algorithms[alg]
  const key = importKey(jwk)
  // The encoding says nothing to Ed25519, which has one alone.
  return key !== undefined && verify(hash, signed, { key, dsaEncoding: 'ieee-p1363' }, signature)
}

function importKey(jwk: JsonWebKey): KeyObject | undefined {
  try {
    return createPublicKey({ key: jwk, format: 'jwk' })
  } catch {
    // Not a point of its curve, or nothing of the kind.
    return undefined
  }
}

/** An address without query and fragment, written the one way that URLs are compared in (RFC 3986 §6.2). */
function bare(address: string): string | undefined {
  const url = URL.parse(address)
  return url ? `${url.origin}${url.pathname}` : undefined
}

const decode = (text: string) => Buffer.from(text, 'base64url')
const digest = (text: string) => createHash('sha256').update(text).digest('base64url')

/** Where the proofs that were used are written down. Several processes of one API share one, or each proof works once in each. */
export interface ReplayMemory {
  /** True for the first who asks; false for everybody after, until then. 'full' when it can remember no more. */
  claim(proofId: string, untilMs: number): boolean | 'full' | Promise<boolean | 'full'>
}

/** A memory of this process. When it is full it says so: to forget one would be to let it in again. */
export function createReplayMemory(maxProofs: number): ReplayMemory {
  const used = new Map<string, number>()
  const sweep = (nowMs: number): void => {
    for (const [id, untilMs] of used) if (untilMs < nowMs) used.delete(id)
  }
  return {
    claim(proofId, untilMs) {
      const nowMs = Date.now()
      const until = used.get(proofId)
      if (until !== undefined && until >= nowMs) return false
      if (used.size >= maxProofs) sweep(nowMs)
      if (used.size >= maxProofs) return 'full'
      used.set(proofId, untilMs)
      return true
    },
  }
}
