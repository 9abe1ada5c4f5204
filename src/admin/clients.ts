// Clients at the admin API: an organisation registers its apps and services, and switches them off. What may be registered
// at all is in clients/clients.ts, who may set what in clients/rules.ts.
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { type ClientMembers, hasSecret } from '../clients/clients.ts'
import { type ClientProblem, newClientId, newClientSecret, registrationProblems } from '../clients/registrable.ts'
import { needsOf, permissionProblems } from '../clients/rules.ts'
import { saveClient } from '../clients/save.ts'
import { replaceClientSecret } from '../clients/secret.ts'
import {
  deleteClient,
  findClient,
  hasRoomForClient,
  listClients,
  maxClients,
  type StoredClient,
  setClientPermissions,
  switchClient,
} from '../clients/store.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { endClientAccess } from '../sessions/parting.ts'
import { assertSteppedUp, requireAll } from './access.ts'
import { type Call, NotHere } from './call.ts'
import type { Caller } from './caller.ts'
import { type ClientPatch, operations } from './client-operations.ts'
import type { Kernel } from './kernel.ts'

export { operations } from './client-operations.ts'

export interface ClientParts {
  readonly secrets: Secrets
  readonly clientProblem: ClientProblem
  now(): Date
}

export function addClients({ on }: Pick<Kernel, 'on'>, parts: ClientParts): void {
  const { secrets, now } = parts

  on(operations.list, async (tx, { organization, query, page }) => {
    const rows = await listClients(tx, organization.id, query, page)
    return { body: page.answer(rows, toAnswer, ({ clientId }) => [clientId]) }
  })

  on(operations.get, async (tx, call) => answer(await require(tx, call)))

  on(operations.create, async (tx, call) => {
    const { organization, caller, body: members, about } = call
    const clientId = newClientId()
    assertRegistrable(parts, clientId, members)
    assertAllowed(caller, undefined, members, now())
    if (!(await hasRoomForClient(tx, organization.id)))
      throw notPossible('', `an organisation has at most ${maxClients} clients`)
    const secret = hasSecret(members) ? newClientSecret() : undefined
    await saveClient(tx, secrets, { ...about, organizationId: organization.id, clientId, members, secret })
    const created = await require(tx, { organization, params: { clientId } })
    return {
      body: { ...toAnswer(created), client_secret: secret ?? null },
      version: [created.version],
      location: `/api/admin/clients/${clientId}`,
    }
  })

  on(operations.update, async (tx, call) => {
    const { organization, caller, about } = call
    const before = await require(tx, call, true)
    if (before.version !== call.expected[0]) throw new ApiProblem('version_stale')
    // Whoever changes a client could act with what it holds.
    requireAll(caller, new Set(before.permissions))
    const { clientId } = before
    const members = patched(before.members, call.body)
    assertRegistrable(parts, clientId, members, before.members)
    const lost = before.permissions.length > 0 ? permissionProblems(members) : []
    if (lost.length > 0) throw new ApiProblem('not_possible', lost)
    assertAllowed(caller, before.members, members, now())
    const organizationId = organization.id
    const saving = { ...about, organizationId, clientId, members, secret: undefined }
    // Tokens of a client are in the organisations of its people, guests among them.
    await beyond(tx, organizationId, () => saveClient(tx, secrets, saving))
    return answer(await require(tx, call))
  })

  on(operations.setPermissions, async (tx, call) => {
    const { organization, caller, body, about, expected } = call
    const before = await require(tx, call, true)
    requireAll(caller, new Set([...before.permissions, ...body.permissions]))
    const problems = body.permissions.length > 0 ? permissionProblems(before.members) : []
    if (problems.length > 0) throw new ApiProblem('not_possible', problems)
    const permissions = [...body.permissions].sort()
    const { clientId } = before
    const isSet = await setClientPermissions(tx, organization.id, clientId, { permissions, version: expected[0] ?? 0 })
    if (!isSet) throw new ApiProblem('version_stale')
    const details = { changed: ['permissions'], permissions }
    await appendAudit(tx, { ...about, clientId, name: 'client.updated', outcome: 'success', details })
    return answer(await require(tx, call))
  })

  addSwitches({ on })

  on(operations.replaceSecret, async (tx, call) => {
    const { organization, caller, about, body } = call
    const { clientId, permissions, version } = await require(tx, call, true)
    requireAll(caller, new Set(permissions))
    const { overlapSeconds } = body
    // A third secret would end the first, which is the one in use: whoever sends a form twice is not to lose it.
    if (body.version !== undefined && body.version !== version) throw new ApiProblem('version_stale')
    const replacing = { ...about, clientId, organizationId: organization.id, overlapSeconds }
    const replaced = await replaceClientSecret(tx, secrets, replacing)
    if (!replaced) throw notPossible('token_endpoint_auth_method', 'this client proves itself without a secret')
    return { body: { client_id: clientId, client_secret: replaced.secret } }
  })
}

