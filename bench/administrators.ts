// Administrators at the admin API, with tokens that they got as everybody does: password, authenticator, code.
import type pg from 'pg'
import type { Server } from './installation.ts'
import type { Reply } from './load.ts'
import { call, expectOk, redeem, signInWithTotp } from './visit.ts'

/** A step-up counts for five minutes. */
const freshMs = 200_000

const forget = `update mlpipes_auth.totp_credentials set last_step = 0
    where account_id = (select id from mlpipes_auth.accounts where email_normalized = $1)`

export interface Administrators {
  /** A token whose step-up still counts. */
  tokenOf(email: string): Promise<string>
  /** Changes the policy as it stands now. */
  patchPolicy(token: string, patch: object, organizationId?: string): Promise<Reply>
  putPolicy(token: string, policy: object, organizationId?: string): Promise<Reply>
}

export function createAdministrators(server: Server, owner: pg.Pool): Administrators {
  const held = new Map<string, { readonly token: Promise<string>; readonly until: number }>()
  const change = async (method: string, token: string, body: object, organizationId?: string) => {
    const path = `/api/admin/policy${organizationId === undefined ? '' : `?organization=${organizationId}`}`
    const etag = expectOk(await call(server, token, path)).header('etag') ?? ''
    return expectOk(await call(server, token, path, { method, body, headers: { 'if-match': etag } }))
  }
  const signIn = async (email: string) => {
    // Each code counts once, and nobody here waits for the next one.
    await owner.query(forget, [email])
    const asking = { clientId: 'console', scope: 'openid admin:read admin:write' }
    const { access_token: token } = await redeem(server, await signInWithTotp(server, email, asking), 'console')
    return token
  }
  return {
    tokenOf(email) {
      const known = held.get(email)
      if (known && known.until > performance.now()) return known.token
      const token = signIn(email)
      held.set(email, { token, until: performance.now() + freshMs })
      return token
    },
    patchPolicy: (token, patch, organizationId) => change('PATCH', token, patch, organizationId),
    putPolicy: (token, policy, organizationId) => change('PUT', token, policy, organizationId),
  }
}
