// What a delivery says: a form with a logout token, or a signed JSON document.
import type { Secrets } from '../crypto/secrets.ts'
import type { SignLogoutToken } from './logout-token.ts'
import type { DueDelivery } from './outbox.ts'
import { openWebhookSecret, signWebhook } from './webhooks.ts'

export interface OutboundMessage {
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export function createMessages(parts: {
  readonly secrets: Secrets
  readonly signLogout: SignLogoutToken
  now(): Date
}) {
  async function logout(delivery: DueDelivery): Promise<OutboundMessage> {
    const { deliveryId, clientId = '', accountId = '', sid, alg } = delivery
    const token = await parts.signLogout({ deliveryId, clientId, accountId, sid, alg })
    return {
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ logout_token: token }).toString(),
    }
  }

  function webhook({
    deliveryId,
    webhookId = '',
    organizationId,
    sealedSecret = '',
    ...delivery
  }: DueDelivery): OutboundMessage {
    const { type, data } = delivery.body
    const occurredAt = delivery.createdAt.toISOString()
    const body = JSON.stringify({ id: deliveryId, type, occurredAt, organizationId, data })
    const timestampSeconds = Math.floor(parts.now().getTime() / 1_000)
    const secret = openWebhookSecret(parts.secrets, webhookId, sealedSecret)
    return {
      headers: {
        'content-type': 'application/json',
        ...signWebhook(secret, { id: deliveryId, timestampSeconds, body }),
      },
      body,
    }
  }

  return async (delivery: DueDelivery): Promise<OutboundMessage> =>
    delivery.kind === 'webhook' ? webhook(delivery) : logout(delivery)
}
