// Webhooks at the admin API: where an organisation wants to hear of what happens, and what was sent there. What is said and
// how it is signed is in deliveries/webhooks.ts.
import { randomBytes } from 'node:crypto'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import { createWebhookSecret, sealWebhookSecret } from '../deliveries/webhooks.ts'
import { receiverProblem } from '../http/receiver.ts'
import { type Call, NotHere } from './call.ts'
import type { Kernel } from './kernel.ts'
import { operations } from './webhook-operations.ts'
import {
  deleteWebhook,
  findDelivery,
  findWebhook,
  holdWebhook,
  insertWebhook,
  listDeliveries,
  listWebhooks,
  maxWebhooks,
  repeatDelivery,
  type StoredDelivery,
  type StoredWebhook,
  sendPing,
  setWebhookSecret,
  switchWebhook,
  updateWebhook,
} from './webhook-store.ts'

export { operations } from './webhook-operations.ts'

export interface WebhookParts {
  readonly secrets: Secrets
  /** Development and tests: receivers on this machine, over http. */
  readonly allowsLoopback: boolean
}

const newId = () => `webhook_${randomBytes(16).toString('base64url')}`

export function addWebhooks({ on }: Kernel, { secrets, allowsLoopback }: WebhookParts): void {
  const assertReceiver = (url: string | undefined) => {
    const message = url === undefined ? undefined : receiverProblem(url, { allowsLoopback })
    if (message !== undefined) throw new ApiProblem('input_invalid', [{ path: 'url', message }])
  }

  on(operations.list, async (tx, { organization, page }) => ({
    body: page.answer(await listWebhooks(tx, organization.id, page), toAnswer, ({ id }) => [id]),
  }))

  on(operations.get, async (tx, call) => answer(await require(tx, call)))

  on(operations.create, async (tx, { organization, body, about }) => {
    assertReceiver(body.url)
    const id = newId()
    const secret = createWebhookSecret()
    const sealedSecret = sealWebhookSecret(secrets, id, secret)
    const created = await insertWebhook(tx, organization.id, { id, ...body, sealedSecret })
    if (!created) throw notPossible(`an organisation has at most ${maxWebhooks} webhooks`)
    const details = { webhookId: id, events: [...body.events] }
    await appendAudit(tx, { ...about, name: 'webhook.created', outcome: 'success', details })
    return {
      body: { ...toAnswer(created), secret },
      version: [created.version],
      location: `/api/admin/webhooks/${id}`,
    }
  })

  on(operations.update, async (tx, call) => {
    const { organization, params, body, about, expected } = call
    assertReceiver(body.url)
    if (Object.keys(body).length === 0) {
      const unchanged = await require(tx, call)
      if (unchanged.version !== expected[0]) throw await staleOrNotHere(tx, call)
      return answer(unchanged)
    }
    const wanted = { version: expected[0] ?? 0, ...body }
    const updated = await updateWebhook(tx, organization.id, params.webhookId, wanted)
    if (!updated) throw await staleOrNotHere(tx, call)
    const changed = Object.keys(body)
    await appendAudit(tx, { ...about, ...saying(call, changed) })
    return answer(updated)
  })

  for (const [operation, isOn] of [
    [operations.disable, false],
    [operations.enable, true],
  ] as const)
    on(operation, async (tx, call) => {
      const { organization, params, about } = call
      if (await switchWebhook(tx, organization.id, params.webhookId, isOn))
        await appendAudit(tx, { ...about, ...saying(call, [isOn ? 'enabled' : 'disabled']) })
      return answer(await require(tx, call))
    })

  on(operations.replaceSecret, async (tx, call) => {
    const { organization, params, about } = call
    const id = params.webhookId
    const secret = createWebhookSecret()
    const isSet = await setWebhookSecret(tx, organization.id, id, sealWebhookSecret(secrets, id, secret))
    if (!isSet) throw new NotHere('webhook', id)
    await appendAudit(tx, { ...about, ...saying(call, ['secret']) })
    return { body: { id, secret } }
  })

  on(operations.delete, async (tx, call) => {
    const { organization, params, about, expected } = call
    const id = params.webhookId
    if (!(await deleteWebhook(tx, organization.id, id, expected[0] ?? 0))) throw await staleOrNotHere(tx, call)
    await appendAudit(tx, { ...about, name: 'webhook.deleted', outcome: 'success', details: { webhookId: id } })
    return {}
  })

  addDeliveries({ on })
}

