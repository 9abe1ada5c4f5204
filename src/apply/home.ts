// Where somebody is at home, as a file says it: the place that they get there, and the one that they leave.
import { appendAudit } from '../audit/audit.ts'
import { isSameJson } from '../clients/same-json.ts'
import type { Tx } from '../db/database.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { endMembershipAccess } from '../sessions/parting.ts'

interface Home {
  readonly accountId: string
  readonly organizationId: string
  readonly roles: readonly string[]
}

const operator = { actor: { type: 'operator' as const }, origin: {} }
const success = { ...operator, outcome: 'success' as const }

/** Makes the organisation somebody's home, with these roles. A home elsewhere they leave, as a guest does who is let go. */
export async function setHome(tx: Tx, { accountId, organizationId, roles: given }: Home): Promise<void> {
  await leaveOther(tx, accountId, organizationId)
  const before = await tx
    .selectFrom('memberships')
    .select('roles')
    .where('account_id', '=', accountId)
    .where('organization_id', '=', organizationId)
    .forUpdate()
    .executeTakeFirst()
  const roles = [...given]
  await tx
    .insertInto('memberships')
    .values({ account_id: accountId, organization_id: organizationId, home: true, roles })
    .onConflict((conflict) =>
      conflict
        .columns(['account_id', 'organization_id'])
        .doUpdateSet((eb) => ({ home: true, roles, updated_at: eb.fn<Date>('now') })),
    )
    .execute()
  const about = { ...success, accountId, organizationId }
  if (!before) {
    await appendAudit(tx, { ...about, name: 'membership.created', details: { roles } })
    await enqueueWebhooks(tx, organizationId, { type: 'membership.created', data: { accountId, roles } })
  } else if (!isSameJson(before.roles, roles)) {
    const details = { roles, rolesBefore: before.roles }
    await appendAudit(tx, { ...about, name: 'membership.updated', details })
    await enqueueWebhooks(tx, organizationId, { type: 'membership.updated', data: { accountId, ...details } })
  }
}

async function leaveOther(tx: Tx, accountId: string, organizationId: string): Promise<void> {
  const left = await tx
    .deleteFrom('memberships')
    .where('account_id', '=', accountId)
    .where('home', '=', true)
    .where('organization_id', '<>', organizationId)
    .returning(['organization_id', 'roles'])
    .executeTakeFirst()
  if (!left) return
  const about = { accountId, organizationId: left.organization_id }
  await appendAudit(tx, { ...about, ...success, name: 'membership.ended', details: { roles: left.roles } })
  await endMembershipAccess(tx, { ...about, ...operator })
}
