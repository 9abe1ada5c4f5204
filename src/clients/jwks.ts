// The public keys that a client is registered with (RFC 7517). A private one does not belong here: whoever reads a
// registration would hold it. Nor does one that no signature of the client could be checked with: it would be found out at
// its first token request, by an invalid_client that must not say why. What was registered before these rules is read as it
// stands; they hold for what is written.
import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { z } from 'zod'

const maxKeys = 20
const maxMembers = 20
const maxLength = 4_096

const namePattern = /^[A-Za-z0-9_#:.-]{1,64}$/
const text = z
  .string()
  .max(maxLength)
  .regex(/^[\x20-\x7e]*$/)
const member = z.union([text, z.boolean(), z.array(text).max(10)])

type Jwk = Readonly<Record<string, unknown>>

/** RFC 7518 §3.3: no signature is made or checked with less. OpenSSL checks none with more. */
const modulusBits = { least: 2_048, most: 16_384 }
/** RFC 8017 §3.1 wants it odd and at least 3; libraries take no more than 33 bits, so that nobody is made to calculate for long. */
const publicExponent = { least: 3n, most: 2n ** 33n - 1n }

interface Kind {
  /** What makes a public key of the type, and nothing else does. */
  readonly members: readonly string[]
  /** Curves that a client may sign with, and what by; without `crv` under the empty name. */
  readonly algorithms: Readonly<Record<string, readonly string[]>>
}

/** What clients may sign with (RFC 7518 §3.1, RFC 9864 §2.2); discovery lists the same. */
const kinds: Readonly<Record<string, Kind>> = {
  RSA: { members: ['n', 'e'], algorithms: { '': ['RS256', 'RS384', 'PS256'] } },
  EC: { members: ['crv', 'x', 'y'], algorithms: { 'P-256': ['ES256'], 'P-384': ['ES384'] } },
  OKP: { members: ['crv', 'x'], algorithms: { Ed25519: ['Ed25519'] } },
}
const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

export const jwks = z
  .strictObject({ keys: z.array(z.record(z.string(), z.unknown())).min(1).max(maxKeys) })
  .superRefine(({ keys }, context) => {
    for (const [index, key] of keys.entries()) {
      const problem = formProblem(key) ?? useProblem(key) ?? materialProblem(key)
      if (problem === undefined) continue
      context.addIssue({ code: 'custom', path: ['keys', index], message: `${problem} (${nameOf(key, index)})` })
    }
  })

/** How its owner knows a key: by its `kid`, if that can be repeated anywhere, and else by its place. */
function nameOf({ kid }: Jwk, index: number): string {
  return typeof kid === 'string' && /^[\w.:@/+=#~-]{1,64}$/.test(kid) ? `kid ${kid}` : `keys[${index}]`
}

/** Whether it is a public key at all. */
function formProblem(key: Jwk): string | undefined {
  const members = Object.entries(key)
  const kind = kindOf(key)
  if (!kind) return 'must be a public key of type RSA, EC or OKP'
  if (secretMembers.some((name) => Object.hasOwn(key, name))) return 'must not hold a private or secret key'
  if (members.length > maxMembers) return `must not have more than ${maxMembers} members`
  if (!members.every(([name, value]) => namePattern.test(name) && member.safeParse(value).success))
    return `must hold text of printable ASCII, at most ${maxLength} characters`
  const isWhole = kind.members.every((name) => /^[A-Za-z0-9_-]+$/.test(String(key[name] ?? '')))
  return isWhole ? undefined : `must have ${kind.members.join(', ')}`
}

/** Whether it says of itself that it is for something else (RFC 7517 §4.2 to §4.4): nothing but signatures is checked here. */
function useProblem(key: Jwk): string | undefined {
  const { use, key_ops: operations, alg } = key
  const curves = kindOf(key)?.algorithms ?? {}
  const algorithms = algorithmsOf(key)
  if (!algorithms) return `must be on a curve out of: ${Object.keys(curves).join(' ')}; make a new key`
  if (use !== undefined && use !== 'sig') return 'must have use sig or none: leave out keys for encryption'
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify')))
    return 'must have verify in key_ops, or no key_ops'
  if (alg !== undefined && !algorithms.some((name) => name === alg))
    return `must have an alg out of: ${algorithms.join(' ')}; or none`
  return undefined
}

/** Whether a signature can be checked with it. */
function materialProblem(key: Jwk): string | undefined {
  const imported = importKey(key)
  if (!imported) return 'must be a key of its kind, with a point on its curve: export it again from the private key'
  if (imported.asymmetricKeyType !== 'rsa') return undefined
  const { modulusLength: bits = 0, publicExponent: exponent = 0n } = imported.asymmetricKeyDetails ?? {}
  if (bits < modulusBits.least || bits > modulusBits.most)
    return `must have a modulus of ${modulusBits.least} to ${modulusBits.most} bits, and has ${bits}: make a new key`
  const isSane = exponent % 2n === 1n && exponent >= publicExponent.least && exponent <= publicExponent.most
  return isSane ? undefined : 'must have a usual public exponent, such as 65537 (e: AQAB): make a new key'
}

/** Node refuses points that are not on their curve, which give a private key away or check nothing. */
function importKey(key: Jwk): KeyObject | undefined {
  const members = ['kty', ...(kindOf(key)?.members ?? [])]
  const jwk: JsonWebKey = Object.fromEntries(members.map((name) => [name, key[name]]))
  try {
    return createPublicKey({ key: jwk, format: 'jwk' })
  } catch {
    return undefined
  }
}

const kindOf = ({ kty }: Jwk) => own(kinds, kty)

/** What a client signs by with such a key; undefined when it is on a curve that nobody signs with here. */
function algorithmsOf(key: Jwk): readonly string[] | undefined {
  const kind = kindOf(key)
  return kind && own(kind.algorithms, kind.members.includes('crv') ? key['crv'] : '')
}

/** An entry of a table by a name that a stranger chose. */
function own<Value>(table: Readonly<Record<string, Value>>, name: unknown): Value | undefined {
  return typeof name === 'string' && Object.hasOwn(table, name) ? table[name] : undefined
}
