// Passwords: argon2id with a bounded number of hashes at once, and the same work whoever is asked about.
import { availableParallelism } from 'node:os'
import argon2 from 'argon2'
import { Refusal } from '../errors.ts'

/** OWASP's floor for argon2id: 19 MiB, two passes, one lane. */
export const defaultHashCost: HashCost = { memoryKib: 19_456, passes: 2 }

export interface HashCost {
  readonly memoryKib: number
  readonly passes: number
}

export const maxPasswordCodePoints = 256
const maxWaitingHashes = 100
const busyRetrySeconds = 5

export type PasswordCheck = { readonly ok: true; readonly rehash: string | undefined } | { readonly ok: false }

export interface Passwords {
  hash(password: string): Promise<string>
  /**
   * Compares a password with a PHC string. Without one it does the same work and says no.
   * `rehash` holds a new PHC string when the stored one was made at a lower cost than today's.
   */
  check(password: string, phc: string | undefined): Promise<PasswordCheck>
}

/** SP 800-63B-4 §3.1.1.2: Unicode is normalised (NFC) before hashing, and a code point counts as one character. */
export function normalizePassword(password: string): string {
  return password.normalize('NFC')
}

export function codePointCount(text: string): number {
  return [...text].length
}

/** Whether a text can be a password at all: not empty, within the limit, well-formed, without NUL. */
export function isPasswordShaped(password: string): boolean {
  return (
    password.length > 0 &&
    password.isWellFormed() &&
    !password.includes('\0') &&
    codePointCount(password) <= maxPasswordCodePoints
  )
}

/** Whether a text is an argon2id PHC string that may be imported. Parameters may stand in any order. */
export function isArgon2idPhc(text: string): boolean {
  const pattern =
    /^\$argon2id\$v=19\$[mtp]=\d{1,7},[mtp]=\d{1,7},[mtp]=\d{1,7}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}$/
  return pattern.test(text) && ['m', 't', 'p'].every((name) => parameter(text, name) >= 1)
}

/** A parameter of a PHC string; NaN when it has none of that name. */
function parameter(phc: string, name: string): number {
  return Number(new RegExp(`[$,]${name}=(\\d+)`).exec(phc)?.[1])
}

/** @param cost what new hashes are made with; tests lower it */
export async function createPasswords(cost: HashCost): Promise<Passwords> {
  const options = { type: argon2.argon2id, memoryCost: cost.memoryKib, timeCost: cost.passes, parallelism: 1 } as const
  const gate = createGate(availableParallelism(), maxWaitingHashes)
  const nobody = await argon2.hash('nobody has this password', options)
  const isWeaker = (phc: string) =>
    argon2.needsRehash(phc, options) && parameterWork(phc) < cost.memoryKib * cost.passes
  return {
    hash: (password) => gate(() => argon2.hash(normalizePassword(password), options)),
    check: (password, phc) =>
      gate(async () => {
        const matches = await argon2.verify(phc ?? nobody, normalizePassword(password))
        if (!matches || phc === undefined) return { ok: false }
        return { ok: true, rehash: isWeaker(phc) ? await argon2.hash(normalizePassword(password), options) : undefined }
      }),
  }
}

function parameterWork(phc: string): number {
  return parameter(phc, 'm') * parameter(phc, 't')
}

/** Lets `width` tasks run and `maxWaiting` wait; refuses the rest at once as busy. */
function createGate(width: number, maxWaiting: number) {
  const waiting: (() => void)[] = []
  let running = 0
  return async <T>(task: () => Promise<T>): Promise<T> => {
    if (running >= width) {
      if (waiting.length >= maxWaiting) throw new Refusal('busy', { retryAfterSeconds: busyRetrySeconds })
      await new Promise<void>((resume) => waiting.push(resume))
    } else {
      running += 1
    }
    try {
      return await task()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }
}
