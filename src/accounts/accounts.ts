// Accounts: who a person is, where they belong and whether they may act. Credentials are elsewhere.
import { sql } from 'kysely'
import { coalesce } from '../db/coalesce.ts'
import type { Database, Db, Row, Tx } from '../db/database.ts'
import type { Policies } from '../organizations/organizations.ts'
import type { Policy, PolicyInput } from '../organizations/policy.ts'

/** A person who may act now: the account is not disabled, the organisation not closed. */
export interface Account {
  readonly id: string
  readonly email: string
  readonly emailVerified: boolean
  readonly name: string
  readonly updatedAt: Date
  readonly organization: { readonly id: string; readonly slug: string; readonly name: string }
  readonly roles: readonly string[]
  /** Effective policy of the home organisation. */
  readonly policy: Policy
}

/** An account as sign-in sees it: with what it has to prove, and whether it may act. */
export interface SignInAccount extends Account {
  readonly active: boolean
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

const findActive = `select a.id, a.email, a.email_verified_at, a.name, a.updated_at, o.id as organization_id, o.slug, o.name as organization_name,
      o.policy, m.roles
    from mlpipes_auth.accounts a
    join mlpipes_auth.organizations o on o.id = a.organization_id and o.closed_at is null
    join mlpipes_auth.memberships m on m.account_id = a.id and m.organization_id = a.organization_id
    where a.disabled_at is null and a.id = any($1::text[])`

/** The kinds of authenticator of an account that are in this state. */
const failures = (condition: 'consecutive > 0' | 'disabled_at is not null') =>
  sql<
    string[]
  >`array(select f.kind from authenticator_failures f where f.account_id = a.id and ${sql.raw(`f.${condition}`)})`

export interface Accounts {
  /** The account if it may act now. Concurrent calls share a statement. */
  findActive(id: string): Promise<Account | undefined>
  /** The account behind an e-mail address, whether or not it may act. */
  findForSignIn(emailNormalized: string): Promise<SignInAccount | undefined>
  /** @param tx to see what that transaction did */
  findForSignInById(id: string, tx?: Tx): Promise<SignInAccount | undefined>
}

export function createAccounts(database: Database, policies: Policies): Accounts {
  const findActiveCoalesced = coalesce<string, Account | undefined>(database, {
    statement: findActive,
    values: (ids) => [[...new Set(ids)]],
    results(rows, ids) {
      const byId = new Map(rows.map((row) => [String(row['id']), toAccount(row, policies)]))
      return ids.map((id) => byId.get(id))
    },
  })
  const findOne = async (
    db: Db,
    column: 'a.id' | 'a.email_normalized',
    value: string,
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
    return {
      ...toAccount(row, policies),
      active: row.active,
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
    findActive: findActiveCoalesced,
    // PostgreSQL takes no NUL in a text, and no address has one (D9).
    findForSignIn: async (email) =>
      email.includes('\0') ? undefined : findOne(database.kysely, 'a.email_normalized', email),
    findForSignInById: (id, tx) => findOne(tx ?? database.kysely, 'a.id', id),
  }
}

function toAccount(row: Row, policies: (input: PolicyInput) => Policy): Account {
  return {
    id: String(row['id']),
    email: String(row['email']),
    emailVerified: row['email_verified_at'] !== null,
    name: String(row['name']),
    updatedAt: row['updated_at'] as Date,
    organization: {
      id: String(row['organization_id']),
      slug: String(row['slug']),
      name: String(row['organization_name']),
    },
    roles: row['roles'] as string[],
    policy: policies(row['policy'] as PolicyInput),
  }
}
