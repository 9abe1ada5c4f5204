// Accounts: who a person is, where they belong and whether they may act. Credentials are elsewhere.
import { CompiledQuery, sql } from 'kysely'
import { coalesce } from '../db/coalesce.ts'
import type { Database, Db, Row, Tx } from '../db/database.ts'
import type { Policies } from '../organizations/organizations.ts'
import { isAdministrator } from '../organizations/permissions.ts'
import { type Policy, type PolicyInput, policyFor } from '../organizations/policy.ts'
import { type Decision, decideOrganization, type Membership, type Place, policyIn } from './place.ts'

/** A person who may act now: the account is not disabled, the organisation not closed. */
export interface Account {
  readonly id: string
  readonly email: string
  readonly emailVerified: boolean
  readonly name: string
  readonly updatedAt: Date
  /** The organisation in which they act here. */
  readonly organization: { readonly id: string; readonly slug: string; readonly name: string }
  /** Their roles in that organisation. */
  readonly roles: readonly string[]
  /** Effective policy of that organisation; in a sign-in also that of the app's organisation. */
  readonly policy: Policy
}

/** A person who may act now, with every open organisation that they belong to, home first. */
export interface Person extends Omit<Account, 'organization' | 'roles' | 'policy'> {
  readonly memberships: readonly Membership[]
}

/** An account as sign-in sees it: with what it has to prove, and whether it may act. */
export interface SignInAccount extends Account {
  readonly active: boolean
  /** Which organisation the sign-in is for. Until it is chosen, what stands above is that of the home organisation. */
  readonly decision: Decision
  readonly passwordHash: string | undefined
  readonly passwordChangedAt: Date | undefined
  /** Must be replaced at the next sign-in. */
  readonly passwordMustChange: boolean
  readonly totpIds: readonly string[]
  /** Until when an administrator lets a lost factor be replaced with the password alone. */
  readonly factorResetUntil: Date | undefined
  /** Kinds of authenticator that failed since they last succeeded, and those disabled for it. */
  readonly failingKinds: readonly string[]
  readonly disabledKinds: readonly string[]
}

/** NFKC, trimmed, lower case: one account and one counter whatever the spelling (F37). */
export function normalizeEmail(email: string): string {
  return canonicalEmail(email).toLowerCase()
}

/**
 * An address as it is kept and mailed to: its owner's spelling, but no character that only looks like another (C16).
 * Otherwise the mail to one address would prove another one.
 */
export function canonicalEmail(email: string): string {
  return email.normalize('NFKC').trim()
}

