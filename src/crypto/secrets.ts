// Secrets at rest: keys derived from MLPIPES_AUTH_SECRET, sealing with AES-256-GCM, digests, random ids.
// What is stored with them (which table, which column) belongs to the callers.
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hash,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto'

type Purpose = 'seal' | 'client-secret' | 'cookie' | 'dpop-nonce' | MacPurpose
type MacPurpose = 'csrf' | 'attempts' | 'backup-code' | 'link-code' | 'user-code' | 'cursor'

interface Root {
  readonly id: string
  key(purpose: Purpose): KeyObject
}

function createRoot(secret: string): Root {
  const keys = new Map<Purpose, KeyObject>()
  const derive = (info: string, length: number) => Buffer.from(hkdfSync('sha256', secret, 'mlpipes-auth', info, length))
  return {
    id: derive('key-id', 4).toString('hex'),
    key(purpose) {
      // As a key object: an HMAC with plain bytes makes one each time, which costs six times the HMAC itself.
      const key = keys.get(purpose) ?? createSecretKey(derive(purpose, 32))
      keys.set(purpose, key)
      return key
    },
  }
}

/** The keys of one server. Everything sealed or digested carries the id of the root it was made with. */
export interface Secrets {
  /** Id of the current root, safe to print: replicas compare it. */
  readonly keyId: string
  /** Seals a text with AES-256-GCM: `v1.<key id>.<iv>.<ciphertext and tag>`; `context` is authenticated with it. */
  seal(plain: string, context: string): string
  /** Opens what `seal` made, with the current or the previous root. Throws when neither fits. */
  open(sealed: string, context: string): string
  /** Digest of a client secret: keyed, so that a stolen database does not help to guess a short one. */
  digestClientSecret(secret: string): string
  matchesClientSecret(secret: string, digest: string): boolean
  /** HMAC-SHA-256 in base64url under the current root; `macs` under each root, newest first. */
  mac(purpose: MacPurpose, text: string): string
  macs(purpose: MacPurpose, text: string): string[]
  matchesMac(purpose: MacPurpose, text: string, mac: string): boolean
  /** Cookie signing keys, newest first (keygrip). */
  readonly cookieKeys: readonly string[]
  /** 32 bytes that every replica makes DPoP nonces from (RFC 9449 §8). */
  readonly dpopNonceKey: Buffer
}

/**
 * @param secret MLPIPES_AUTH_SECRET
 * @param previous MLPIPES_AUTH_SECRET_PREVIOUS: still opens, never seals
 */
export function createSecrets(secret: string, previous?: string): Secrets {
  const current = createRoot(secret)
  const roots = previous === undefined ? [current] : [current, createRoot(previous)]
  const rootOf = (id: string | undefined) => roots.find((root) => root.id === id)
  const clientDigest = (root: Root, value: string) => `h1.${root.id}.${hmac(root.key('client-secret'), value)}`
  return {
    keyId: current.id,
    seal(plain, context) {
      const iv = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', current.key('seal'), iv).setAAD(Buffer.from(context))
      const sealed = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return `v1.${current.id}.${iv.toString('base64url')}.${sealed.toString('base64url')}`
    },
    open(sealed, context) {
      const [version, id, iv, body] = sealed.split('.')
      const root = rootOf(id)
      if (version !== 'v1' || !root || !iv || !body) throw new Error(`sealed with an unknown secret (key id ${id})`)
      const bytes = Buffer.from(body, 'base64url')
      const decipher = createDecipheriv('aes-256-gcm', root.key('seal'), Buffer.from(iv, 'base64url'))
        .setAAD(Buffer.from(context))
        .setAuthTag(bytes.subarray(-16))
      return Buffer.concat([decipher.update(bytes.subarray(0, -16)), decipher.final()]).toString('utf8')
    },
    digestClientSecret: (value) => clientDigest(current, value),
    matchesClientSecret(value, digest) {
      const root = rootOf(digest.split('.')[1])
      return root !== undefined && equal(clientDigest(root, value), digest)
    },
    mac: (purpose, text) => hmac(current.key(purpose), text),
    macs: (purpose, text) => roots.map((root) => hmac(root.key(purpose), text)),
    matchesMac: (purpose, text, mac) => roots.some((root) => equal(hmac(root.key(purpose), text), mac)),
    dpopNonceKey: current.key('dpop-nonce').export(),
    cookieKeys: roots.map((root) => root.key('cookie').export().toString('base64url')),
  }
}

function hmac(key: KeyObject, text: string): string {
  return createHmac('sha256', key).update(text).digest('base64url')
}

function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

/** SHA-256 in base64url: how ids of 128 bits and more are kept at rest. */
export function sha256(text: string): string {
  return hash('sha256', text, 'base64url')
}

/** An id of 128 random bits with a prefix that keeps the kinds of ids apart (RFC 9700 §4.15). */
export function randomId(prefix: 'acc' | 'org' | 'totp' | 'dom'): string {
  return `${prefix}_${randomBytes(16).toString('base64url')}`
}
