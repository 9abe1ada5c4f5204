// The secret of a client that has one, kept as a keyed digest; two while one is rotated out, and never a third. A new one is
// made in one way for administrators and for apps that keep their own registration, with its audit row.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, Origin } from '../audit/events.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Tx } from '../db/database.ts'
import { newClientSecret } from './registrable.ts'
import { setClientSecret } from './store.ts'

/** What a form offers first, and what an app gets that chooses nothing: a day to put the new secret in its place. */
export const usualOverlapSeconds = 86_400
/** How long two secrets of a client may work at once. */
export const maxOverlapSeconds = 604_800

export interface SecretReplacing {
  readonly clientId: string
  readonly organizationId: string
  readonly overlapSeconds: number
  readonly actor: Actor
  readonly origin: Origin
}

export interface ReplacedSecret {
  /** Shown this once, and nowhere kept. */
  readonly secret: string
  /** Until when the former one works; null when there was none, or it is dead. */
  readonly formerUntil: Date | null
}

/** Undefined when the client proves itself in another way. */
export async function replaceClientSecret(
  tx: Tx,
  secrets: Secrets,
  { clientId, organizationId, overlapSeconds, actor, origin }: SecretReplacing,
): Promise<ReplacedSecret | undefined> {
  const secret = newClientSecret()
  const replacing = { digest: secrets.digestClientSecret(secret), overlapSeconds }
  const replaced = await setClientSecret(tx, organizationId, clientId, replacing)
  if (!replaced) return undefined
  const about = { outcome: 'success' as const, actor, organizationId, clientId, origin }
  await appendAudit(tx, { ...about, name: 'client.secret_replaced', details: {} })
  return { secret, ...replaced }
}

export interface SecretDigests {
  readonly current: string | undefined
  readonly previous: string | undefined
}

/** Whether a secret is the one of now or the one that is running out. */
export function matchesClientSecret(secrets: Secrets, secret: string, { current, previous }: SecretDigests): boolean {
  // Both are compared, so that the time does not tell which of them it was.
  const isCurrent = secrets.matchesClientSecret(secret, current ?? '')
  const isPrevious = secrets.matchesClientSecret(secret, previous ?? '')
  return isCurrent || isPrevious
}