/** What was sent, and sending it again. */
function addDeliveries({ on }: Pick<Kernel, 'on'>): void {
  on(operations.deliveries, async (tx, call) => {
    const { organization, params, page } = call
    await require(tx, call)
    const rows = await listDeliveries(tx, organization.id, params.webhookId, page)
    return { body: page.answer(rows, toDelivery, ({ row }) => [row]) }
  })

  on(operations.redeliver, async (tx, call) => {
    const { organization, params, about } = call
    const { webhookId, deliveryId } = params
    await requireOn(tx, call)
    // What an organisation is sent is the worker's to change, but for this.
    const repeat = () => repeatDelivery(tx, organization.id, webhookId, deliveryId)
    const repeated = await beyond(tx, organization.id, repeat)
    if (!repeated) {
      if (!(await findDelivery(tx, organization.id, webhookId, deliveryId))) throw new NotHere('other', deliveryId)
      throw notPossible('it is waiting to be delivered')
    }
    const details = { webhookId, deliveryId, by: 'redeliver' as const }
    await appendAudit(tx, { ...about, name: 'delivery.requested', outcome: 'success', details })
    return { body: toDelivery(repeated) }
  })

  on(operations.ping, async (tx, call) => {
    const { organization, params, about } = call
    const { webhookId } = params
    await requireOn(tx, call)
    const sent = await sendPing(tx, organization.id, webhookId)
    if (!sent) throw notPossible('a ping is on its way')
    const details = { webhookId, deliveryId: sent.id, by: 'ping' as const }
    await appendAudit(tx, { ...about, name: 'delivery.requested', outcome: 'success', details })
    return { body: toDelivery(sent) }
  })
}

type WebhookCall = Pick<Call, 'organization'> & { readonly params: { readonly webhookId: string } }

async function require(tx: Tx, { organization, params }: WebhookCall): Promise<StoredWebhook> {
  const found = await findWebhook(tx, organization.id, params.webhookId)
  if (!found) throw new NotHere('webhook', params.webhookId)
  return found
}

/** A webhook that is switched off is sent nothing. */
async function requireOn(tx: Tx, call: WebhookCall): Promise<void> {
  if (await holdWebhook(tx, call.organization.id, call.params.webhookId)) return
  await require(tx, call)
  throw notPossible('this webhook is switched off')
}

async function staleOrNotHere(tx: Tx, call: WebhookCall): Promise<Error> {
  await require(tx, call)
  return new ApiProblem('version_stale')
}

function saying({ params }: WebhookCall, changed: string[]) {
  const details = { webhookId: params.webhookId, changed }
  return { name: 'webhook.updated' as const, outcome: 'success' as const, details }
}

const notPossible = (message: string) => new ApiProblem('not_possible', [{ path: '', message }])

const answer = (webhook: StoredWebhook) => ({ body: toAnswer(webhook), version: [webhook.version] })

function toAnswer({ id, url, events, createdAt, updatedAt, disabledAt }: StoredWebhook) {
  return {
    id,
    url,
    events: [...events],
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
    disabledAt: disabledAt?.toISOString() ?? null,
  }
}

function toDelivery(row: StoredDelivery) {
  const { id, type, data, attempts, lastError, createdAt, nextAttemptAt, deliveredAt, failedAt } = row
  const status = deliveredAt ? ('delivered' as const) : failedAt ? ('failed' as const) : ('waiting' as const)
  return {
    id,
    type,
    data: { ...data },
    status,
    attempts,
    lastError,
    createdAt: createdAt.toISOString(),
    nextAttemptAt: status === 'waiting' ? nextAttemptAt.toISOString() : null,
    deliveredAt: deliveredAt?.toISOString() ?? null,
    failedAt: failedAt?.toISOString() ?? null,
  }
}
