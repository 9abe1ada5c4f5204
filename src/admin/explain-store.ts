// What an explanation is made from, read at one moment. Each is found by an id and the organisation that asks: what is not
// that organisation's is not there.
import { sha256 } from '../crypto/secrets.ts'
import { type Row, runIn, type Tx } from '../db/database.ts'
import { isAdministrative, permissionsOf } from '../organizations/permissions.ts'
import { type PolicyInput, policySchema } from '../organizations/policy.ts'

export interface ExplainedOrganization {
  readonly id: string
  readonly slug: string
  readonly input: PolicyInput
  readonly isOpen: boolean
}

export interface ExplainedPerson {
  readonly id: string
  readonly name: string
  readonly roles: readonly string[]
  readonly isAdministrator: boolean
  /** Why they may not act in the organisation; undefined when they may. */
  readonly barred: 'account' | 'organization' | undefined
  /** Every organisation that they belong to. */
  readonly belongsTo: readonly string[]
}

export interface ExplainedSession {
  readonly uid: string
  readonly accountId: string
  /** The organisation of the sign-in. */
  readonly organizationId: string
  readonly usedFor: readonly string[]
  readonly amr: readonly string[]
  readonly ip: string | undefined
  readonly signedInAt: Date
  readonly lastActivityAt: Date
  readonly idleExpiresAt: Date
  readonly absoluteExpiresAt: Date
  readonly idleSeconds: number | undefined
  readonly absoluteSeconds: number | undefined
  readonly endedAt: Date | undefined
  readonly endReason: string | undefined
  readonly readAt: Date
}

export const tokenKinds = ['AccessToken', 'RefreshToken', 'ClientCredentials'] as const
export type TokenKind = (typeof tokenKinds)[number]

export interface ExplainedToken {
  readonly kind: TokenKind
  readonly accountId: string | undefined
  readonly client: { readonly id: string; readonly name: string; readonly isEnabled: boolean }
  readonly clientOrganizationId: string
  readonly organizationId: string
  readonly sessionUid: string | undefined
  readonly endsWithSession: boolean
  readonly amr: readonly string[] | undefined
  readonly expiresAt: Date | undefined
  readonly isExpired: boolean
  readonly isConsumed: boolean
  readonly hasGrant: boolean
  readonly iat: number | undefined
  readonly iiat: number | undefined
  readonly readAt: Date
}

const findPerson = `select a.id, a.name, a.disabled_at is not null as disabled, m.roles,
      h.closed_at is not null or o.closed_at is not null as closed,
      (select coalesce(jsonb_object_agg(r.name, to_jsonb(r.permissions)), '{}') from mlpipes_auth.organization_roles r
        where r.organization_id = m.organization_id and r.name = any(m.roles)) as own,
      array(select b.organization_id from mlpipes_auth.memberships b where b.account_id = a.id) as belongs_to
    from mlpipes_auth.memberships m join mlpipes_auth.accounts a on a.id = m.account_id
    join mlpipes_auth.organizations h on h.id = a.organization_id
    join mlpipes_auth.organizations o on o.id = m.organization_id
    where m.account_id = $1 and m.organization_id = $2`

export async function readPerson(tx: Tx, id: string, organizationId: string): Promise<ExplainedPerson | undefined> {
  const [row] = await runIn(tx, findPerson, [id, organizationId])
  if (!row) return undefined
  const roles = row['roles'] as string[]
  return {
    id: String(row['id']),
    name: String(row['name']),
    roles,
    isAdministrator: isAdministrative(permissionsOf(roles, row['own'] as Record<string, string[]>)),
    barred: row['disabled'] === true ? 'account' : row['closed'] === true ? 'organization' : undefined,
    belongsTo: row['belongs_to'] as string[],
  }
}

const findSession = `select s.uid, s.account_id, s.organization_id, s.payload -> 'amr' as amr, host(s.ip) as ip, s.signed_in_at,
      s.last_activity_at, s.idle_expires_at, s.absolute_expires_at, s.idle_seconds, s.absolute_seconds, s.ended_at,
      s.end_reason, now() as read_at,
      array(select o.organization_id from mlpipes_auth.session_organizations o where o.session_uid = s.uid) as also
    from mlpipes_auth.sessions s
    where s.uid = $1 and s.account_id is not null and s.organization_id is not null and s.signed_in_at is not null
      and ($2::text is null or s.organization_id = $2 or exists (select from mlpipes_auth.session_organizations o
        where o.session_uid = s.uid and o.organization_id = $2))`

