// Clients of one organisation, in SQL. Every statement asks for the organisation; what belongs to others does not exist.
import { type Row, runIn, type Tx } from '../db/database.ts'
import { containing } from '../db/like.ts'
import { giveUpDeliveries } from '../deliveries/outbox.ts'
import { isPermission, type Permission } from '../organizations/permissions.ts'
import type { ClientMembers } from './clients.ts'

/** How many an organisation may register at the API. */
export const maxClients = 1_000

export interface StoredClient {
  readonly clientId: string
  readonly members: ClientMembers
  readonly hasSecret: boolean
  /** Until when the secret of before works beside the one of now; null when it does not. */
  readonly previousSecretUntil: Date | null
  readonly permissions: readonly Permission[]
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly disabledAt: Date | null
  readonly version: number
}

const columns = `client_id, name, metadata, introspection, first_party, profile, permissions,
      secret_digest is not null as has_secret,
      case when previous_secret_until > now() then previous_secret_until end as previous_secret_until, created_at, updated_at, disabled_at, version`
const find = `select ${columns} from mlpipes_auth.clients where client_id = $1 and organization_id = $2`
const list = `select ${columns} from mlpipes_auth.clients
    where organization_id = $1 and ($2::text is null or client_id > $2)
      and ($3::text is null or name ilike $3 escape '\\' or client_id ilike $3 escape '\\')
      and ($4::boolean is null or (disabled_at is not null) = $4)
    order by client_id limit $5::integer`
// Those who register at the same time are counted one after another.
const lock = `select pg_advisory_xact_lock(hashtextextended('mlpipes_auth.clients:' || $1, 0))`
const count = 'select count(*)::integer as clients from mlpipes_auth.clients where organization_id = $1'
const setDisabled = (wanted: boolean) => `update mlpipes_auth.clients
    set disabled_at = ${wanted ? 'now()' : 'null'}, updated_at = now()
    where client_id = $1 and organization_id = $2 and disabled_at is ${wanted ? '' : 'not '}null returning client_id`
const disable = setDisabled(true)
const enable = setDisabled(false)
const setSecret = `update mlpipes_auth.clients set secret_digest = $3, updated_at = now(),
      previous_secret_digest = case when $4::integer > 0 then secret_digest end,
      previous_secret_until = case when $4::integer > 0 and secret_digest is not null
        then now() + make_interval(secs => $4::integer) end
    where client_id = $1 and organization_id = $2 and metadata ->> 'token_endpoint_auth_method' like 'client\\_secret\\_%'
    returning previous_secret_until`
const setPermissions = `update mlpipes_auth.clients set permissions = $3, updated_at = now()
    where client_id = $1 and organization_id = $2 and version = $4::integer returning client_id`
const remove = 'delete from mlpipes_auth.clients where client_id = $1 and organization_id = $2 returning client_id'

export interface ClientFilter {
  readonly q?: string | undefined
  readonly disabled?: boolean | undefined
}

/** One more than `limit`, if there are as many. */
export async function listClients(
  tx: Tx,
  organizationId: string,
  { q, disabled }: ClientFilter,
  page: { readonly limit: number; readonly after: readonly string[] | undefined },
): Promise<StoredClient[]> {
  const values = [
    organizationId,
    page.after?.[0] ?? null,
    q === undefined ? null : containing(q),
    disabled ?? null,
    page.limit + 1,
  ]
  return (await runIn(tx, list, values)).map(toStored)
}

/** @param hold until the transaction ends, nobody else changes it */
export async function findClient(
  tx: Tx,
  organizationId: string,
  clientId: string,
  hold = false,
): Promise<StoredClient | undefined> {
  const [row] = await runIn(tx, hold ? `${find} for no key update` : find, [clientId, organizationId])
  return row && toStored(row)
}

/** Whether one more has room, for as long as the transaction lasts. */
export async function hasRoomForClient(tx: Tx, organizationId: string): Promise<boolean> {
  await runIn(tx, lock, [organizationId])
  const [row] = await runIn(tx, count, [organizationId])
  return Number(row?.['clients']) < maxClients
}

/** True when this changed it. */
export async function switchClient(tx: Tx, organizationId: string, clientId: string, on: boolean): Promise<boolean> {
  return (await runIn(tx, on ? enable : disable, [clientId, organizationId])).length === 1
}

/** Until when the one of before works; undefined when the client proves itself in another way. */
export async function setClientSecret(
  tx: Tx,
  organizationId: string,
  clientId: string,
  { digest, overlapSeconds }: { readonly digest: string; readonly overlapSeconds: number },
): Promise<{ readonly formerUntil: Date | null } | undefined> {
  const [row] = await runIn(tx, setSecret, [clientId, organizationId, digest, overlapSeconds])
  return row && { formerUntil: row['previous_secret_until'] as Date | null }
}

/** False when it was changed since this version. */
export async function setClientPermissions(
  tx: Tx,
  organizationId: string,
  clientId: string,
  wanted: { readonly permissions: readonly Permission[]; readonly version: number },
): Promise<boolean> {
  const values = [clientId, organizationId, [...wanted.permissions], wanted.version]
  return (await runIn(tx, setPermissions, values)).length === 1
}

export async function deleteClient(tx: Tx, organizationId: string, clientId: string): Promise<void> {
  await runIn(tx, remove, [clientId, organizationId])
  await giveUpDeliveries(tx, organizationId, clientId)
}

function toStored(row: Row): StoredClient {
  const metadata = row['metadata'] as Partial<ClientMembers>
  return {
    clientId: String(row['client_id']),
    members: {
      client_name: String(row['name']),
      redirect_uris: metadata.redirect_uris ?? [],
      post_logout_redirect_uris: metadata.post_logout_redirect_uris ?? [],
      grant_types: metadata.grant_types ?? [],
      token_endpoint_auth_method: metadata.token_endpoint_auth_method ?? 'client_secret_basic',
      application_type: metadata.application_type ?? 'web',
      id_token_signed_response_alg: metadata.id_token_signed_response_alg,
      jwks: metadata.jwks,
      jwks_uri: metadata.jwks_uri,
      require_pushed_authorization_requests: metadata.require_pushed_authorization_requests ?? false,
      dpop_bound_access_tokens: metadata.dpop_bound_access_tokens ?? false,
      access_token_format: metadata.access_token_format ?? 'opaque',
      introspection_signed_response_alg: metadata.introspection_signed_response_alg,
      scope: metadata.scope ?? '',
      introspection: row['introspection'] as ClientMembers['introspection'],
      first_party: row['first_party'] === true,
      session_activity: metadata.session_activity ?? true,
      backchannel_logout_uri: metadata.backchannel_logout_uri,
      backchannel_logout_session_required: metadata.backchannel_logout_session_required ?? false,
      backchannel_logout_causes: metadata.backchannel_logout_causes,
      profile: row['profile'] as ClientMembers['profile'],
    },
    hasSecret: row['has_secret'] === true,
    previousSecretUntil: row['previous_secret_until'] as Date | null,
    permissions: (row['permissions'] as string[]).filter(isPermission),
    createdAt: row['created_at'] as Date,
    updatedAt: row['updated_at'] as Date,
    disabledAt: row['disabled_at'] as Date | null,
    version: Number(row['version']),
  }
}
