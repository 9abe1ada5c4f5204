// Recent errors of an app at the admin API: the facts that are kept (clients/faults.ts), by their codes for a program and in
// the words of the app's page (clients/fault-words.ts) for whoever reads them.
import { z } from 'zod'
import { faultEndpoints, faultReasons } from '../clients/fault-reasons.ts'
import { type Registered, wordsFor } from '../clients/fault-words.ts'
import { type Faults, listFaults, maxFaults, maxFaultsOfReason, type SeenFault } from '../clients/faults.ts'
import { findClient } from '../clients/store.ts'
import { NotHere } from './call.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, operation } from './operation.ts'

const facts = z
  .strictObject({
    redirectUri: z.string().nullable().meta({ description: 'where it leads, without query, fragment and user' }),
    scope: z.string().nullable(),
    grantType: z.string().nullable(),
    method: z.string().nullable().meta({ description: 'how it proved itself: secret, private_key_jwt or none' }),
    parameters: z.array(z.string()).nullable().meta({ description: 'names of parameters that it is about' }),
  })
  .meta({ description: 'what the app sent, as far as it belongs to the reason; null: it does not' })
const fault = z
  .strictObject({
    endpoint: z.enum(faultEndpoints),
    error: z.string().meta({ description: 'the OAuth error code that was answered' }),
    reason: z.enum(faultReasons).meta({ description: 'what it was, out of a closed list' }),
    where: z.string().meta({ description: 'the endpoint in English' }),
    what: z.string().meta({ description: 'what the app did, and what is registered now, in English' }),
    mend: z.string().meta({ description: 'what mends it, in English' }),
    facts,
    count: z.number().int().meta({ description: 'how often it was the same within an hour' }),
    occurredAt: instant.meta({ description: 'the last time' }),
  })
  .meta({ id: 'ClientFault' })

export const operations = {
  list: operation({
    id: 'listClientFaults',
    method: 'GET',
    path: '/api/admin/clients/:clientId/faults',
    group: 'Clients',
    permission: 'client:read',
    summary: 'Recent errors of a client',
    description: `What the protocol's endpoints refused it lately, the latest first: at most ${maxFaults}, ${maxFaultsOfReason} of a reason. Anybody can send a request in its name to the authorization endpoint, so none is a proof that it was the client.`,
    params: z.strictObject({ clientId: idParam }),
    answer: { status: 200, description: 'Its errors.', schema: z.strictObject({ items: z.array(fault) }) },
  }),
} as const

export interface ClientFaultParts {
  readonly faults: Pick<Faults, 'write'>
}

export function addClientFaults({ onPrepared }: Kernel, { faults }: ClientFaultParts): void {
  onPrepared(operations.list, async () => {
    // What waits to be written is an error of a moment ago, and the one that is looked for.
    await faults.write()
    return async (tx, { organization, params: { clientId } }) => {
      const client = await findClient(tx, organization.id, clientId)
      if (!client) throw new NotHere('client', clientId)
      const seen = await listFaults(tx, organization.id, clientId)
      return { body: { items: seen.map((one) => toAnswer(one, client.members)) } }
    }
  })
}

function toAnswer({ endpoint, error, reason, facts, count, at }: SeenFault, registered: Registered) {
  const { redirectUri = null, scope = null, grantType = null, method = null, parameters } = facts
  return {
    endpoint,
    error,
    reason,
    ...wordsFor({ endpoint, reason, facts }, registered),
    facts: { redirectUri, scope, grantType, method, parameters: parameters ? [...parameters] : null },
    count,
    occurredAt: at.toISOString(),
  }
}
