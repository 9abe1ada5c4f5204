// Webhooks: what an organisation's own programs may hear of, and how they can tell that it is us. Signatures follow Standard
// Webhooks (id, time and body under HMAC-SHA-256), so that receivers can use a library.
import { createHmac, randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { Secrets } from '../crypto/secrets.ts'
import { type Row, runIn, type Tx } from '../db/database.ts'
import { ringForDeliveries } from './bell.ts'

const id = z.string().max(128)
const names = z.array(id).max(64)
const account = z.strictObject({ accountId: id })
const client = z.strictObject({ clientId: id })
const role = z.strictObject({ role: id })

/** The closed list: type → what is said of it. Ids and names of settings; nothing of people or their patients. */
const shapes = {
  'account.disabled': account,
  'account.enabled': account,
  'client.disabled': client,
  'client.enabled': client,
  'organization.closed': z.strictObject({}),
  'organization.reopened': z.strictObject({}),
  'policy.updated': z.strictObject({ stricter: names, looser: names }),
  'membership.created': account.extend({ roles: names }),
  'membership.updated': account.extend({ roles: names, rolesBefore: names }),
  'membership.ended': account,
  'role.created': role,
  'role.updated': role,
  'role.deleted': role,
} as const

export type WebhookType = keyof typeof shapes
export type WebhookEvent = {
  [Type in WebhookType]: { readonly type: Type; readonly data: z.input<(typeof shapes)[Type]> }
}[WebhookType]

/** Every type that can be subscribed to. */
export const webhookEvents = Object.keys(shapes) as [WebhookType, ...WebhookType[]]

const insert = (
  condition: string,
) => `insert into mlpipes_auth.deliveries (delivery_id, kind, organization_id, webhook_id, body)
    select gen_random_uuid()::text, 'webhook', w.organization_id, w.id, $1::jsonb from mlpipes_auth.webhooks w
    where w.disabled_at is null and $1::jsonb ->> 'type' = any(w.events) and ${condition} returning id`
const insertForOrganization = insert('w.organization_id = $2')
const insertForMemberships = insert(`w.organization_id in
      (select m.organization_id from mlpipes_auth.memberships m where m.account_id = $2)`)

/** One delivery for each webhook of the organisation that subscribes to the type, sent once the transaction is committed. */
export async function enqueueWebhooks(tx: Tx, organizationId: string, event: WebhookEvent): Promise<void> {
  ringIfWritten(tx, await runIn(tx, insertForOrganization, [bodyOf(event), organizationId]))
}

/** The same for every organisation that the account has a place in: its own, and those in which it is a guest. */
export async function enqueueForMemberships(
  tx: Tx,
  event: Extract<WebhookEvent, { data: { readonly accountId: string } }>,
): Promise<void> {
  ringIfWritten(tx, await runIn(tx, insertForMemberships, [bodyOf(event), event.data.accountId]))
}

function bodyOf({ type, data }: WebhookEvent): string {
  return JSON.stringify({ type, data: shapes[type].parse(data) })
}

function ringIfWritten(tx: Tx, rows: readonly Row[]): void {
  if (rows.length > 0) ringForDeliveries(tx)
}

const secretPrefix = 'whsec_'
const secretBytes = 32

/** A new key for signatures, as its owner is shown it, once. */
export function createWebhookSecret(): string {
  return secretPrefix + randomBytes(secretBytes).toString('base64')
}

/** For the column `sealed_secret` of the webhook with this id. */
export function sealWebhookSecret(secrets: Secrets, webhookId: string, secret: string): string {
  return secrets.seal(secret, sealContext(webhookId))
}

export function openWebhookSecret(secrets: Secrets, webhookId: string, sealed: string): string {
  return secrets.open(sealed, sealContext(webhookId))
}

function sealContext(webhookId: string): string {
  return `webhook:${webhookId}`
}

/** The headers that let a receiver check who says it, that it is fresh, and whether it was said before. */
export function signWebhook(
  secret: string,
  message: { readonly id: string; readonly timestampSeconds: number; readonly body: string },
): Record<string, string> {
  const key = Buffer.from(secret.slice(secretPrefix.length), 'base64')
  const signed = `${message.id}.${message.timestampSeconds}.${message.body}`
  return {
    'webhook-id': message.id,
    'webhook-timestamp': String(message.timestampSeconds),
    'webhook-signature': `v1,${createHmac('sha256', key).update(signed).digest('base64')}`,
  }
}
