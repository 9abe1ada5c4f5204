// Codes as an authenticator app would show them, at the server's time.
import { generate } from 'otplib'
import type { TestServer } from './server.ts'

export const seededSecret = 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'

/** The code of this moment; `aheadSeconds` for the next ones, since each works once. */
export function codeFor(server: Pick<TestServer, 'clock'>, secret = seededSecret, aheadSeconds = 0): Promise<string> {
  const now = server.clock.now ?? new Date()
  return generate({ secret, epoch: Math.floor(now.getTime() / 1000) + aheadSeconds })
}
