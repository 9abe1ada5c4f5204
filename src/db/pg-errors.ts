// What PostgreSQL's SQLSTATEs mean to us. Both drivers put them in `code`.

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
export function isCollision(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === '40001' || error.code === '40P01')
}