/** What ends a client for now or for good. */
function addSwitches({ on }: Pick<Kernel, 'on'>): void {
  on(operations.disable, async (tx, call) => {
    const { organization, params, about } = call
    const { clientId } = params
    if (await switchClient(tx, organization.id, clientId, false)) {
      await appendAudit(tx, { ...about, clientId, name: 'client.disabled', outcome: 'success', details: {} })
      await endAll(tx, call)
    }
    return answer(await require(tx, call))
  })

  on(operations.enable, async (tx, call) => {
    const { organization, caller, about } = call
    const { clientId, permissions } = await require(tx, call)
    requireAll(caller, new Set(permissions))
    if (await switchClient(tx, organization.id, clientId, true)) {
      await appendAudit(tx, { ...about, clientId, name: 'client.enabled', outcome: 'success', details: {} })
      await enqueueWebhooks(tx, organization.id, { type: 'client.enabled', data: { clientId } })
    }
    return answer(await require(tx, call))
  })

  on(operations.delete, async (tx, call) => {
    const { organization, about, expected } = call
    const { clientId, version, disabledAt } = await require(tx, call, true)
    if (version !== expected[0]) throw new ApiProblem('version_stale')
    // One that is switched off has nothing any more, and whoever listens was told.
    if (disabledAt === null) await endAll(tx, call)
    await deleteClient(tx, organization.id, clientId)
    await appendAudit(tx, { ...about, clientId, name: 'client.deleted', outcome: 'success', details: {} })
    return {}
  })
}

type ClientCall = Pick<Call, 'organization' | 'about'> & { readonly params: { readonly clientId: string } }

/** Everything that the client has, in whichever organisation its people are. */
async function endAll(tx: Tx, { organization, about, params: { clientId } }: ClientCall): Promise<void> {
  const ending = { clientId, organizationId: organization.id, actor: about.actor, origin: about.origin }
  await beyond(tx, organization.id, () => endClientAccess(tx, ending))
}

async function require(
  tx: Tx,
  { organization, params }: Pick<ClientCall, 'organization' | 'params'>,
  hold = false,
): Promise<StoredClient> {
  const found = await findClient(tx, organization.id, params.clientId, hold)
  if (!found) throw new NotHere('client', params.clientId)
  return found
}

function assertRegistrable(
  { clientProblem }: ClientParts,
  clientId: string,
  members: ClientMembers,
  before?: ClientMembers,
): void {
  const problems = registrationProblems(clientProblem, clientId, members, before)
  if (problems.length > 0) throw new ApiProblem('input_invalid', problems)
}

/** @throws ApiProblem that names the fields which are not the caller's to set, or for which they have to prove themselves */
function assertAllowed(caller: Caller, before: ClientMembers | undefined, after: ClientMembers, now: Date): void {
  const needs = needsOf(before, after)
  const permission = 'platform:organizations'
  if (needs.platform.length > 0 && !caller.permissions.has(permission)) {
    const message = 'only somebody of the platform may set this'
    const errors = needs.platform.map((path) => ({ path, message }))
    throw new ApiProblem('forbidden', errors, { permission })
  }
  if (needs.stepUp.length > 0) assertSteppedUp({ stepUp: true }, caller, now)
}

/** What is not said stays; null takes away what need not be there. */
function patched(members: ClientMembers, patch: ClientPatch): ClientMembers {
  const said = Object.entries(patch).filter(([, value]) => value !== undefined)
  return { ...members, ...Object.fromEntries(said.map(([name, value]) => [name, value ?? undefined])) }
}

const notPossible = (path: string, message: string) => new ApiProblem('not_possible', [{ path, message }])

const answer = (client: StoredClient) => ({ body: toAnswer(client), version: [client.version] })

function toAnswer({ clientId, members, ...client }: StoredClient) {
  return {
    client_id: clientId,
    ...members,
    id_token_signed_response_alg: members.id_token_signed_response_alg ?? null,
    jwks: members.jwks ?? null,
    jwks_uri: members.jwks_uri ?? null,
    introspection_signed_response_alg: members.introspection_signed_response_alg ?? null,
    backchannel_logout_uri: members.backchannel_logout_uri ?? null,
    backchannel_logout_causes: members.backchannel_logout_causes ?? null,
    hasSecret: client.hasSecret,
    previousSecretUntil: client.previousSecretUntil?.toISOString() ?? null,
    permissions: [...client.permissions],
    createdAt: client.createdAt.toISOString(),
    updatedAt: client.updatedAt.toISOString(),
    disabledAt: client.disabledAt?.toISOString() ?? null,
  }
}
