// The worker: sends what is due, on every replica, a few calls at once to each receiver, so that one that hangs holds up
// nobody else. An outage of the database or of a receiver costs time and nothing else.
import { setTimeout as pause } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import type { Db } from '../db/database.ts'
import { type Outbound, OutboundFailed } from '../http/outbound.ts'
import { createBell, settle } from '../work-bell.ts'
import { listenForDeliveries } from './bell.ts'
import type { OutboundMessage } from './messages.ts'
import type { DeliveryOutbox, DueDelivery, Failure } from './outbox.ts'

export const maxCalls = 128
export const maxCallsPerReceiver = 8
/** Taken by one look: the last of them is made long before its lease ends, however slow the machine. */
const maxTaken = 32
const defaultPollMs = 500
/** A call that nobody could answer keeps its place for so long: one that is down is not asked as fast as it can fail. */
const defaultFailurePauseMs = 1_000
/**
 * How long it rests after it looked and made messages, one at a time, as a multiple of what that took: longer when the machine
 * is busy. A signature by RSA is most of what a delivery costs, and the ending of very many sessions is not to slow down those
 * who sign in meanwhile.
 */
const restFactor = 8
/** What an outage of the database took is no measure of anything. */
const maxRestMs = 1_000
/** How long after a delivery was written here, or a call has ended, the worker looks: about what a transaction takes to commit. */
const wakeMs = 20

export interface DeliveryWorkerParts {
  readonly db: Db
  readonly outbox: DeliveryOutbox
  readonly outbound: Outbound
  message(delivery: DueDelivery): Promise<OutboundMessage>
  readonly logger: Pick<FastifyBaseLogger, 'warn' | 'error'>
  readonly pollMs?: number
  readonly failurePauseMs?: number
}

/** What is to be sent, and where to. */
interface Letter extends OutboundMessage {
  readonly url: string
}
type Made = Letter | Failure | 'bundle'

export interface DeliveryWorker {
  /** Takes no more deliveries, and waits for those under way. */
  stop(): Promise<void>
}

export function startDeliveryWorker(parts: DeliveryWorkerParts): DeliveryWorker {
  const { outbox, logger } = parts
  const underWay = new Set<Promise<void>>()
  const calls = new Map<string, number>()
  const bell = createBell(parts.pollMs ?? defaultPollMs, wakeMs)
  const stopping = new AbortController()

  /** Starts what is due, as far as there is room. Returns how long it took, in milliseconds. */
  async function look(): Promise<number> {
    const startedAt = performance.now()
    const room = Math.min(maxCalls - underWay.size, maxTaken)
    const due = await outbox.takeDue(room, maxCallsPerReceiver, calls).catch((error: unknown) => {
      logger.warn({ err: error }, 'cannot read the deliveries; it will be tried again')
      return []
    })
    for (const delivery of due) start(delivery, await make(delivery, parts))
    // There may be more.
    if (due.length === room) bell.ring()
    return performance.now() - startedAt
  }

  function start(delivery: DueDelivery, made: Made): void {
    const receiver = delivery.clientId ?? delivery.webhookId ?? ''
    calls.set(receiver, (calls.get(receiver) ?? 0) + 1)
    const call = deliver(delivery, made, parts).then((failure) => {
      underWay.delete(call)
      if (!failure?.isOutage) release(receiver)
      else setTimeout(release, parts.failurePauseMs ?? defaultFailurePauseMs, receiver).unref()
    })
    underWay.add(call)
  }

  /** A receiver has room for one more. Calls that end soon after each other are one look. */
  function release(receiver: string): void {
    const left = (calls.get(receiver) ?? 1) - 1
    if (left > 0) calls.set(receiver, left)
    else calls.delete(receiver)
    bell.ring()
  }

  async function run(): Promise<void> {
    const { signal } = stopping
    while (!signal.aborted) {
      const tookMs = underWay.size < maxCalls ? await look() : 0
      await pause(Math.min(tookMs * restFactor, maxRestMs), undefined, { signal }).catch(() => undefined)
      if (!signal.aborted) await bell.rest()
    }
    await Promise.all(underWay)
  }

  const unlisten = listenForDeliveries(parts.db, bell.ring)
  const running = run()
  return {
    async stop() {
      unlisten()
      stopping.abort()
      bell.end()
      await running
    },
  }
}

/** Never rejects. */
async function make(delivery: DueDelivery, parts: DeliveryWorkerParts): Promise<Made> {
  if (delivery.isBundle) return 'bundle'
  // Taken away, or switched off, since it was written.
  if (delivery.url === undefined) return { code: 'ENOBODY', permanent: true }
  try {
    return { url: delivery.url, ...(await parts.message(delivery)) }
  } catch (error) {
    parts.logger.error({ delivery: delivery.deliveryId, err: error }, 'a delivery cannot be made')
    return { code: 'EINTERNAL', permanent: false }
  }
}

/** One try of one delivery, or a bundle made into what it stands for. Never rejects. */
async function deliver(delivery: DueDelivery, made: Made, parts: DeliveryWorkerParts): Promise<Failure | undefined> {
  const { outbox, logger } = parts
  const failure = await outcomeOf(delivery, made, parts.outbound)
  const facts = { delivery: delivery.deliveryId, kind: delivery.kind, attempts: delivery.attempts }
  await settle(async () => {
    if (made === 'bundle') return outbox.unfold(delivery)
    if (!failure) return outbox.markDelivered(delivery)
    const outcome = await outbox.markFailed(delivery, failure)
    const words = outcome === 'dead' ? 'a delivery was given up' : 'a delivery failed; it will be tried again'
    logger.warn({ ...facts, code: failure.code }, words)
  }).catch((error: unknown) => logger.warn({ ...facts, err: error }, 'cannot write down how a delivery went'))
  return failure
}

async function outcomeOf(delivery: DueDelivery, made: Made, outbound: Outbound): Promise<Failure | undefined> {
  if (made === 'bundle') return undefined
  return 'code' in made ? made : send(delivery, made, outbound)
}

async function send(
  delivery: DueDelivery,
  { url, headers, body }: Letter,
  outbound: Outbound,
): Promise<Failure | undefined> {
  try {
    const status = await outbound.post(url, headers, body)
    return status >= 200 && status < 300 ? undefined : refusal(delivery, status)
  } catch (error) {
    if (error instanceof OutboundFailed) return { code: error.code, permanent: false, isOutage: true }
    return { code: 'EINTERNAL', permanent: false }
  }
}

/** Back-Channel Logout 1.0 §2.8: 400 says that the request was wrong or the logout failed. It is asked once more. */
function refusal(delivery: DueDelivery, status: number): Failure {
  const code = `HTTP_${status}`
  const isRefused = delivery.kind === 'backchannel_logout' && status === 400
  return { code, permanent: isRefused && delivery.lastError === code, isOutage: status === 429 || status >= 500 }
}
