// Who invited, and whether they may still give what they offered. An invitation waits for days; whoever was demoted or
// switched off meanwhile gives nothing by it.
import { z } from 'zod'
import { holdPermissions } from '../admin/caller.ts'
import { administrationKey, neededToGive } from '../admin/rules.ts'
import { runIn, type Tx } from '../db/database.ts'
import { mayGrant, type Permission } from '../organizations/permissions.ts'

/** Kept with the invitation. The organisation is where they act, which for somebody of the platform is another one. */
export const inviterSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('operator') }),
  z.strictObject({ type: z.enum(['account', 'client']), id: z.string(), organizationId: z.string() }),
])
export type InvitedBy = z.output<typeof inviterSchema>

/** What is asked of whoever invites, beside what they give (admin/invitations.ts, admin/call.ts). */
const toInvite: Permission = 'user:create'
const toActElsewhere: Permission = 'platform:organizations'

const holdRoles = `select pg_advisory_xact_lock_shared(${administrationKey})`

/**
 * Why an invitation does not count any more; undefined for one that does. Held until the transaction ends: what takes
 * the inviter's roles away, or gives the offered ones more, comes before or after all of it.
 */
export async function whyNotGiven(
  tx: Tx,
  by: InvitedBy,
  offer: { readonly organizationId: string; readonly roles: readonly string[] },
): Promise<'inviter_gone' | 'inviter_lacks' | undefined> {
  // Who has the command line has the database.
  if (by.type === 'operator') return undefined
  const { organizationId, roles } = offer
  const isElsewhere = by.organizationId !== organizationId
  for (const id of isElsewhere ? [by.organizationId, organizationId].sort() : [organizationId])
    await runIn(tx, holdRoles, [id])
  const held = await holdPermissions(tx, by)
  if (!held) return 'inviter_gone'
  const given = await neededToGive(tx, organizationId, roles)
  const needed = new Set([toInvite, ...given, ...(isElsewhere ? [toActElsewhere] : [])])
  return mayGrant(held, needed) ? undefined : 'inviter_lacks'
}
