// Rows of the matrix for clients, live sessions and webhooks.
import { randomBytes } from 'node:crypto'
import { type Asker, newPerson, newSession, organizationId, type Row } from './matrix-rows.ts'
import type { AdminServer } from './support.ts'

const unique = () => randomBytes(9).toString('hex')
const metadata = JSON.stringify({
  grant_types: ['client_credentials'],
  token_endpoint_auth_method: 'client_secret_basic',
  scope: 'admin:read',
})

async function newClient(server: AdminServer, slug: string): Promise<string> {
  const id = `client_${unique()}`
  await server.database.run(
    `insert into mlpipes_auth.clients (client_id, organization_id, name, secret_digest, metadata)
     values ($1, $2, 'New Client', 'x', $3::jsonb)`,
    [id, await organizationId(server, slug), metadata],
  )
  return id
}

async function newWebhook(server: AdminServer, slug: string): Promise<string> {
  const id = `webhook_${unique()}`
  // Rows of before would be in the way of the limit.
  const organization = await organizationId(server, slug)
  await server.database.run('delete from mlpipes_auth.webhooks where organization_id = $1', [organization])
  await server.database.run(
    `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
     values ($1, $2, 'https://hooks.example/', '{client.disabled}', 'x')`,
    [id, organization],
  )
  return id
}

async function newDelivery(server: AdminServer, slug: string, webhookId: string): Promise<string> {
  const id = unique()
  await server.database.run(
    `insert into mlpipes_auth.deliveries (delivery_id, kind, organization_id, webhook_id, body, delivered_at)
     values ($1, 'webhook', $2, $3, '{"type":"ping","data":{}}', now())`,
    [id, await organizationId(server, slug), webhookId],
  )
  return id
}

const client: Row['target'] = async (server, slug) => ({
  params: { clientId: await newClient(server, slug) },
  etag: '"1"',
})
const webhook: Row['target'] = async (server, slug) => ({
  params: { webhookId: await newWebhook(server, slug) },
  etag: '"1"',
})
const delivery: Row['target'] = async (server, slug) => {
  const webhookId = await newWebhook(server, slug)
  return { params: { webhookId, deliveryId: await newDelivery(server, slug, webhookId) } }
}
const registrationToken: Row['target'] = async (server, slug) => {
  const tokenId = `registration_${unique()}`
  // Rows of before would be in the way of the limit.
  const organization = await organizationId(server, slug)
  await server.database.run('delete from mlpipes_auth.registration_tokens where organization_id = $1', [organization])
  await server.database.run(
    `insert into mlpipes_auth.registration_tokens (id, organization_id, name, token_hash, template, max_uses, expires_at)
     values ($1, $2, 'Vendor', $1, $3::jsonb, 1, now() + interval '1 hour')`,
    [tokenId, organization, JSON.stringify(template)],
  )
  return { params: { tokenId } }
}
const session: Row['target'] = async (server, slug) => ({
  params: { sessionId: await newSession(server, await newPerson(server, slug), slug) },
})

const readers: readonly Asker[] = ['auditor', 'admin']
const admins: readonly Asker[] = ['admin']
const template = { redirectHosts: ['app.vendor.example'] }
const url = 'https://hooks.example/in'

export const appRows: Readonly<Record<string, Row>> = {
  listClients: { may: readers, status: 200 },
  getClient: { may: readers, status: 200, target: client },
  createClient: {
    may: admins,
    status: 201,
    body: () => ({ client_name: 'App', redirect_uris: ['https://app.example/'] }),
  },
  updateClient: { may: admins, status: 200, target: client, body: () => ({ client_name: 'Other App' }) },
  setClientPermissions: { may: admins, status: 200, target: client, body: () => ({ permissions: ['user:read'] }) },
  disableClient: { may: admins, status: 200, target: client },
  enableClient: { may: admins, status: 200, target: client },
  replaceClientSecret: { may: admins, status: 200, target: client },
  deleteClient: { may: admins, status: 204, target: client },
  listClientFaults: { may: readers, status: 200, target: client },
  listRegistrationTokens: { may: admins, status: 200 },
  createRegistrationToken: { may: admins, status: 201, body: () => ({ name: 'Vendor', template }) },
  deleteRegistrationToken: { may: admins, status: 204, target: registrationToken },
  listLiveSessions: { may: ['auditor', 'support', 'admin'], status: 200 },
  getLiveSession: { may: ['auditor', 'support', 'admin'], status: 200, target: session },
  endLiveSession: { may: ['support', 'admin'], status: 204, target: session },
  // Whoever may end some may not end those of administrators; the test of sessions says more.
  endAllSessions: { may: admins, status: 200, signsOut: true },
  listWebhooks: { may: readers, status: 200 },
  getWebhook: { may: readers, status: 200, target: webhook },
  createWebhook: { may: admins, status: 201, body: () => ({ url, events: ['client.disabled'] }) },
  updateWebhook: { may: admins, status: 200, target: webhook, body: () => ({ url }) },
  disableWebhook: { may: admins, status: 200, target: webhook },
  enableWebhook: { may: admins, status: 200, target: webhook },
  replaceWebhookSecret: { may: admins, status: 200, target: webhook },
  deleteWebhook: { may: admins, status: 204, target: webhook },
  listWebhookDeliveries: { may: readers, status: 200, target: webhook },
  redeliverWebhook: { may: admins, status: 202, target: delivery },
  pingWebhook: { may: admins, status: 202, target: webhook },
}
