// Accounts: who a person is, where they belong and whether they may act. Credentials are elsewhere.
import { sql } from 'kysely'
import { coalesce } from '../db/coalesce.ts'
import type { Database, Row } from '../db/database.ts'
import { effectivePolicy, type Platform, type Policy, type PolicyInput } from '../organizations/policy.ts'

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
  readonly totpIds: readonly string[]
}

/** NFKC, trimmed, lower case: one account and one counter whatever the spelling (F37). */
export function normalizeEmail(email: string): string {
  return email.normalize('NFKC').trim().toLowerCase()
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

export interface Accounts {
  /** The account if it may act now. Concurrent calls share a statement. */
  findActive(id: string): Promise<Account | undefined>
  /** The account behind an e-mail address, whether or not it may act. */
  findForSignIn(emailNormalized: string): Promise<SignInAccount | undefined>
  findForSignInById(id: string): Promise<SignInAccount | undefined>
}

export function createAccounts(database: Database, platform: Platform): Accounts {
  const policies = createPolicyCache(platform)
  const findActiveCoalesced = coalesce<string, Account | undefined>(database, {
    statement: findActive,
    values: (ids) => [[...new Set(ids)]],
    results(rows, ids) {
      const byId = new Map(rows.map((row) => [String(row['id']), toAccount(row, policies)]))
      return ids.map((id) => byId.get(id))
    },
  })
  const findOne = async (column: 'a.id' | 'a.email_normalized', value: string): Promise<SignInAccount | undefined> => {
    const row = await database.kysely
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
        'o.id as organization_id',
        'o.slug',
        'o.name as organization_name',
        'o.policy',
        'm.roles',
        'p.hash',
      ])
      .select(sql<boolean>`a.disabled_at is null and o.closed_at is null`.as('active'))
      .select(
        sql<
          string[]
        >`array(select t.id from totp_credentials t where t.account_id = a.id and t.confirmed_at is not null)`.as(
          'totp_ids',
        ),
      )
      .executeTakeFirst()
    if (!row) return undefined
    return {
      ...toAccount(row, policies),
      active: row.active,
      passwordHash: row.hash ?? undefined,
      totpIds: row.totp_ids,
    }
  }
  return {
    findActive: findActiveCoalesced,
    findForSignIn: (email) => findOne('a.email_normalized', email),
    findForSignInById: (id) => findOne('a.id', id),
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

/** Policies are few and asked for at every request; what was written is the key. */
function createPolicyCache(platform: Platform) {
  const cache = new Map<string, Policy>()
  return (input: PolicyInput): Policy => {
    const key = JSON.stringify(input)
    const known = cache.get(key)
    if (known) return known
    if (cache.size >= 1_000) cache.clear()
    const policy = effectivePolicy(input, platform)
    cache.set(key, policy)
    return policy
  }
}
