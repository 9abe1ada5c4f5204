// The admin API: one scope with its kernel, and the resources in it.
import type { FastifyInstance } from 'fastify'
import { createCsrfTokens } from '../api/gate.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { addAudit } from './audit.ts'
import { createCallers } from './caller.ts'
import { addClientFaults, type ClientFaultParts } from './client-faults.ts'
import { addClients, type ClientParts } from './clients.ts'
import { addDomains, type DomainParts } from './domains.ts'
import { addExplain, type ExplainParts } from './explain.ts'
import { addGuests } from './guests.ts'
import { addInvitations, type InvitationParts } from './invitations.ts'
import { createKernel } from './kernel.ts'
import { addMe } from './me.ts'
import { addOrganizations, type OrganizationParts } from './organizations.ts'
import { addPolicy, type PolicyParts } from './policy.ts'
import { addRegistrationTokens } from './registration-tokens.ts'
import { addRoles } from './roles.ts'
import { addSessions, type SessionParts } from './sessions.ts'
import { addUserAccess, type UserAccessParts } from './user-access.ts'
import { addUsers } from './users.ts'
import { addWebhooks, type WebhookParts } from './webhooks.ts'

type CallerParts = Omit<Parameters<typeof createCallers>[0], 'csrfTokens'>

export interface AdminApiParts
  extends CallerParts,
    UserAccessParts,
    InvitationParts,
    OrganizationParts,
    PolicyParts,
    ExplainParts,
    DomainParts,
    ClientParts,
    ClientFaultParts,
    SessionParts,
    WebhookParts {
  readonly database: Database
  readonly secrets: Secrets
  now(): Date
}

export function addAdminApi(app: FastifyInstance, parts: AdminApiParts): void {
  app.register(async (scope) => {
    const callers = createCallers({ ...parts, csrfTokens: createCsrfTokens(parts) })
    const kernel = createKernel(scope, { ...parts, callers })
    addMe(kernel)
    addUsers(kernel, parts)
    addUserAccess(kernel, parts)
    addGuests(kernel, parts)
    addInvitations(kernel, parts)
    addRoles(kernel)
    addOrganizations(kernel, parts)
    addPolicy(kernel, parts)
    addExplain(kernel, parts)
    addDomains(kernel, parts)
    addAudit(kernel, parts)
    addClients(kernel, parts)
    addClientFaults(kernel, parts)
    addRegistrationTokens(kernel)
    addSessions(kernel, parts)
    addWebhooks(kernel, parts)
  })
}
