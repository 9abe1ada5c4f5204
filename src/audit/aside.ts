// Audit rows about what was refused, written beside the answer and not before it. Nothing was done that has to stand or fall
// with its row, and an answer that waits for one says by its time what its words do not (F11). Those of one moment go into one
// statement; what the database does not take is in the log of the process.
import type { FastifyBaseLogger } from 'fastify'
import { createBatcher } from '../db/batcher.ts'
import type { Database } from '../db/database.ts'
import type { AuditEvent } from './events.ts'
import { auditValues, insertAuditEvents } from './store.ts'

const limits = { maxBatch: 500, maxInFlight: 1, maxWaiting: 20_000 } as const

export interface Aside {
  /** Takes an event down. It resolves at once, and never rejects. */
  record(event: AuditEvent): Promise<void>
  /** Resolves when all that was taken down is written. */
  stop(): Promise<void>
}

interface Parts {
  readonly database: Pick<Database, 'run'>
  readonly logger: Pick<FastifyBaseLogger, 'error'>
}

export function createAside({ database, logger }: Parts): Aside {
  const underWay = new Set<Promise<void>>()
  const write = createBatcher<AuditEvent, void>({
    ...limits,
    async run(events) {
      await database.run(insertAuditEvents, auditValues(events))
      return events.map(() => undefined)
    },
  })
  return {
    async record(event) {
      const { name, clientId } = event
      const writing: Promise<void> = write(event)
        .catch((error: unknown) => logger.error({ err: error, name, clientId }, 'an audit row was not written'))
        .finally(() => underWay.delete(writing))
      underWay.add(writing)
    },
    async stop() {
      await Promise.all(underWay)
    },
  }
}
