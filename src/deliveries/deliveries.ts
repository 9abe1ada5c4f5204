// Deliveries: what others are told by HTTP, out of a durable outbox. Two kinds: back-channel logout to clients, webhooks to
// organisations.
import type { FastifyBaseLogger } from 'fastify'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import type { Outbound } from '../http/outbound.ts'
import type { Keys } from '../oidc/keys.ts'
import { createLogoutTokens } from './logout-token.ts'
import { createMessages } from './messages.ts'
import { createDeliveryOutbox, type DeliveryOutboxParts } from './outbox.ts'
import { startDeliveryWorker } from './worker.ts'

export interface DeliveriesParts extends Omit<DeliveryOutboxParts, 'database'> {
  readonly database: Database
  readonly secrets: Secrets
  readonly keys: Pick<Keys, 'load'>
  readonly issuer: string
  readonly outbound: Outbound
  readonly logger: Pick<FastifyBaseLogger, 'warn' | 'error'>
  now(): Date
  readonly pollMs?: number
  readonly failurePauseMs?: number
}

export interface Deliveries {
  /** Starts this replica's worker. */
  start(): { stop(): Promise<void> }
  /** Deletes at most `limit` old ones. Returns how many. */
  clean(limit: number): Promise<number>
}

export function createDeliveries(parts: DeliveriesParts): Deliveries {
  const outbox = createDeliveryOutbox(parts)
  const message = createMessages({ ...parts, signLogout: createLogoutTokens(parts) })
  return {
    start: () => startDeliveryWorker({ ...parts, db: parts.database.kysely, outbox, message }),
    clean: outbox.clean,
  }
}