/** RFC 5321 §4.5.3.1: what an address may be, and nothing that could end a mail header. */
export function isEmailShaped(email: string): boolean {
  return email.length <= 254 && /^[^\s@,;<>"\p{Cc}]{1,64}@[^\s@,;<>"\p{Cc}]+\.[^\s@,;<>"\p{Cc}.]+$/u.test(email)
}

// The home organisation manages the account: when it is closed, the person acts nowhere.
const people = `mlpipes_auth.accounts a
    join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
    join mlpipes_auth.memberships m on m.account_id = a.id
    join mlpipes_auth.organizations o on o.id = m.organization_id and o.closed_at is null`
const personColumns = `a.id, a.email, a.email_verified_at, a.name, a.updated_at, o.id as organization_id, o.slug,
      o.name as organization_name, o.policy, m.roles, m.home`
// Not `coalesce`, of which the planner does not know that it tells nothing: with row-level security it would plan around it.
const findActive = `select wanted.organization_id as asked, ${personColumns}
    from unnest($1::text[], $2::text[]) as wanted (id, organization_id) join (${people}) on a.id = wanted.id
      and m.organization_id = case when wanted.organization_id is null then a.organization_id else wanted.organization_id end
    where a.disabled_at is null`
const findPeople = `select ${personColumns} from ${people}
    where a.disabled_at is null and a.id = any($1::text[]) order by m.home desc, o.name, o.id`
const findMemberships = `select o.id as organization_id, o.slug, o.name as organization_name, o.policy, m.roles, m.home,
      coalesce((select jsonb_object_agg(r.name, to_jsonb(r.permissions)) from mlpipes_auth.organization_roles r
        where r.organization_id = o.id and r.name = any(m.roles)), '{}') as own_roles
    from mlpipes_auth.memberships m join mlpipes_auth.organizations o on o.id = m.organization_id and o.closed_at is null
    where m.account_id = $1 order by m.home desc, o.name, o.id`

/** The kinds of authenticator of an account that are in this state. */
const failures = (condition: 'consecutive > 0' | 'disabled_at is not null') =>
  sql<
    string[]
  >`array(select f.kind from authenticator_failures f where f.account_id = a.id and ${sql.raw(`f.${condition}`)})`

export interface Accounts {
  /**
   * The account if it may act now, in one of its organisations. Concurrent calls share a statement.
   * @param organizationId the home organisation when undefined
   * @returns undefined also when the person does not belong there, or no more
   */
  findActive(id: string, organizationId?: string): Promise<Account | undefined>
  /** The same with every organisation that the person belongs to. */
  findPerson(id: string): Promise<Person | undefined>
  /**
   * The account behind an e-mail address, whether or not it may act.
   * @param place where the sign-in leads; without one it is about the account, and so about its home organisation
   */
  findForSignIn(emailNormalized: string, place?: Place): Promise<SignInAccount | undefined>
  /** @param tx to see what that transaction did */
  findForSignInById(id: string, tx?: Tx, place?: Place): Promise<SignInAccount | undefined>
}

export function createAccounts(database: Database, policies: Policies): Accounts {
  const findActiveCoalesced = coalesce<{ id: string; organizationId: string | undefined }, Account | undefined>(
    database,
    {
      statement: findActive,
      values(items) {
        const once = [...new Map(items.map((item) => [keyOf(item.id, item.organizationId), item])).values()]
        return [once.map((item) => item.id), once.map((item) => item.organizationId ?? null)]
      },
      results(rows, items) {
        const byKey = new Map(rows.map((row) => [keyOf(row['id'], row['asked']), toAccount(row, policies)]))
        return items.map((item) => byKey.get(keyOf(item.id, item.organizationId)))
      },
    },
  )
  const findPerson = coalesce<string, Person | undefined>(database, {
    statement: findPeople,
    values: (ids) => [[...new Set(ids)]],
    results: (rows, ids) =>
      ids.map((id) => {
        const own = rows.filter((row) => row['id'] === id)
        return own[0] && { ...toIdentity(own[0]), memberships: own.map((row) => toMembership(row, policies)) }
      }),
  })
  /** Who may change things in an organisation is asked for more there than its policy asks of everybody. */
  const underRoles = (row: Row): Membership => {
    const membership = toMembership(row, policies)
    const own = row['own_roles'] as Record<string, string[]>
    return {
      ...membership,
      policy: policyFor(membership.policy, { isAdministrator: isAdministrator(membership.roles, own) }),
    }
  }
  const findOne = async (
    db: Db,
    column: 'a.id' | 'a.email_normalized',
    value: string,
    place: Place,
  ): Promise<SignInAccount | undefined> => {
    const row = await db
      .selectFrom('accounts as a')
      .innerJoin('organizations as o', 'o.id', 'a.organization_id')
      .innerJoin('memberships as m', (join) =>
        join.onRef('m.account_id', '=', 'a.id').onRef('m.organization_id', '=', 'a.organization_id'),
      )
      .leftJoin('password_credentials as p', 'p.account_id', 'a.id')
      .where(column, '=', value)
      .select([
        'a.id',
        'a.email',
        'a.email_verified_at',
        'a.name',
        'a.updated_at',
        'a.factor_reset_until',
        'o.id as organization_id',
        'o.slug',
        'o.name as organization_name',
        'o.policy',
        'm.roles',
        'p.hash',
        'p.changed_at as password_changed_at',
        'p.must_change',
      ])
      .select(sql<boolean>`a.disabled_at is null and o.closed_at is null`.as('active'))
      .select(
        sql<
          string[]
        >`array(select t.id from totp_credentials t where t.account_id = a.id and t.confirmed_at is not null)`.as(
          'totp_ids',
        ),
      )
      .select(failures('consecutive > 0').as('failing_kinds'))
      .select(failures('disabled_at is not null').as('disabled_kinds'))
      .executeTakeFirst()
    if (!row) return undefined
    const rows = await db.executeQuery(CompiledQuery.raw(findMemberships, [row.id]))
    const memberships = rows.rows.map((one) => underRoles(toRow(one)))
    const decision = decideOrganization(memberships, place)
    const home = toAccount(row, policies)
    const decided = decision.kind === 'in' ? decision.membership : memberships.find((membership) => membership.home)
    const { organization, roles, policy } = decided ?? home
    return {
      ...home,
      organization,
      roles,
      policy: policyIn({ organization, policy }, place.client),
      active: row.active,
      decision,
      passwordHash: row.hash ?? undefined,
      passwordChangedAt: row.password_changed_at ?? undefined,
      passwordMustChange: row.must_change ?? false,
      totpIds: row.totp_ids,
      factorResetUntil: row.factor_reset_until ?? undefined,
      failingKinds: row.failing_kinds,
      disabledKinds: row.disabled_kinds,
    }
  }
  return {
    findActive: (id, organizationId) => findActiveCoalesced({ id, organizationId }),
    findPerson,
    // PostgreSQL takes no NUL in a text, and no address has one (D9).
    findForSignIn: async (email, place = {}) =>
      email.includes('\0') ? undefined : findOne(database.kysely, 'a.email_normalized', email, place),
    findForSignInById: (id, tx, place = {}) => findOne(tx ?? database.kysely, 'a.id', id, place),
  }
}

/** The person in the organisation that was decided, in an app of `place.client`. */
export function accountIn(person: Person, membership: Membership, place: Place): Account {
  const { memberships, ...identity } = person
  void memberships
  const { organization, roles } = membership
  return { ...identity, organization, roles, policy: policyIn(membership, place.client) }
}

function keyOf(id: unknown, organizationId: unknown): string {
  return `${String(id)} ${organizationId === null || organizationId === undefined ? '' : String(organizationId)}`
}

function toIdentity(row: Row): Omit<Account, 'organization' | 'roles' | 'policy'> {
  return {
    id: String(row['id']),
    email: String(row['email']),
    emailVerified: row['email_verified_at'] !== null,
    name: String(row['name']),
    updatedAt: row['updated_at'] as Date,
  }
}

function toMembership(row: Row, policies: Policies): Membership {
  return {
    organization: {
      id: String(row['organization_id']),
      slug: String(row['slug']),
      name: String(row['organization_name']),
    },
    home: row['home'] === true,
    roles: row['roles'] as string[],
    policy: policies(row['policy'] as PolicyInput),
  }
}

/** The person of a row of `personColumns`, in the organisation of that row. */
export function toAccount(row: Row, policies: Policies): Account {
  const { organization, roles, policy } = toMembership(row, policies)
  return { ...toIdentity(row), organization, roles, policy }
}

function toRow(row: unknown): Row {
  return row as Row
}
