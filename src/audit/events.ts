// The closed list of audit events: name → the strict shape of its details. No secrets, no free text, no clinical data.
import { z } from 'zod'

const reason = z.string().max(64)
const attempts = z.number().int().nonnegative()
const scope = z.string().max(1024)
const grantType = z.string().max(64)
const changed = z.array(z.string().max(64)).max(64)
const roles = z.array(z.string().max(64)).max(64)
const permissions = z.array(z.string().max(64)).max(64)
const id = z.string().max(64)
/** What an organisation wrote of each field of its policy: null where it wrote nothing, `none` where it wrote "no limit". */
export const policySetting = z.union([
  z.number(),
  z.boolean(),
  z.string().max(64),
  z.array(z.string().max(64)).max(200),
  z.null(),
])
const policySettings = z.record(z.string().max(64), policySetting)

export const auditEvents = {
  'login.succeeded': z.strictObject({ amr: z.array(reason), acr: z.string().max(64), failuresBefore: attempts }),
  'login.failed': z.strictObject({ reason, attempts, identifierMac: z.string().max(64).optional() }),
  'login.factor_succeeded': z.strictObject({ method: reason }),
  'account.signed_up': z.strictObject({ roles: z.array(z.string().max(64)) }),
  'account.email_verified': z.strictObject({ passwordRemoved: z.boolean() }),
  'account.email_changed': z.strictObject({}),
  'account.data_exported': z.strictObject({}),
  'account.disowned': z.strictObject({ notice: reason }),
  'invitation.sent': z.strictObject({ roles: z.array(z.string().max(64)) }),
  'invitation.accepted': z.strictObject({ roles: z.array(z.string().max(64)) }),
  'link.sent': z.strictObject({ kind: reason, identifierMac: z.string().max(64).optional() }),
  'link.used': z.strictObject({ kind: reason, by: z.enum(['link', 'code']) }),
  'link.refused': z.strictObject({ kind: reason, reason, attempts }),
  'totp.setup_started': z.strictObject({ totpId: z.string().max(64) }),
  'totp.enabled': z.strictObject({ totpId: z.string().max(64) }),
  'totp.removed': z.strictObject({ totpId: z.string().max(64), by: z.enum(['self', 'administrator']) }),
  'backup_codes.created': z.strictObject({ count: attempts }),
  'backup_code.used': z.strictObject({ left: attempts }),
  'authenticator.disabled': z.strictObject({ kind: reason, failures: attempts }),
  'authenticator.restored': z.strictObject({ kind: reason }),
  'device.added': z.strictObject({}),
  /** Of the device flow (RFC 8628): somebody typed its code and let it in, or did not, or typed one that is none. */
  'device.approved': z.strictObject({ scopes: z.array(z.string().max(256)) }),
  'device.denied': z.strictObject({ error: reason }),
  'device.code_refused': z.strictObject({ reason, attempts }),
  'access.ended': z.strictObject({ cause: reason, sessions: attempts, tokens: attempts }),
  'consent.revoked': z.strictObject({}),
  'mail.failed': z.strictObject({ template: reason, attempts }),
  'logout.succeeded': z.strictObject({ reason }),
  'session.created': z.strictObject({ idleSeconds: z.number(), absoluteSeconds: z.number() }),
  'session.expired': z.strictObject({ reason }),
  'session.ended': z.strictObject({ reason }),
  'session.extended': z.strictObject({}),
  'token.issued': z.strictObject({ grantType, kind: reason, scope: scope.optional(), tokenHash: z.string().max(64) }),
  'token.refreshed': z.strictObject({ kind: reason, scope: scope.optional(), tokenHash: z.string().max(64) }),
  'token.revoked': z.strictObject({ kind: reason, tokenHash: z.string().max(64).optional() }),
  /** A code was tried without what belongs to it; dead after some of these. */
  'code.refused': z.strictObject({ codeHash: z.string().max(64), failures: attempts, isDead: z.boolean() }),
  'token.reuse_detected': z.strictObject({ kind: reason, withinGrace: z.boolean(), tokenHash: z.string().max(64) }),
  'consent.granted': z.strictObject({ scopes: z.array(z.string().max(256)) }),
  'consent.denied': z.strictObject({ scopes: z.array(z.string().max(256)) }),
  'authorization.refused': z.strictObject({ error: reason, detail: z.string().max(200) }),
  'introspection.denied': z.strictObject({ tokenHash: z.string().max(64), policy: reason }),
  'client_authentication.failed': z.strictObject({ error: reason, detail: z.string().max(200) }),
  'organization.created': z.strictObject({ slug: z.string().max(64) }),
  'organization.updated': z.strictObject({ slug: z.string().max(64), changed }),
  'organization.closed': z.strictObject({ slug: z.string().max(64) }),
  'organization.reopened': z.strictObject({ slug: z.string().max(64) }),
  'policy.updated': z.strictObject({
    stricter: changed,
    looser: changed,
    before: policySettings,
    after: policySettings,
  }),
  'domain.added': z.strictObject({ domain: z.string().max(253) }),
  'domain.verified': z.strictObject({ domain: z.string().max(253) }),
  'domain.removed': z.strictObject({ domain: z.string().max(253) }),
  'role.created': z.strictObject({ role: id, permissions }),
  'role.updated': z.strictObject({ role: id, changed, permissions }),
  'role.deleted': z.strictObject({ role: id }),
  'membership.created': z.strictObject({ roles }),
  'membership.updated': z.strictObject({ roles, rolesBefore: roles }),
  'membership.ended': z.strictObject({ roles }),
  'invitation.withdrawn': z.strictObject({}),
  'account.disabled': z.strictObject({}),
  'account.enabled': z.strictObject({}),
  'password.change_required': z.strictObject({}),
  'factor.reset': z.strictObject({ untilSeconds: z.number().int() }),
  'account.created': z.strictObject({ roles: z.array(z.string().max(64)) }),
  'account.updated': z.strictObject({ changed }),
  'password.changed': z.strictObject({ by: z.enum(['self', 'administrator', 'operator', 'reset']) }),
  'password.rehashed': z.strictObject({}),
  'client.created': z.strictObject({
    introspection: reason,
    firstParty: z.boolean(),
    registrationTokenId: id.optional(),
  }),
  'client.updated': z.strictObject({ changed, permissions: permissions.optional() }),
  'client.disabled': z.strictObject({}),
  'client.enabled': z.strictObject({}),
  'client.deleted': z.strictObject({}),
  'client.secret_replaced': z.strictObject({}),
  'registration_token.created': z.strictObject({
    registrationTokenId: id,
    maxUses: attempts,
    expiresInSeconds: attempts,
  }),
  'registration_token.deleted': z.strictObject({ registrationTokenId: id }),
  /** An app that registers or changes itself asked for what it may not. The detail names members. */
  'registration.refused': z.strictObject({
    error: reason,
    detail: z.string().max(200),
    registrationTokenId: id.optional(),
  }),
  'webhook.created': z.strictObject({ webhookId: id, events: z.array(id).max(64) }),
  'webhook.updated': z.strictObject({ webhookId: id, changed }),
  'webhook.deleted': z.strictObject({ webhookId: id }),
  /** Somebody asked for one that nothing caused, or for one once more. */
  'delivery.requested': z.strictObject({ deliveryId: id, webhookId: id, by: z.enum(['ping', 'redeliver']) }),
  'delivery.succeeded': z.strictObject({ deliveryId: id, kind: reason, attempts }),
  'delivery.failed': z.strictObject({ deliveryId: id, kind: reason, attempts, error: reason }),
  /** The plan's ADMIN_ACCESS_DENIED. */
  'admin.access_denied': z.strictObject({
    operation: id,
    permission: id.optional(),
    reason,
    target: z.string().max(128).optional(),
  }),
  'audit.read': z.strictObject({ filter: z.record(id, z.string().max(256)), count: attempts }),
  'audit.exported': z.strictObject({ filter: z.record(id, z.string().max(256)), count: attempts }),
  'keys.created': z.strictObject({ kid: z.string().max(64), alg: reason, promoteAt: z.string().max(40) }),
  'keys.retired': z.strictObject({ kid: z.string().max(64) }),
} as const

export type AuditEventName = keyof typeof auditEvents

/** Who did it. */
export type Actor =
  | { readonly type: 'account' | 'client'; readonly id: string }
  | { readonly type: 'operator' | 'system' | 'anonymous' }

/** Where a request came from; absent members are unknown, as for the command line. */
export interface Origin {
  readonly ip?: string | undefined
  readonly userAgent?: string | undefined
  readonly requestId?: string | undefined
}

/** One audit event before it is written. Its id and time are the database's to give. */
export type AuditEvent<Name extends AuditEventName = AuditEventName> = {
  [N in Name]: {
    readonly name: N
    readonly outcome: 'success' | 'failure'
    readonly actor: Actor
    readonly accountId?: string | undefined
    readonly organizationId?: string | undefined
    readonly sessionUid?: string | undefined
    readonly clientId?: string | undefined
    readonly origin: Origin
    readonly details: z.input<(typeof auditEvents)[N]>
  }
}[Name]