/** @param organizationId that it must have been used for; undefined where it was come by through something of theirs */
export async function readSession(
  tx: Tx,
  uid: string,
  organizationId: string | undefined,
): Promise<ExplainedSession | undefined> {
  const [row] = await runIn(tx, findSession, [uid, organizationId ?? null])
  if (!row) return undefined
  return {
    uid: String(row['uid']),
    accountId: String(row['account_id']),
    organizationId: String(row['organization_id']),
    usedFor: [String(row['organization_id']), ...(row['also'] as string[])],
    amr: textsOf(row['amr']) ?? [],
    ip: textOf(row['ip']),
    signedInAt: row['signed_in_at'] as Date,
    lastActivityAt: row['last_activity_at'] as Date,
    idleExpiresAt: row['idle_expires_at'] as Date,
    absoluteExpiresAt: row['absolute_expires_at'] as Date,
    idleSeconds: numberOf(row['idle_seconds']),
    absoluteSeconds: numberOf(row['absolute_seconds']),
    endedAt: (row['ended_at'] as Date | null) ?? undefined,
    endReason: textOf(row['end_reason']),
    readAt: row['read_at'] as Date,
  }
}

const findToken = `select p.model, p.account_id, p.payload, p.organization_id, p.expires_at, p.consumed_at is not null as consumed,
      coalesce(p.expires_at <= now(), false) as expired, now() as read_at, c.client_id, c.name as client_name,
      c.organization_id as client_organization_id, c.disabled_at is null and o.closed_at is null as enabled,
      p.grant_id is null or exists (select from mlpipes_auth.oidc_payloads g
        where g.model = 'Grant' and g.id_hash = $3 and (g.expires_at is null or g.expires_at > now())) as has_grant
    from mlpipes_auth.oidc_payloads p join mlpipes_auth.clients c on c.client_id = p.client_id
    join mlpipes_auth.organizations o on o.id = c.organization_id
    where p.model = any($2) and p.id_hash = $1`
const findGrantId = 'select grant_id from mlpipes_auth.oidc_payloads where model = any($2) and id_hash = $1'

/** A token that was issued in the organisation, or to an app of it. */
export async function readToken(tx: Tx, value: string, organizationId: string): Promise<ExplainedToken | undefined> {
  const id = sha256(value)
  const [found] = await runIn(tx, findGrantId, [id, [...tokenKinds]])
  const grantId = textOf(found?.['grant_id'])
  const [row] = found ? await runIn(tx, findToken, [id, [...tokenKinds], grantId ? sha256(grantId) : null]) : []
  const token = row && toToken(row)
  return token && [token.organizationId, token.clientOrganizationId].includes(organizationId) ? token : undefined
}

function toToken(row: Row): ExplainedToken {
  const payload = row['payload'] as Record<string, unknown>
  const extra: Record<string, unknown> = Object(payload['extra'])
  const clientOrganizationId = String(row['client_organization_id'])
  return {
    kind: row['model'] as TokenKind,
    accountId: textOf(row['account_id']),
    client: { id: String(row['client_id']), name: String(row['client_name']), isEnabled: row['enabled'] === true },
    clientOrganizationId,
    organizationId: textOf(row['organization_id'] ?? extra['org_id']) ?? clientOrganizationId,
    sessionUid: textOf(payload['sessionUid']),
    endsWithSession: payload['expiresWithSession'] === true,
    amr: textsOf(payload['amr'] ?? extra['amr']),
    expiresAt: (row['expires_at'] as Date | null) ?? undefined,
    isExpired: row['expired'] === true,
    isConsumed: row['consumed'] === true,
    hasGrant: row['has_grant'] === true,
    iat: numberOf(payload['iat']),
    iiat: numberOf(payload['iiat']),
    readAt: row['read_at'] as Date,
  }
}

const findOrganizations = `select id, slug, policy, closed_at is null as open from mlpipes_auth.organizations
    where id = any($1::text[]) order by slug`

export async function readOrganizations(tx: Tx, ids: readonly string[]): Promise<readonly ExplainedOrganization[]> {
  const rows = await runIn(tx, findOrganizations, [[...new Set(ids)]])
  return rows.map((row) => ({
    id: String(row['id']),
    slug: String(row['slug']),
    input: policySchema.parse(row['policy']),
    isOpen: row['open'] === true,
  }))
}

function textOf(value: unknown): string | undefined {
  return value === null || value === undefined ? undefined : String(value)
}
function numberOf(value: unknown): number | undefined {
  return value === null || value === undefined ? undefined : Number(value)
}
function textsOf(value: unknown): readonly string[] | undefined {
  return Array.isArray(value) ? value.map(String) : undefined
}
