// What the audit log says about tokens: issued, refreshed, revoked, used twice.
import { type AdapterPayload, type KoaContextWithOIDC, Provider } from 'oidc-provider'
import type { Actor, AuditEvent } from '../audit/events.ts'
import { originOf } from '../http/origin.ts'

/** The request that the provider is answering; undefined outside of one. */
export function currentContext(): KoaContextWithOIDC | undefined {
  const context = Provider.ctx
  return context?.oidc ? context : undefined
}

/** Whether a route of the provider answered. */
export function isProviders(context: object): context is KoaContextWithOIDC {
  return 'oidc' in context
}

type IssuedToken = Pick<AdapterPayload, 'accountId' | 'clientId' | 'scope' | 'sessionUid'>

export function tokenEvent(model: string, tokenHash: string, payload: IssuedToken): AuditEvent {
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

export function revokedEvent(kind: string, tokenHash: string | undefined): AuditEvent {
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

/** @param payload of what was used again; it tells whose it is */
export function reuseEvent(
  kind: string,
  tokenHash: string,
  withinGrace: boolean,
  payload: Readonly<Record<string, unknown>>,
): AuditEvent {
  const context = currentContext()
  const clientId = context?.oidc.client?.clientId
  const { accountId } = payload
  return {
    name: 'token.reuse_detected',
    outcome: 'failure',
    actor: clientActor(clientId),
    accountId: typeof accountId === 'string' ? accountId : undefined,
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
