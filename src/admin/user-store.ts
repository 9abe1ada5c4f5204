// People of an organisation in SQL, as its administrators see them. Every statement names the organisation.
import { type Row, runIn, type Tx } from '../db/database.ts'
import type { Page } from './pages.ts'

export interface User {
  readonly id: string
  readonly email: string
  readonly emailNormalized: string
  readonly emailVerified: boolean
  readonly name: string
  readonly metadata: Readonly<Record<string, string>>
  readonly roles: readonly string[]
  readonly disabledAt: Date | undefined
  readonly hasPassword: boolean
  readonly passwordMustChange: boolean
  readonly secondFactors: number
  readonly factorResetUntil: Date | undefined
  readonly createdAt: Date
  readonly updatedAt: Date
  /** Of the account and of its place here. */
  readonly version: readonly [number, number]
}

export interface UserFilter {
  readonly q?: string | undefined
  readonly role?: string | undefined
  readonly disabled?: boolean | undefined
}

const columns = `a.id, a.email, a.email_normalized, a.email_verified_at is not null as email_verified, a.name, a.metadata,
    a.disabled_at, a.factor_reset_until, a.created_at, a.updated_at, a.version as account_version,
    m.roles, m.version as membership_version, p.account_id is not null as has_password, p.must_change,
    (select count(*)::integer from mlpipes_auth.totp_credentials t
      where t.account_id = a.id and t.confirmed_at is not null) as second_factors`
const users = `mlpipes_auth.accounts a
    join mlpipes_auth.memberships m on m.account_id = a.id and m.organization_id = a.organization_id
    left join mlpipes_auth.password_credentials p on p.account_id = a.id`
// The page is found first, out of an index alone (migration 0011); then its people are read whole. Letters beyond ASCII have
// no other case where the database's locale is C; as they stand ($7), they are found all the same.
const list = `with page as materialized (
      select f.id from mlpipes_auth.accounts f
      where f.organization_id = $1 and ($2::text is null or f.email_normalized > $2)
        and ($3::text is null or strpos(f.email_normalized, $3) > 0 or strpos(f.searched_name, $3) > 0
          or $7::text is not null and strpos(f.searched_name, $7) > 0)
        and ($4::text is null or exists (select from mlpipes_auth.memberships r
          where r.account_id = f.id and r.organization_id = f.organization_id and $4 = any(r.roles)))
        and ($5::boolean is null or (f.disabled_at is not null) = $5)
      order by f.email_normalized limit $6
    )
    select ${columns} from ${users} join page on page.id = a.id where a.organization_id = $1 order by a.email_normalized`
const find = `select ${columns} from ${users} where a.organization_id = $1 and a.id = $2`

export async function listUsers(tx: Tx, organizationId: string, filter: UserFilter, page: Page): Promise<User[]> {
  const rows = await runIn(tx, list, [
    organizationId,
    page.after?.[0] ?? null,
    filter.q?.normalize('NFKC').toLowerCase() ?? null,
    filter.role ?? null,
    filter.disabled ?? null,
    page.limit + 1,
    filter.q === undefined || isAscii(filter.q) ? null : filter.q,
  ])
  return rows.map(toUser)
}

const isAscii = (text: string) => Buffer.byteLength(text) === text.length

export async function findUser(tx: Tx, organizationId: string, accountId: string): Promise<User | undefined> {
  const [row] = await runIn(tx, find, [organizationId, accountId])
  return row && toUser(row)
}

const update = `update mlpipes_auth.accounts a set name = coalesce($5::text, a.name), updated_at = now(),
      metadata = coalesce($6::jsonb, a.metadata)
    where a.organization_id = $1 and a.id = $2 and a.version = $3 and exists (select from mlpipes_auth.memberships m
      where m.account_id = a.id and m.organization_id = a.organization_id and m.version = $4)
    returning a.id`

/** Changes an account that still has this version; false when it has another. */
export async function updateUser(
  tx: Tx,
  organizationId: string,
  accountId: string,
  expected: readonly number[],
  change: { readonly name?: string | undefined; readonly metadata?: Readonly<Record<string, string>> | undefined },
): Promise<boolean> {
  const metadata = change.metadata === undefined ? null : JSON.stringify(change.metadata)
  const values = [organizationId, accountId, ...expected, change.name?.trim() ?? null, metadata]
  return (await runIn(tx, update, values)).length === 1
}

const setRolesOf = (condition: string) => `update mlpipes_auth.memberships m set roles = $3::text[], updated_at = now()
    where m.organization_id = $1 and m.account_id = $2 and ${condition} returning m.version`
const setHomeRoles = setRolesOf(`m.home and m.version = $5 and exists (select from mlpipes_auth.accounts a
    where a.id = m.account_id and a.organization_id = m.organization_id and a.version = $4)`)
const setGuestRoles = setRolesOf('not m.home and m.version = $4')

/** Replaces the roles of somebody whose place still has this version; false when it has another. */
export async function setRoles(
  tx: Tx,
  organizationId: string,
  accountId: string,
  expected: readonly number[],
  roles: readonly string[],
): Promise<boolean> {
  const statement = expected.length === 2 ? setHomeRoles : setGuestRoles
  return (await runIn(tx, statement, [organizationId, accountId, [...roles], ...expected])).length === 1
}

function toUser(row: Row): User {
  return {
    id: String(row['id']),
    email: String(row['email']),
    emailNormalized: String(row['email_normalized']),
    emailVerified: row['email_verified'] === true,
    name: String(row['name']),
    metadata: row['metadata'] as Record<string, string>,
    roles: row['roles'] as string[],
    disabledAt: (row['disabled_at'] as Date | null) ?? undefined,
    hasPassword: row['has_password'] === true,
    passwordMustChange: row['must_change'] === true,
    secondFactors: Number(row['second_factors']),
    factorResetUntil: (row['factor_reset_until'] as Date | null) ?? undefined,
    createdAt: row['created_at'] as Date,
    updatedAt: row['updated_at'] as Date,
    version: [Number(row['account_version']), Number(row['membership_version'])],
  }
}
