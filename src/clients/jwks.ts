// The public keys that a client is registered with (RFC 7517). A private one does not belong here: whoever reads a
// registration would hold it.
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

/** What makes a public key of each type, and nothing else does. */
const required: Readonly<Record<string, readonly string[]>> = {
  RSA: ['n', 'e'],
  EC: ['crv', 'x', 'y'],
  OKP: ['crv', 'x'],
}
const secretMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

export const jwks = z
  .strictObject({ keys: z.array(z.record(z.string(), z.unknown())).min(1).max(maxKeys) })
  .superRefine(({ keys }, context) => {
    for (const [index, key] of keys.entries())
      for (const message of problemsOf(key)) context.addIssue({ code: 'custom', path: ['keys', index], message })
  })

function problemsOf(key: Readonly<Record<string, unknown>>): string[] {
  const members = Object.entries(key)
  const type = String(key['kty'])
  const needed = Object.hasOwn(required, type) ? required[type] : undefined
  if (!needed) return ['must be a public key of type RSA, EC or OKP']
  if (secretMembers.some((name) => Object.hasOwn(key, name))) return ['must not hold a private or secret key']
  if (members.length > maxMembers) return [`must not have more than ${maxMembers} members`]
  if (!members.every(([name, value]) => namePattern.test(name) && member.safeParse(value).success))
    return [`must hold text of printable ASCII, at most ${maxLength} characters`]
  const isWhole = needed.every((name) => /^[A-Za-z0-9_-]+$/.test(String(key[name] ?? '')))
  return isWhole ? [] : [`must have ${needed.join(', ')}`]
}
