// Operations on webhooks: what they take and answer.
import { z } from 'zod'
import { webhookEvents } from '../deliveries/webhooks.ts'
import { idParam, instant, listQuery, operation, pageOf } from './operation.ts'

const group = 'Webhooks'
const params = z.strictObject({ webhookId: idParam })
const deliveryParams = params.extend({ deliveryId: idParam })
const url = z
  .string()
  .min(1)
  .max(2_048)
  .meta({ description: 'an https address on the public internet, without user, password or fragment', format: 'uri' })
const events = z
  .array(z.enum(webhookEvents))
  .min(1)
  .max(webhookEvents.length)
  .refine((names) => new Set(names).size === names.length, 'must not hold one twice')

const shape = {
  id: z.string(),
  url: z.string(),
  events: z.array(z.string()),
  createdAt: instant,
  updatedAt: instant,
  disabledAt: instant.nullable(),
}
const webhook = z.strictObject(shape).meta({ id: 'Webhook' })
const secret = z.string().meta({ description: 'the key of its signatures, `whsec_…`; shown this once' })
const delivery = z
  .strictObject({
    id: z.string().meta({ description: 'said to the receiver as webhook-id, the same at each try' }),
    type: z.string(),
    data: z.record(z.string(), z.unknown()),
    status: z.enum(['waiting', 'delivered', 'failed']),
    attempts: z.number().int(),
    lastError: z.string().nullable().meta({ description: 'a status, as HTTP_503, or an error code, as ETIMEDOUT' }),
    createdAt: instant,
    nextAttemptAt: instant.nullable(),
    deliveredAt: instant.nullable(),
    failedAt: instant.nullable(),
  })
  .meta({ id: 'WebhookDelivery' })
const one = { status: 200, description: 'The webhook.', schema: webhook } as const
const queued = { status: 202, description: 'It is on its way.', schema: delivery } as const

export const operations = {
  list: operation({
    id: 'listWebhooks',
    method: 'GET',
    path: '/api/admin/webhooks',
    group,
    permission: 'webhook:read',
    pageKey: 1,
    summary: 'Webhooks',
    description: 'Where the organisation wants to hear of what happens.',
    query: listQuery({}),
    answer: { status: 200, description: 'A page of webhooks.', schema: pageOf(webhook) },
  }),
  get: operation({
    id: 'getWebhook',
    method: 'GET',
    path: '/api/admin/webhooks/:webhookId',
    group,
    permission: 'webhook:read',
    versioned: 1,
    summary: 'One webhook',
    description: 'Without its secret.',
    params,
    answer: one,
  }),
  create: operation({
    id: 'createWebhook',
    method: 'POST',
    path: '/api/admin/webhooks',
    group,
    permission: 'webhook:write',
    versioned: 1,
    summary: 'Add a webhook',
    description: 'An organisation has at most 20.',
    body: z.strictObject({ url, events }),
    answer: {
      status: 201,
      description: 'The webhook, with its secret.',
      schema: z.strictObject({ ...shape, secret }).meta({ id: 'NewWebhook' }),
    },
    problems: ['not_possible'],
  }),
  update: operation({
    id: 'updateWebhook',
    method: 'PATCH',
    path: '/api/admin/webhooks/:webhookId',
    group,
    permission: 'webhook:write',
    versioned: 1,
    summary: 'Change a webhook',
    description: 'What waits to be delivered goes to the new address.',
    params,
    body: z.strictObject({ url: url.optional(), events: events.optional() }),
    answer: one,
  }),
  disable: operation({
    id: 'disableWebhook',
    method: 'POST',
    path: '/api/admin/webhooks/:webhookId/disable',
    group,
    permission: 'webhook:write',
    versioned: 1,
    summary: 'Switch a webhook off',
    description: 'What happens meanwhile is not told later, and what waits is given up.',
    params,
    answer: one,
  }),
  enable: operation({
    id: 'enableWebhook',
    method: 'POST',
    path: '/api/admin/webhooks/:webhookId/enable',
    group,
    permission: 'webhook:write',
    versioned: 1,
    summary: 'Switch a webhook on again',
    description: 'It hears of what happens from now on.',
    params,
    answer: one,
  }),
  replaceSecret: operation({
    id: 'replaceWebhookSecret',
    method: 'POST',
    path: '/api/admin/webhooks/:webhookId/replace-secret',
    group,
    permission: 'webhook:write',
    summary: 'A new secret for a webhook',
    description: 'Whatever is sent from now on, also again, is signed with it.',
    params,
    answer: {
      status: 200,
      description: 'The new secret.',
      schema: z.strictObject({ id: z.string(), secret }).meta({ id: 'WebhookSecret' }),
    },
  }),
  delete: operation({
    id: 'deleteWebhook',
    method: 'DELETE',
    path: '/api/admin/webhooks/:webhookId',
    group,
    permission: 'webhook:write',
    versioned: 1,
    summary: 'Delete a webhook',
    description: 'With what was and what was to be delivered.',
    params,
    answer: { status: 204, description: 'It is gone.' },
  }),
  deliveries: operation({
    id: 'listWebhookDeliveries',
    method: 'GET',
    path: '/api/admin/webhooks/:webhookId/deliveries',
    group,
    permission: 'webhook:read',
    pageKey: 1,
    summary: 'What was sent to a webhook',
    description: 'The newest first. Delivered ones are kept for a week, those given up for a month.',
    params,
    query: listQuery({}),
    answer: { status: 200, description: 'A page of deliveries.', schema: pageOf(delivery) },
  }),
  redeliver: operation({
    id: 'redeliverWebhook',
    method: 'POST',
    path: '/api/admin/webhooks/:webhookId/deliveries/:deliveryId/redeliver',
    group,
    permission: 'webhook:write',
    summary: 'Send a delivery again',
    description: 'One that was delivered or given up, under the same webhook-id.',
    params: deliveryParams,
    answer: queued,
    problems: ['not_possible'],
  }),
  ping: operation({
    id: 'pingWebhook',
    method: 'POST',
    path: '/api/admin/webhooks/:webhookId/ping',
    group,
    permission: 'webhook:write',
    summary: 'Try a webhook',
    description: 'Sends one delivery of the type `ping`; another when that one is settled.',
    params,
    answer: queued,
    problems: ['not_possible'],
  }),
} as const
