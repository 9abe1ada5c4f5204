// The provider's storage: one adapter per model name over payloads, sessions and clients, writing the audit row of
// what it stores in the same statement or transaction.
import { type Adapter, type AdapterPayload, errors, type KoaContextWithOIDC, Provider } from 'oidc-provider'
import type { Account, Accounts } from '../accounts/accounts.ts'
import { policyIn } from '../accounts/place.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Actor, AuditEvent } from '../audit/events.ts'
import { type Clients, isClientId } from '../clients/clients.ts'
import { sha256 } from '../crypto/secrets.ts'
import type { Db } from '../db/database.ts'
import { hasScope, inRequestTransaction, withOpenTransaction } from '../db/transaction.ts'
import { originOf } from '../http/origin.ts'
import { enterWithin } from '../sessions/concurrency.ts'
import { anonymousLimits, sessionLimits } from '../sessions/policy.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { accountOf } from './claims.ts'
import { type DirectContext, directContext } from './direct-session.ts'
import type { FindIntrospected } from './introspected.ts'
import {
  endOfSession,
  introspectedOf,
  keepBrowserSession,
  keepEndOfSession,
  keepIntrospected,
  keepSessionOfToken,
} from './request-session.ts'
import type { PayloadStore, StoredPayload } from './store.ts'

export interface AdapterParts {
  readonly db: Db
  readonly payloads: PayloadStore
  readonly sessions: Sessions
  readonly clients: Clients
  readonly accounts: Accounts
  readonly introspected: FindIntrospected
}

/** A refresh token that loses against its own copy within this time is refused without ending the family. */
const reuseGraceSeconds = 10
const replayMemorySeconds = 600
const spentOnce = new Set(['AuthorizationCode', 'RefreshToken'])
// What says in which organisation its person acts (internals.ts makes the first two tell).
const personalModels = new Set(['AuthorizationCode', 'RefreshToken', 'AccessToken'])
const tokenModels = new Set(['AccessToken', 'RefreshToken', 'ClientCredentials'])

/** The adapter factory for the provider's configuration. Models that this server does not offer are refused. */
export function createAdapterFactory(parts: AdapterParts): (model: string) => Adapter {
  return (model) => {
    if (model === 'Session') return sessionAdapter(parts)
    if (model === 'Client') return clientAdapter(parts)
    return payloadAdapter(parts, model)
  }
}

function payloadAdapter(parts: AdapterParts, model: string): Adapter {
  const { db, payloads } = parts
  return {
    async upsert(id, payload, expiresIn) {
      if (model === 'ReplayDetection') {
        const fresh = await payloads.insertOnce(model, sha256(id), stripped(payload), expiresIn ?? replayMemorySeconds)
        if (!fresh) throw new errors.InvalidGrant('already used')
        return
      }
      const idHash = sha256(id)
      const organizationId = personalModels.has(model) ? accountOf(currentContext())?.organization.id : undefined
      const row = {
        model,
        idHash,
        payload: { ...stripped(payload), ...(organizationId === undefined ? {} : { organizationId }), ...endOf(model) },
        grantId: payload.grantId,
        accountId: payload.accountId ?? payload.result?.login?.accountId,
        clientId: payload.clientId,
        organizationId,
        expiresInSeconds: expiresIn,
      }
      const events = tokenModels.has(model) ? [tokenEvent(model, idHash, payload)] : []
      await withOpenTransaction((tx) => payloads.save(tx, row, events))
    },
    async find(id) {
      const idHash = sha256(id)
      if (isIntrospection()) return findIntrospected(parts, model, id, idHash)
      if (spentOnce.has(model) && isTokenRequest()) return findToSpend(parts, model, id, idHash)
      if (model === 'Grant' && isTokenRequest() && hasScope()) {
        return present(await inRequestTransaction(db, (tx) => payloads.findLocked(tx, 'share', model, idHash)), id)
      }
      return present(await payloads.find(model, idHash), id)
    },
    async consume(id) {
      const won = await inRequestTransaction(db, (tx) => payloads.consume(tx, model, sha256(id)))
      if (!won)
        throw model === 'PushedAuthorizationRequest'
          ? new errors.InvalidRequestUri('request_uri was already used')
          : new errors.InvalidGrant('already used')
    },
    async destroy(id) {
      const idHash = sha256(id)
      if (!tokenModels.has(model)) {
        const existed = await withOpenTransaction((tx) => payloads.destroy(tx ?? db, model, idHash))
        // A sign-in is resumed once, and not at all when access was ended since it was read.
        if (model === 'Interaction' && !existed) throw new errors.SessionNotFound('the sign-in is over')
        return
      }
      await inRequestTransaction(db, async (tx) => {
        if (await payloads.destroy(tx, model, idHash)) await appendAudit(tx, revokedEvent(model, idHash))
      })
    },
    async revokeByGrantId(grantId) {
      await inRequestTransaction(db, async (tx) => {
        const count = await payloads.revokeByGrantId(tx, model, grantId)
        if (count > 0 && tokenModels.has(model)) await appendAudit(tx, revokedEvent(model, undefined))
      })
    },
    findByUid: () => Promise.resolve(undefined),
    findByUserCode: () => Promise.resolve(undefined),
  }
}

