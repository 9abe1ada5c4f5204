// Access tokens that their resource server reads itself (RFC 9068). The provider stores nothing of them, so what the adapter
// does for other tokens is done here: the audit row, in the transaction of the request, before the token is signed.
import type { AdapterPayload, KoaContextWithOIDC } from 'oidc-provider'
import { appendAudit } from '../audit/audit.ts'
import { sha256 } from '../crypto/secrets.ts'
import type { Db } from '../db/database.ts'
import { inRequestTransaction } from '../db/transaction.ts'
import { tokenEvent } from './token-events.ts'

interface SignedToken extends Pick<AdapterPayload, 'accountId' | 'clientId' | 'scope' | 'sessionUid' | 'sid'> {
  readonly kind: string
  readonly jti: string
}

/** The provider's customizer of such tokens. The log knows one by the hash of its `jti`. */
export function createJwtTokens({ db }: { readonly db: Db }) {
  return async (
    _context: KoaContextWithOIDC,
    token: SignedToken,
    { payload }: { readonly payload: Record<string, unknown> },
  ): Promise<void> => {
    if (token.sid !== undefined) payload['sid'] = token.sid
    const event = tokenEvent(token.kind, sha256(token.jti), token)
    await inRequestTransaction(db, (tx) => appendAudit(tx, event))
  }
}
