// What PostgreSQL's SQLSTATEs mean to us, and what may be tried again. Both drivers put them in `code`.
import { randomInt } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'

const outageClasses = new Set(['08', '53', '57', '58'])
const outageCodes = new Set([
  '25006',
  '55P03',
  '40001',
  '40P01',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ENOTFOUND',
  'ETIMEDOUT',
  'EAI_AGAIN',
])
const outageMessages = [
  'Connection terminated',
  'timeout exceeded when trying to connect',
  'Query read timeout',
  'too many statements are waiting',
  'Client has encountered a connection error',
  'PGlite is closed',
  'PGlite instance is already closed',
]

/** Whether an error says that the database cannot answer now: the request deserves a 503 and may be tried again. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  if (outageCodes.has(code) || (code.length === 5 && outageClasses.has(code.slice(0, 2)))) return true
  if (outageMessages.some((message) => error.message.includes(message))) return true
  if (error instanceof AggregateError) return error.errors.some(isOutage)
  return error.cause !== undefined && isOutage(error.cause)
}

/** Whether two writers collided and one of them may simply try again (serialisation failure, deadlock). */
function isCollision(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === '40001' || error.code === '40P01')
}

/** Whether a unique index refused a row: somebody else was first. */
export function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '23505'
}

/** Whether the database refused a value (SQLSTATE classes 22 and 23): the same again would be refused again. */
export function isRefusedValue(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^2[23]\w{3}$/.test(String(error.code))
}

export const maxCollisionRetries = 3
const retryPauseMs = { least: 5, most: 50 } as const

/** Runs `work` again when it collided, after a pause of random length, so that the same two do not meet again (F95). */
export async function retryCollisions<T>(work: () => Promise<T>): Promise<T> {
  for (let retries = 0; ; retries += 1) {
    try {
      return await work()
    } catch (error) {
      if (retries >= maxCollisionRetries || !isCollision(error)) throw error
      await setTimeout(randomInt(retryPauseMs.least, retryPauseMs.most))
    }
  }
}