/**
 * What introspection asks for. The provider looks for the token in three models at once, and then for its grant: all of it
 * was read together.
 */
async function findIntrospected({ payloads, introspected }: AdapterParts, model: string, id: string, idHash: string) {
  const context = currentContext()
  if (!context) return present(await payloads.find(model, idHash), id)
  if (model === 'Grant') {
    const known = await introspectedOf(context.req)
    return present(known?.token.payload['grantId'] === id ? known.grant : await payloads.find(model, idHash), id)
  }
  if (!tokenModels.has(model)) return present(await payloads.find(model, idHash), id)
  const found = await keepIntrospected(context.req, idHash, introspected)
  return present(found?.model === model ? found.token : undefined, id)
}

/** Reads a code or refresh token that the request is about to spend: locked, so that a second request waits (D2). */
async function findToSpend(parts: AdapterParts, model: string, id: string, idHash: string) {
  const stored = await inRequestTransaction(parts.db, async (tx) => {
    const found = await parts.payloads.findLocked(tx, 'update', model, idHash)
    if (found?.consumed) await appendAudit(tx, reuseEvent(model, idHash, isHonestRace(model, found)))
    // A request that was being answered while access was ended may have stored its code afterwards.
    const { sessionUid } = found?.payload ?? {}
    const isInSession = model === 'AuthorizationCode' && typeof sessionUid === 'string'
    return isInSession && !(await parts.sessions.hold(tx, sessionUid)) ? undefined : found
  })
  return stored && isHonestRace(model, stored) ? undefined : present(stored, id)
}

/** Two tabs that refresh at the same moment are no theft: the later one is refused and the family lives on. */
function isHonestRace(model: string, stored: StoredPayload): boolean {
  return (
    model === 'RefreshToken' && stored.consumed && (stored.consumedSecondsAgo ?? reuseGraceSeconds) < reuseGraceSeconds
  )
}

/** What is stored of a payload: without its id, and without the session id that an interaction copies. */
function stripped(payload: AdapterPayload): Record<string, unknown> {
  const { jti, ...rest } = payload
  void jti
  if (rest.kind !== 'Interaction' || !rest.session) return rest
  const { cookie, ...session } = rest.session
  void cookie
  return { ...rest, session }
}

function present(stored: StoredPayload | undefined, id: string): AdapterPayload | undefined {
  if (!stored) return undefined
  return { ...stored.payload, jti: id, ...(stored.consumed ? { consumed: true } : {}) }
}

function sessionAdapter({ db, sessions, accounts }: AdapterParts): Adapter {
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
        extends: account?.policy.session.extendOnActivity ?? true,
        isUse: isSignIn || context?.oidc.entities.AuthorizationCode !== undefined,
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
        await appendAudit(tx, { ...about, name: 'session.ended' }, { ...about, name: 'logout.succeeded' })
      })
    },
    consume: () => Promise.reject(new TypeError('a session cannot be consumed')),
    revokeByGrantId: () => Promise.resolve(),
    findByUserCode: () => Promise.resolve(undefined),
  }
}

