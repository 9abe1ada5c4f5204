// Live sessions as an organisation may see them, in SQL: those that were used for it. Of other organisations, and of their
// apps, nothing is read.
import { type Row, runIn, type Tx } from '../db/database.ts'
import { isLive } from '../sessions/live.ts'

export interface AdminSession {
  readonly uid: string
  readonly accountId: string
  readonly accountName: string
  readonly email: string
  /** Whether the organisation is the person's own. */
  readonly home: boolean
  /** Whether it was begun for this organisation. */
  readonly begunHere: boolean
  readonly ip: string | undefined
  readonly userAgent: string | undefined
  readonly signedInAt: Date
  readonly lastActivityAt: Date
  readonly idleExpiresAt: Date
  readonly absoluteExpiresAt: Date
  readonly acr: string | undefined
  readonly amr: readonly string[]
  readonly organizations: readonly { readonly id: string; readonly slug: string; readonly name: string }[]
  readonly apps: readonly { readonly clientId: string; readonly name: string }[]
  /** `signedInAt` to the microsecond, for the place in a list. */
  readonly signedInMicros: string
}

export interface SessionFilter {
  readonly accountId?: string | undefined
  readonly clientId?: string | undefined
}

const live = `${isLive} and s.account_id is not null and s.signed_in_at is not null`
// $1 the organisation; an app of another one is none.
const matching = `${live} and ($2::text is null or s.account_id = $2)
      and ($3::text is null or s.payload -> 'authorizations' -> $3 is not null
        and exists (select from mlpipes_auth.clients c where c.client_id = $3 and c.organization_id = $1))
      and ($4::bigint is null
        or (s.signed_in_at, s.uid) < (timestamptz 'epoch' + $4::bigint * interval '1 microsecond', $5::text))
    order by s.signed_in_at desc, s.uid desc limit $6::integer`
/** @param others whether the organisations beside this one are told */
const select = (mine: string, limit: string, others: string) => `with mine as (${mine})
    select s.uid, s.account_id, a.name as account_name, a.email, a.organization_id = $1 as home,
      s.organization_id = $1 as begun_here, host(s.ip) as ip, s.user_agent, s.signed_in_at, s.last_activity_at,
      s.idle_expires_at, s.absolute_expires_at, s.payload ->> 'acr' as acr, s.payload -> 'amr' as amr,
      (extract(epoch from s.signed_in_at) * 1000000)::bigint::text as signed_in_micros,
      (select jsonb_agg(jsonb_build_object('id', o.id, 'slug', o.slug, 'name', o.name) order by o.slug)
        from mlpipes_auth.organizations o where (o.id = $1 or ${others}::boolean) and (o.id = s.organization_id or exists (
          select from mlpipes_auth.session_organizations x where x.session_uid = s.uid and x.organization_id = o.id))
      ) as organizations,
      (select jsonb_agg(jsonb_build_object('clientId', c.client_id, 'name', c.name) order by c.name, c.client_id)
        from jsonb_object_keys(coalesce(s.payload -> 'authorizations', '{}')) as part (id)
          join mlpipes_auth.clients c on c.client_id = part.id where c.organization_id = $1) as apps
    from mine join mlpipes_auth.sessions s on s.uid = mine.uid join mlpipes_auth.accounts a on a.id = s.account_id
    order by s.signed_in_at desc, s.uid desc limit ${limit}::integer`
// Each half is in order and as long as a page at most, so that an organisation with very many is not sorted whole.
const list = select(
  `(
      select s.uid from mlpipes_auth.sessions s where s.organization_id = $1 and ${matching}
    ) union (
      select s.uid from mlpipes_auth.session_organizations x join mlpipes_auth.sessions s on s.uid = x.session_uid
      where x.organization_id = $1 and ${matching}
    )`,
  '$6',
  '$7',
)
const isHere = `(s.organization_id = $1 or exists (select from mlpipes_auth.session_organizations x
      where x.session_uid = s.uid and x.organization_id = $1))`
const findOne = select(
  `select s.uid from mlpipes_auth.sessions s where s.uid = $2 and ${live} and ${isHere}`,
  '1',
  '$3',
)

/** One more than `limit`, if there are as many; newest sign-in first. */
export async function listSessions(
  tx: Tx,
  organizationId: string,
  { accountId, clientId }: SessionFilter,
  page: { readonly limit: number; readonly after: readonly string[] | undefined },
  showsOthers: boolean,
): Promise<AdminSession[]> {
  const [micros = null, uid = null] = page.after ?? []
  const values = [organizationId, accountId ?? null, clientId ?? null, micros, uid, page.limit + 1, showsOthers]
  return (await runIn(tx, list, values)).map(toSession)
}

export async function findSession(
  tx: Tx,
  organizationId: string,
  uid: string,
  showsOthers: boolean,
): Promise<AdminSession | undefined> {
  const [row] = await runIn(tx, findOne, [organizationId, uid, showsOthers])
  return row && toSession(row)
}

function toSession(row: Row): AdminSession {
  return {
    uid: String(row['uid']),
    accountId: String(row['account_id']),
    accountName: String(row['account_name']),
    email: String(row['email']),
    home: row['home'] === true,
    begunHere: row['begun_here'] === true,
    ip: textOf(row['ip']),
    userAgent: textOf(row['user_agent']),
    signedInAt: row['signed_in_at'] as Date,
    lastActivityAt: row['last_activity_at'] as Date,
    idleExpiresAt: row['idle_expires_at'] as Date,
    absoluteExpiresAt: row['absolute_expires_at'] as Date,
    acr: textOf(row['acr']),
    amr: (row['amr'] ?? []) as string[],
    organizations: (row['organizations'] ?? []) as AdminSession['organizations'],
    apps: (row['apps'] ?? []) as AdminSession['apps'],
    signedInMicros: String(row['signed_in_micros']),
  }
}

function textOf(value: unknown): string | undefined {
  return value === null || value === undefined ? undefined : String(value)
}
