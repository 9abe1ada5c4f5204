// The provider's Session is our session row: written with its audit row, its limits and its organisations (sessions/).
import type { Adapter, KoaContextWithOIDC } from 'oidc-provider'
import type { Account, Accounts } from '../accounts/accounts.ts'
import { policyIn } from '../accounts/place.ts'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent } from '../audit/events.ts'
import { sha256 } from '../crypto/secrets.ts'
import { inRequestTransaction, withOpenTransaction } from '../db/transaction.ts'
import { originOf } from '../http/origin.ts'
import { enterWithin } from '../sessions/concurrency.ts'
import { activityStepSeconds, anonymousLimits, sessionLimits } from '../sessions/policy.ts'
import type { AdapterParts } from './adapter.ts'
import { accountOf } from './claims.ts'
import { type DirectContext, directContext } from './direct-session.ts'
import {
  browserSessionOf,
  introspectedOf,
  keepBrowserSession,
  keepEndOfSession,
  keepSessionOfToken,
} from './request-session.ts'
import { stripped } from './store.ts'
import { currentContext } from './token-events.ts'

export function sessionAdapter({ db, sessions, accounts }: AdapterParts): Adapter {
  return {
    async upsert(id, payload) {
      const accountId = payload.accountId
      const context = currentContext()
      const direct = directContext()
      const loaded = accountOf(context)
      // What this request read of the account a moment ago decides; asking again would only cost.
      const account =
        accountId === undefined
          ? undefined
          : loaded?.id === accountId
            ? loaded
            : await accountOfDirect(accounts, accountId, direct)
      const origin = context ? originOf(context.req) : (direct?.origin ?? {})
      const limits = account ? sessionLimits(account.policy) : anonymousLimits
      const uid = String(payload.uid)
      const stored = context && browserSessionOf(context.req)
      const isSignIn = direct !== undefined || context?.oidc.result?.login !== undefined
      const row = {
        uid,
        idHash: sha256(id),
        payload: stripped(payload),
        accountId: account?.id,
        organizationId: account?.organization.id,
        usedFor: usedFor(account, context, direct),
        ip: origin.ip,
        userAgent: origin.userAgent,
        signedIn: payload.loginTs !== undefined,
        limits,
        activityStepSeconds: account?.policy.session.extendOnActivity
          ? activityStepSeconds(account.policy, stored)
          : undefined,
        isUse: isSignIn || isGranted(context),
      }
      const created: AuditEvent = {
        name: 'session.created',
        outcome: 'success',
        actor: account ? { type: 'account', id: account.id } : { type: 'anonymous' },
        accountId: account?.id,
        organizationId: account?.organization.id,
        sessionUid: uid,
        clientId: context ? context.oidc.client?.clientId : direct?.clientId,
        origin,
        details: { idleSeconds: limits.idleSeconds, absoluteSeconds: limits.absoluteSeconds },
      }
      const maxConcurrent = account?.policy.session.maxConcurrent ?? null
      if (!account || maxConcurrent === null || !row.isUse)
        return withOpenTransaction((tx) => sessions.save(tx, row, account && created))
      const entering = { accountId: account.id, organizationId: account.organization.id, maxConcurrent, uid, origin }
      return inRequestTransaction(db, (tx) => enterWithin(tx, entering, () => sessions.save(tx, row, created)))
    },
    async find(id) {
      const stored = await sessions.findById(sha256(id))
      const context = currentContext()
      if (stored && context) keepBrowserSession(context.req, stored)
      // The page that asks this browser to sign in again says why.
      if (!stored && context?.oidc.route === 'authorization')
        keepEndOfSession(context.req, await sessions.endOf(sha256(id)))
      return stored && { ...stored.payload, jti: id }
    },
    async findByUid(uid) {
      const context = currentContext()
      const known = context && (await introspectedOf(context.req))?.session
      const stored = known?.uid === uid ? known : await sessions.findByUid(uid)
      if (stored && context) keepSessionOfToken(context.req, stored)
      return stored && { ...stored.payload }
    },
    async destroy(id) {
      const context = currentContext()
      // A session that only changes its id is written again under the same uid a moment later.
      if (context?.oidc.session && 'oldId' in context.oidc.session && context.oidc.session.oldId === id) return
      await inRequestTransaction(db, async (tx) => {
        const ended = await sessions.end(tx, sha256(id), 'sign_out')
        if (!ended?.accountId) return
        const about = {
          outcome: 'success' as const,
          actor: { type: 'account' as const, id: ended.accountId },
          accountId: ended.accountId,
          organizationId: ended.organizationId,
          sessionUid: ended.uid,
          clientId: context?.oidc.entities.Client?.clientId,
          origin: context ? originOf(context.req) : {},
          details: { reason: 'sign_out' },
        }
        const ending = { ...about, organizationId: ended.begunFor, name: 'session.ended' as const }
        await appendAudit(tx, ending, { ...about, name: 'logout.succeeded' })
      })
    },
    consume: () => Promise.reject(new TypeError('a session cannot be consumed')),
    revokeByGrantId: () => Promise.resolve(),
    findByUserCode: () => Promise.resolve(undefined),
  }
}

/** Who signed in past the provider's endpoints, under the policy of the app's organisation too. */
async function accountOfDirect(accounts: Accounts, id: string, direct: DirectContext | undefined) {
  const account = await accounts.findActive(id, direct?.organizationId)
  return account && { ...account, policy: policyIn(account, direct?.place) }
}

/** Whether an app is let in by this request: it gets a code, or the device does whose code was confirmed. */
function isGranted(context: KoaContextWithOIDC | undefined): boolean {
  const { AuthorizationCode, DeviceCode } = context?.oidc.entities ?? {}
  return AuthorizationCode !== undefined || DeviceCode?.accountId !== undefined
}

/** The organisations that a request with a session is about: their limits hold it from now on. */
function usedFor(
  account: Account | undefined,
  context: KoaContextWithOIDC | undefined,
  direct: DirectContext | undefined,
): string[] {
  if (!account) return []
  const ofClient = direct ? direct.place?.organizationId : context?.oidc.client?.['organization_id']
  return [account.organization.id, ...(typeof ofClient === 'string' ? [ofClient] : [])]
}
