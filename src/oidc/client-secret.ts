// A client's secret is stored as a keyed digest, and while it is rotated there are two.
import type { Secrets } from '../crypto/secrets.ts'

export interface StoredClientSecrets {
  readonly current: string | undefined
  readonly previous: string | undefined
}

/** Both are compared, so that the time does not tell which of them it was. */
export function matchesClientSecret(secrets: Secrets, actual: string, stored: StoredClientSecrets): boolean {
  const isCurrent = secrets.matchesClientSecret(actual, stored.current ?? '')
  const isPrevious = secrets.matchesClientSecret(actual, stored.previous ?? '')
  return isCurrent || isPrevious
}
