// Writing a client down: the one way for `apply`, the admin API and apps that register themselves, with the audit row of it,
// and with what people allowed an app being asked again when it is not the app any more that they allowed.
import { sql } from 'kysely'
import { appendAudit } from '../audit/audit.ts'
import type { Actor, Origin } from '../audit/events.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { runIn, type Tx } from '../db/database.ts'
import { isPersonal } from '../sessions/tokens.ts'
import { type ClientMembers, clientMetadata, hasSecret } from './clients.ts'
import { isSameJson } from './same-json.ts'
import { usualOverlapSeconds } from './secret.ts'

export interface ClientSaving {
  readonly clientId: string
  readonly organizationId: string
  readonly members: ClientMembers
  /** Undefined: it keeps what it has. */
  readonly secret: string | undefined
  readonly actor: Actor
  readonly origin: Origin
  /** With what token it registered itself. */
  readonly registrationTokenId?: string | undefined
}

export interface ClientChange {
  readonly kind: 'created' | 'updated' | 'unchanged'
  /** By the names of the registration. */
  readonly fields: readonly string[]
}

/** Changes after which people are asked again: who the app says it is, where codes go, what it asks for (F76). */
export const consentFields: ReadonlySet<string> = new Set([
  'client_name',
  'redirect_uris',
  'scope',
  'first_party',
  'organization',
])

/** Registers a client, or brings it to what is said here, whatever it was. */
export async function saveClient(tx: Tx, secrets: Secrets, saving: ClientSaving): Promise<ClientChange> {
  const { clientId, organizationId, members, actor, origin } = saving
  const before = await tx
    .selectFrom('clients')
    .select(['name', 'organization_id', 'secret_digest', 'metadata', 'introspection', 'first_party', 'profile'])
    .where('client_id', '=', clientId)
    .forNoKeyUpdate()
    .executeTakeFirst()
  const metadata = clientMetadata(members)
  const row = {
    organization_id: organizationId,
    name: members.client_name,
    secret_digest: digestOf(secrets, saving, before?.secret_digest ?? null),
    metadata: JSON.stringify(metadata),
    introspection: members.introspection,
    first_party: members.first_party,
    profile: members.profile,
  }
  const common = { outcome: 'success' as const, actor, organizationId, clientId, origin }
  if (!before) {
    await tx
      .insertInto('clients')
      .values({ client_id: clientId, ...row })
      .execute()
    const { registrationTokenId } = saving
    const details = { introspection: members.introspection, firstParty: members.first_party, registrationTokenId }
    await appendAudit(tx, { ...common, name: 'client.created', details })
    return { kind: 'created', fields: ['client_name', 'organization'] }
  }
  const fields = [
    ...(before.name === row.name ? [] : ['client_name']),
    ...(before.organization_id === organizationId ? [] : ['organization']),
    ...(before.secret_digest === row.secret_digest ? [] : ['client_secret']),
    ...Object.keys({ ...before.metadata, ...metadata }).filter(
      (key) => !isSameJson(before.metadata[key], metadata[key]),
    ),
    ...(before.introspection === row.introspection ? [] : ['introspection']),
    ...(before.first_party === row.first_party ? [] : ['first_party']),
    ...(before.profile === row.profile ? [] : ['profile']),
  ]
  if (fields.length === 0) return { kind: 'unchanged', fields }
  await tx
    .updateTable('clients')
    .set((eb) => ({
      ...row,
      updated_at: eb.fn<Date>('now'),
      ...(fields.includes('client_secret') ? rotatedOut(before.secret_digest, row.secret_digest) : {}),
    }))
    .where('client_id', '=', clientId)
    .execute()
  await appendAudit(tx, { ...common, name: 'client.updated', details: { changed: fields } })
  if (fields.some((field) => consentFields.has(field))) await askAgain(tx, saving)
  return { kind: 'updated', fields }
}

/**
 * What a changed secret leaves beside it: the one of before works on for a day, so that apps need not be told in the moment
 * in which a file is applied. It stands in the place of whatever was being rotated out. None is left to who proves itself
 * in another way.
 */
function rotatedOut(former: string | null, next: string | null) {
  if (former === null || next === null) return { previous_secret_digest: null, previous_secret_until: null }
  return {
    previous_secret_digest: former,
    previous_secret_until: sql<Date>`now() + make_interval(secs => ${usualOverlapSeconds}::integer)`,
  }
}

function digestOf(secrets: Secrets, { secret, members }: ClientSaving, before: string | null): string | null {
  if (!hasSecret(members)) return null
  if (secret === undefined || (before !== null && secrets.matchesClientSecret(secret, before))) return before
  return secrets.digestClientSecret(secret)
}

const dropConsents = 'delete from mlpipes_auth.consents where client_id = $1 returning client_id'
// Codes and tokens before grants, in the order in which a token request locks them, and once more for what such requests
// issued while they were waited for. A consent page that is open shows what is not so any more, and goes too.
const dropTokens = `delete from mlpipes_auth.oidc_payloads where client_id = $1 and ${isPersonal} returning id_hash`
const dropGrants = `delete from mlpipes_auth.oidc_payloads where client_id = $1 and model = 'Grant'
    or model = 'Interaction' and payload -> 'params' ->> 'client_id' = $1 returning id_hash`

/**
 * Takes from an app what people allowed it: nothing that was given to the app of before is good for the one of now. Their
 * next authorization asks. Tokens of its own (client credentials) stay.
 */
async function askAgain(tx: Tx, { clientId, organizationId, actor, origin }: ClientSaving): Promise<void> {
  await runIn(tx, dropConsents, [clientId])
  const before = await runIn(tx, dropTokens, [clientId])
  await runIn(tx, dropGrants, [clientId])
  const meanwhile = await runIn(tx, dropTokens, [clientId])
  const details = { cause: 'consent_withdrawn', sessions: 0, tokens: before.length + meanwhile.length }
  const common = { outcome: 'success' as const, actor, organizationId, clientId, origin }
  await appendAudit(tx, { ...common, name: 'access.ended', details })
}