/** Why the session that this browser held before has ended, for the page of a sign-in (internals.ts keeps it). */
function endOf(model: string): { endedBecause?: string } {
  const context = model === 'Interaction' ? currentContext() : undefined
  const reason = context && endOfSession(context.req)
  return reason === undefined ? {} : { endedBecause: reason }
}

/** Who signed in past the provider's endpoints, under the policy of the app's organisation too. */
async function accountOfDirect(accounts: Accounts, id: string, direct: DirectContext | undefined) {
  const account = await accounts.findActive(id, direct?.organizationId)
  return account && { ...account, policy: policyIn(account, direct?.place) }
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

function clientAdapter({ clients }: AdapterParts): Adapter {
  const refuse = () => Promise.reject(new TypeError('clients are written by registration and apply'))
  return {
    // A text that cannot be a client id never reaches the database, which would choke on a NUL (D9).
    async find(id) {
      if (!isClientId(id)) return undefined
      const context = currentContext()
      const known = context && (await introspectedOf(context.req))?.client
      return known?.['client_id'] === id ? known : clients.findMetadata(id)
    },
    upsert: refuse,
    destroy: refuse,
    consume: refuse,
    revokeByGrantId: () => Promise.resolve(),
    findByUid: () => Promise.resolve(undefined),
    findByUserCode: () => Promise.resolve(undefined),
  }
}

function currentContext(): KoaContextWithOIDC | undefined {
  const context = Provider.ctx
  return context?.oidc ? context : undefined
}

function isIntrospection(): boolean {
  return currentContext()?.oidc.route === 'introspection'
}

function isTokenRequest(): boolean {
  return currentContext()?.oidc.route === 'token'
}

function tokenEvent(model: string, tokenHash: string, payload: AdapterPayload): AuditEvent {
  const context = currentContext()
  const grantType = String(context?.oidc.params?.['grant_type'] ?? 'unknown')
  const common = {
    outcome: 'success' as const,
    actor: clientActor(payload.clientId),
    accountId: payload.accountId,
    organizationId: organizationOf(context),
    sessionUid: payload.sessionUid,
    clientId: payload.clientId,
    origin: context ? originOf(context.req) : {},
  }
  const scope = payload.scope?.slice(0, 1024)
  if (grantType === 'refresh_token')
    return { ...common, name: 'token.refreshed', details: { kind: model, scope, tokenHash } }
  return {
    ...common,
    name: 'token.issued',
    details: { kind: model, grantType: grantType.slice(0, 64), scope, tokenHash },
  }
}

function revokedEvent(kind: string, tokenHash: string | undefined): AuditEvent {
  const context = currentContext()
  const clientId = context?.oidc.client?.clientId
  return {
    name: 'token.revoked',
    outcome: 'success',
    actor: clientActor(clientId),
    accountId: context?.oidc.session?.accountId ?? context?.oidc.account?.accountId,
    organizationId: organizationOf(context),
    clientId,
    origin: context ? originOf(context.req) : {},
    details: tokenHash === undefined ? { kind } : { kind, tokenHash },
  }
}

function reuseEvent(kind: string, tokenHash: string, withinGrace: boolean): AuditEvent {
  const context = currentContext()
  const clientId = context?.oidc.client?.clientId
  return {
    name: 'token.reuse_detected',
    outcome: 'failure',
    actor: clientActor(clientId),
    organizationId: organizationOf(context),
    clientId,
    origin: context ? originOf(context.req) : {},
    details: { kind, withinGrace, tokenHash },
  }
}

function clientActor(clientId: string | undefined): Actor {
  return clientId === undefined ? { type: 'anonymous' } : { type: 'client', id: clientId }
}

function organizationOf(context: KoaContextWithOIDC | undefined): string | undefined {
  const value = context?.oidc.client?.['organization_id']
  return typeof value === 'string' ? value : undefined
}
