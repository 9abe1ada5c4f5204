// Housekeeping: deletes what expired, ends sessions that nobody came back to, keeps audit partitions ahead of time.
// Nothing that expires, and no policy that got stricter, depends on it for safety: that is enforced at every read.
import type { FastifyBaseLogger } from 'fastify'
import { sql } from 'kysely'
import { cleanIdempotencyKeys } from './admin/idempotency.ts'
import type { MailLinks } from './credentials/mail-links.ts'
import { sweepAttempts } from './credentials/throttle.ts'
import { cleanTotpSetups } from './credentials/totp.ts'
import type { Database } from './db/database.ts'
import { transact } from './db/transaction.ts'
import type { Deliveries } from './deliveries/deliveries.ts'
import { cleanFlows } from './login/store.ts'
import type { Outbox } from './mail/outbox.ts'
import type { Keys } from './oidc/keys.ts'
import type { PayloadStore } from './oidc/store.ts'
import type { Policies } from './organizations/organizations.ts'
import type { PolicyInput } from './organizations/policy.ts'
import { cleanRegistrationTokens } from './registration/store.ts'
import { finishClosings } from './sessions/closing.ts'
import { endExpiredSessions } from './sessions/expiry.ts'
import { finishTightenings, holdNewSessions, holdToPlatform, type OrganizationPolicy } from './sessions/tightening.ts'
import { inSteps } from './steps.ts'

const roundMs = 30_000
/** What nobody comes back to is over at every read; its apps hear of it within this time. */
const endingMs = 2_000
/** A stricter policy holds at every read; the log and the apps hear of what it ended soon after this. */
const tighteningMs = 1_000
const batchSize = 1_000
const maxBatchesPerRound = 50
/** Of the time that deleting takes: requests have the database to themselves for nine tenths of it. */
const restFactor = 9

interface Parts {
  readonly database: Database
  readonly policies: Policies
  readonly payloads: PayloadStore
  readonly keys: Keys
  readonly links: MailLinks
  readonly outbox: Outbox
  readonly deliveries: Pick<Deliveries, 'clean'>
  readonly logger: FastifyBaseLogger
}

export function startJanitor(parts: Parts): { stop(): Promise<void> } {
  let isStopping = false
  let isHeld = false
  const goesOn = () => !isStopping
  const tighten = async () => {
    if (!isHeld) await holdAll(parts)
    isHeld = true
    await finishTightenings(parts.database, goesOn)
  }
  const jobs = [
    every(roundMs, () => sweep(parts, goesOn), parts.logger),
    every(endingMs, () => endWhatIsOver(parts, goesOn), parts.logger),
    every(tighteningMs, tighten, parts.logger),
  ]
  return {
    async stop() {
      isStopping = true
      await Promise.all(jobs.map((job) => job.stop()))
    },
  }
}

/** Does a job again and again, never beside itself. */
function every(ms: number, job: () => Promise<void>, logger: FastifyBaseLogger): { stop(): Promise<void> } {
  let running: Promise<void> | undefined
  const round = () => {
    running ??= job()
      .catch((error: unknown) => logger.warn({ err: error }, 'housekeeping failed; it will be tried again'))
      .finally(() => {
        running = undefined
      })
  }
  const timer = setInterval(round, ms)
  timer.unref()
  return {
    async stop() {
      clearInterval(timer)
      await running
    },
  }
}

async function endWhatIsOver({ database }: Parts, goesOn: () => boolean): Promise<void> {
  await endExpiredSessions(database, goesOn)
  await finishClosings(database)
}

/** One round of housekeeping. Safe on every replica at once: rows are taken with SKIP LOCKED. */
export async function sweep(parts: Parts, goesOn: () => boolean = () => true): Promise<void> {
  const { database, payloads, keys, links, outbox, deliveries } = parts
  const db = database.kysely
  await sql`select mlpipes_auth.ensure_audit_partitions()`.execute(db)
  await holdNew(parts)
  await endWhatIsOver(parts, goesOn)
  await cleanPayloads(payloads, goesOn)
  await cleanFlows(db, batchSize)
  await sweepAttempts(database, batchSize)
  await links.clean(batchSize)
  await outbox.clean(batchSize)
  await deliveries.clean(batchSize)
  await cleanTotpSetups(database, batchSize)
  await cleanIdempotencyKeys(database, batchSize)
  await cleanRegistrationTokens(database, batchSize)
  await keys.purge()
}

/** Deletes what expired, in batches with a rest after each. @returns how many rows went */
export async function cleanPayloads(payloads: Pick<PayloadStore, 'clean'>, goesOn: () => boolean): Promise<number> {
  let [deleted, batches] = [0, 0]
  await inSteps({ restFactor, goesOn: () => batches < maxBatchesPerRound && goesOn() }, async () => {
    const count = await payloads.clean(batchSize)
    deleted += count
    batches += 1
    return count === batchSize
  })
  return deleted
}

/** Longer than a request lasts that read a policy before it was changed, and than the pause between two rounds. */
const newSessionSeconds = 300

/** Catches what a policy change did not reach: new sessions of requests that had read the policy of before. */
async function holdNew(parts: Parts): Promise<void> {
  const current = await currentPolicies(parts)
  await transact(parts.database.kysely, (tx) => holdNewSessions(tx, current, newSessionSeconds))
}

/** Once, at the start: the platform's part of every policy may have been configured anew. */
async function holdAll(parts: Parts): Promise<void> {
  const current = await currentPolicies(parts)
  await transact(parts.database.kysely, (tx) => holdToPlatform(tx, current))
}

async function currentPolicies({ database: { kysely }, policies }: Parts): Promise<OrganizationPolicy[]> {
  const rows = await kysely
    .selectFrom('organizations')
    .select(['id', 'policy'])
    .where('closed_at', 'is', null)
    .execute()
  return rows.map(({ id, policy }) => ({ id, policy: policies(policy as PolicyInput) }))
}
