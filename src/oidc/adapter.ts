// The provider's storage: one adapter per model name over payloads, sessions and clients, writing the audit row of
// what it stores in the same statement or transaction.
import { type Adapter, type AdapterPayload, errors } from 'oidc-provider'
import type { Accounts } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import { type Clients, isClientId } from '../clients/clients.ts'
import { sha256 } from '../crypto/secrets.ts'
import type { Db } from '../db/database.ts'
import { hasScope, inRequestTransaction, withOpenTransaction } from '../db/transaction.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { accountOf } from './claims.ts'
import { codeSpent, codeTried } from './code-failures.ts'
import type { FindIntrospected } from './introspected.ts'
import { endOfSession, introspectedOf, keepIntrospected } from './request-session.ts'
import { sessionAdapter } from './session-adapter.ts'
import { assertStorable, type PayloadStore, type StoredPayload, stripped } from './store.ts'
import { currentContext, reuseEvent, revokedEvent, tokenEvent } from './token-events.ts'

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
      assertStorable(payload)
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
      const context = currentContext()
      if (model === 'AuthorizationCode' && context) codeSpent(context.req)
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
    if (found?.consumed) await appendAudit(tx, reuseEvent(model, idHash, isHonestRace(model, found), found.payload))
    // A request that was being answered while access was ended may have stored its code afterwards.
    const { sessionUid } = found?.payload ?? {}
    const isInSession = model === 'AuthorizationCode' && typeof sessionUid === 'string'
    return isInSession && !(await parts.sessions.hold(tx, sessionUid)) ? undefined : found
  })
  const context = currentContext()
  if (model === 'AuthorizationCode' && context && stored && !stored.consumed) codeTried(context.req, idHash)
  // Answered as a token that is not known, but told apart by the people who look for this bug (clients/fault-reasons.ts).
  if (stored && isHonestRace(model, stored)) throw new errors.InvalidGrant('refresh token used in parallel')
  return present(stored, id)
}

/** Two tabs that refresh at the same moment are no theft: the later one is refused and the family lives on. */
function isHonestRace(model: string, stored: StoredPayload): boolean {
  return (
    model === 'RefreshToken' && stored.consumed && (stored.consumedSecondsAgo ?? reuseGraceSeconds) < reuseGraceSeconds
  )
}

function present(stored: StoredPayload | undefined, id: string): AdapterPayload | undefined {
  if (!stored) return undefined
  return { ...stored.payload, jti: id, ...(stored.consumed ? { consumed: true } : {}) }
}

/** Why the session that this browser held before has ended, for the page of a sign-in (internals.ts keeps it). */
function endOf(model: string): { endedBecause?: string } {
  const context = model === 'Interaction' ? currentContext() : undefined
  const reason = context && endOfSession(context.req)
  return reason === undefined ? {} : { endedBecause: reason }
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

function isIntrospection(): boolean {
  return currentContext()?.oidc.route === 'introspection'
}

function isTokenRequest(): boolean {
  return currentContext()?.oidc.route === 'token'
}
