// What administrators may not do, however much they are permitted: give what they do not hold, act on somebody who holds
// more, and leave an organisation without one. Asked in the transaction of the change, under its locks.
import { ApiProblem } from '../api/problems.ts'
import { type Row, runIn, type Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import { type Permission, permissionsOf } from '../organizations/permissions.ts'
import { assertSteppedUp, requireAll } from './access.ts'
import type { Caller } from './caller.ts'

export const maxRolesHeld = 32

/** The key of the lock under which it is changed who holds what in the organisation `$1`. */
export const administrationKey = `hashtextextended('mlpipes_auth.administrators:' || $1, 0)`

const ownRoles = `select name, permissions from mlpipes_auth.organization_roles
    where organization_id = $1 and name = any($2::text[])`
const allHeld = `select m.roles, coalesce((select jsonb_object_agg(r.name, to_jsonb(r.permissions))
        from mlpipes_auth.organization_roles r where r.organization_id = m.organization_id and r.name = any(m.roles)), '{}') as own
    from mlpipes_auth.memberships m where m.account_id = $1`

/** What these roles permit in an organisation. */
export async function permittedBy(
  tx: Tx,
  organizationId: string,
  roles: readonly string[],
): Promise<ReadonlySet<Permission>> {
  const rows = await runIn(tx, ownRoles, [organizationId, [...roles]])
  return permissionsOf(roles, Object.fromEntries(rows.map((row) => [String(row['name']), textsOf(row['permissions'])])))
}

/** What somebody has to hold to give these roles: nothing where they permit nothing. No one grants what they do not hold. */
export async function neededToGive(
  tx: Tx,
  organizationId: string,
  roles: readonly string[],
): Promise<ReadonlySet<Permission>> {
  const permitted = await permittedBy(tx, organizationId, roles)
  return permitted.size === 0 ? permitted : new Set<Permission>(['membership:write', ...permitted])
}

/**
 * Whether the caller may give these roles, to somebody new or in place of others.
 * @throws ApiProblem that names what the caller lacks: the permission to give any, or one that a role holds
 */
export async function assertMayGive(
  tx: Tx,
  organizationId: string,
  caller: Caller,
  roles: readonly string[],
  now: Date,
): Promise<void> {
  const needed = await neededToGive(tx, organizationId, roles)
  if (needed.size === 0) return
  requireAll(caller, needed)
  assertSteppedUp({ stepUp: true }, caller, now)
}

/**
 * Whether the caller may act on somebody's access. What they hold counts wherever they hold it: who could take over an
 * account in one organisation would have it in the others.
 * @throws ApiProblem that names what the account holds and the caller does not
 */
export async function assertMayActOn(tx: Tx, organizationId: string, caller: Caller, accountId: string): Promise<void> {
  const rows = await beyond(tx, organizationId, () => runIn(tx, allHeld, [accountId]))
  for (const row of rows) requireAll(caller, heldIn(row))
}

function heldIn(row: Row): ReadonlySet<Permission> {
  const own = Object.entries(Object(row['own'])).map(([name, permissions]) => [name, textsOf(permissions)] as const)
  return permissionsOf(textsOf(row['roles']), Object.fromEntries(own))
}

const administrators = ['org_admin', 'platform_admin'] as const

const platformLock = `select pg_advisory_xact_lock(hashtextextended('mlpipes_auth.administrators', 0))`
// A guest whose home is closed acts nowhere, and administers nothing.
const othersHere = `select m.account_id from mlpipes_auth.memberships m
    join mlpipes_auth.accounts a on a.id = m.account_id and a.disabled_at is null
    join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
    where m.organization_id = $1 and m.account_id <> $2 and 'org_admin' = any(m.roles) limit 1`
const othersAnywhere = `select m.account_id from mlpipes_auth.memberships m
    join mlpipes_auth.accounts a on a.id = m.account_id and a.disabled_at is null
    join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
    join mlpipes_auth.organizations o on o.id = m.organization_id and o.closed_at is null
    where m.account_id is distinct from $1 and 'platform_admin' = any(m.roles) limit 1`
const runsPlatform = `select 1 from mlpipes_auth.memberships where account_id = $1 and 'platform_admin' = any(roles) limit 1`
const holdAdministration = `select pg_advisory_xact_lock(${administrationKey})`
// Other organisations that somebody at home in $1 administers as a guest, always in one order: two that are closed at once
// do not wait for each other.
const served = `select distinct m.organization_id as id from mlpipes_auth.memberships m
    join mlpipes_auth.accounts a on a.id = m.account_id and a.disabled_at is null
    where a.organization_id = $1 and not m.home and 'org_admin' = any(m.roles) order by id`
const orphaned = `select o.slug from (${served}) as served
    join mlpipes_auth.organizations o on o.id = served.id and o.closed_at is null
    where not exists (select from mlpipes_auth.memberships m
      join mlpipes_auth.accounts a on a.id = m.account_id and a.disabled_at is null
      join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
      where m.organization_id = o.id and 'org_admin' = any(m.roles))
    order by o.slug limit 10`

/**
 * Whether somebody else administers, when an account loses these roles. The operation is `exclusive`, so nobody else is
 * losing theirs in this organisation meanwhile; for the platform a lock of its own is taken here.
 * @throws ApiProblem `last_administrator`
 */
export async function assertStillAdministered(
  tx: Tx,
  organizationId: string,
  accountId: string,
  lost: readonly string[],
): Promise<void> {
  const [ofOrganization, ofPlatform] = administrators.map((role) => lost.includes(role))
  const others = await beyond(tx, organizationId, async () => {
    if (ofPlatform) await runIn(tx, platformLock, [])
    return {
      here: ofOrganization ? await runIn(tx, othersHere, [organizationId, accountId]) : undefined,
      anywhere: ofPlatform ? await runIn(tx, othersAnywhere, [accountId]) : undefined,
    }
  })
  if (others.here?.length === 0 || others.anywhere?.length === 0) throw new ApiProblem('last_administrator')
}

/**
 * Whether an account may be switched off by its home: not when nobody would administer that, or run the platform. Other
 * organisations are not asked: a hospital must be able to cut off its own employee, whoever else relies on them.
 * @throws ApiProblem `last_administrator`
 */
export async function assertDispensable(
  tx: Tx,
  organizationId: string,
  { id, roles }: { readonly id: string; readonly roles: readonly string[] },
): Promise<void> {
  const ofPlatform = await beyond(tx, organizationId, () => runIn(tx, runsPlatform, [id]))
  await assertStillAdministered(tx, organizationId, id, ofPlatform.length > 0 ? [...roles, 'platform_admin'] : roles)
}

/**
 * Whether the platform, and every organisation that is still open, has somebody to administer it now that this one is
 * closed: its people act as guests no longer. In a transaction that sees every organisation. Nobody takes an administrator
 * away meanwhile: what `exclusive` holds for one organisation is held here for each that is served from this one.
 * @throws ApiProblem `last_administrator` that says what would be left without
 */
export async function assertOthersAdministered(tx: Tx, closedId: string): Promise<void> {
  for (const { id } of await runIn(tx, served, [closedId])) await runIn(tx, holdAdministration, [String(id)])
  await runIn(tx, platformLock, [])
  const refuse = (message: string) => new ApiProblem('last_administrator', [{ path: '', message }])
  if ((await runIn(tx, othersAnywhere, [null])).length === 0) throw refuse('nobody would be left to run the platform')
  const slugs = (await runIn(tx, orphaned, [closedId])).map(({ slug }) => String(slug))
  if (slugs.length > 0) throw refuse(`without an org_admin would be left: ${slugs.join(', ')}`)
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : []
}
