// The invitations of an organisation that are open: how many there may be, and that there is one for an address.
import { z } from 'zod'
import { normalizeEmail } from '../accounts/accounts.ts'
import type { ListedLink, MailLinks } from '../credentials/mail-links.ts'
import { runIn, type Tx } from '../db/database.ts'

/** Of one organisation, at a time. */
export const maxOpenInvitations = 1_000

// Invitations to one organisation wait for each other, or two at once would both be the last one, or both stay open.
const holdOrganization = 'select id from mlpipes_auth.organizations where id = $1 for no key update'
const payloadSchema = z.object({ email: z.string() })

/**
 * Ends what is open for an address here, because a newer invitation takes its place. Held until the transaction ends.
 * @returns how many it ended, each of which is the caller's to record, and how many others are open
 */
export async function endOlder(
  tx: Tx,
  links: Pick<MailLinks, 'list' | 'withdraw'>,
  organizationId: string,
  email: string,
): Promise<{ readonly ended: number; readonly left: number }> {
  await runIn(tx, holdOrganization, [organizationId])
  // Addresses are sealed, so each is opened: no more than there may be, and one that shows that there are more.
  const open = await links.list(tx, 'invite', organizationId, undefined, maxOpenInvitations + 1)
  const older = open.filter((link) => isFor(link, email))
  let ended = 0
  // One that was accepted a moment ago has ended by itself.
  for (const { idHash } of older) if (await links.withdraw(tx, 'invite', organizationId, idHash)) ended += 1
  return { ended, left: open.length - older.length }
}

function isFor({ payload }: ListedLink, email: string): boolean {
  const read = payloadSchema.safeParse(payload)
  return read.success && normalizeEmail(read.data.email) === normalizeEmail(email)
}
