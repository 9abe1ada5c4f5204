// Housekeeping: deletes what expired, ends sessions that nobody came back to, keeps audit partitions ahead of time.
// Nothing depends on it for safety: expiry is enforced at every read.
import type { FastifyBaseLogger } from 'fastify'
import { sql } from 'kysely'
import { appendAudit } from './audit/audit.ts'
import type { MailLinks } from './credentials/mail-links.ts'
import { sweepAttempts } from './credentials/throttle.ts'
import { cleanTotpSetups } from './credentials/totp.ts'
import type { Database, Db } from './db/database.ts'
import { transact } from './db/transaction.ts'
import { cleanFlows } from './login/store.ts'
import type { Outbox } from './mail/outbox.ts'
import type { Keys } from './oidc/keys.ts'
import type { PayloadStore } from './oidc/store.ts'
import type { Policies } from './organizations/organizations.ts'
import type { PolicyInput } from './organizations/policy.ts'
import { tightenSessions } from './sessions/activity.ts'
import type { Sessions } from './sessions/sessions.ts'

const roundMs = 30_000
const batchSize = 1_000
const maxBatchesPerRound = 50

interface Parts {
  readonly database: Database
  readonly policies: Policies
  readonly payloads: PayloadStore
  readonly sessions: Sessions
  readonly keys: Keys
  readonly links: MailLinks
  readonly outbox: Outbox
  readonly logger: FastifyBaseLogger
}

export function startJanitor(parts: Parts): { stop(): Promise<void> } {
  let running: Promise<void> = Promise.resolve()
  const round = () => {
    running = sweep(parts).catch((error: unknown) =>
      parts.logger.warn({ err: error }, 'housekeeping failed; it will be tried again'),
    )
  }
  const timer = setInterval(round, roundMs)
  timer.unref()
  return {
    async stop() {
      clearInterval(timer)
      await running
    },
  }
}

/** One round of housekeeping. Safe on every replica at once: rows are taken with SKIP LOCKED. */
export async function sweep({ database, policies, payloads, sessions, keys, links, outbox }: Parts): Promise<void> {
  const db = database.kysely
  await sql`select mlpipes_auth.ensure_audit_partitions()`.execute(db)
  await holdToPolicies(db, policies)
  await endExpiredSessions(db, sessions)
  for (let batch = 0; batch < maxBatchesPerRound; batch += 1) if ((await payloads.clean(batchSize)) < batchSize) break
  await cleanFlows(db, batchSize)
  await sweepAttempts(database, batchSize)
  await links.clean(batchSize)
  await outbox.clean(batchSize)
  await cleanTotpSetups(database, batchSize)
  await keys.purge()
}

/** Catches what a policy change did not reach: sessions written by a request that had read the policy of before. */
async function holdToPolicies(db: Db, policies: Policies): Promise<void> {
  const rows = await db.selectFrom('organizations').select(['id', 'policy']).where('closed_at', 'is', null).execute()
  const current = rows.map(({ id, policy }) => ({ id, policy: policies(policy as PolicyInput) }))
  await transact(db, (tx) => tightenSessions(tx, current))
}

async function endExpiredSessions(db: Db, sessions: Sessions): Promise<void> {
  for (let batch = 0; batch < maxBatchesPerRound; batch += 1) {
    const ended = await transact(db, async (tx) => {
      const rows = await sessions.sweep(tx, batchSize)
      const signedIn = rows.filter((row) => row.accountId !== undefined)
      if (signedIn.length > 0) {
        await appendAudit(
          tx,
          ...signedIn.map((row) => ({
            name: 'session.expired' as const,
            outcome: 'success' as const,
            actor: { type: 'system' as const },
            accountId: row.accountId,
            organizationId: row.organizationId,
            sessionUid: row.uid,
            origin: {},
            details: { reason: row.reason },
          })),
        )
      }
      return rows.length
    })
    if (ended < batchSize) return
  }
}
