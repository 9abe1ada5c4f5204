// Whether a caller may do an operation: scope, permission, step-up. Pure but for what it throws.
import { ApiProblem } from '../api/problems.ts'
import { satisfies } from '../oidc/acr.ts'
import type { Permission } from '../organizations/permissions.ts'
import type { Caller } from './caller.ts'
import type { AdminOperation } from './operation.ts'

/** How long a sign-in counts for what needs a step-up. */
export const stepUpSeconds = 300
export const stepUpAcr = 'urn:mlpipes:acr:mfa'
/** Of a clock that runs ahead of ours. */
const skewSeconds = 30

export const scopeFor = ({ method, isQuestion }: Pick<AdminOperation, 'method' | 'isQuestion'>) =>
  method === 'GET' || isQuestion ? 'admin:read' : 'admin:write'

/** @throws ApiProblem (RFC 6750 §3.1) when a token does not carry the scope of the operation */
export function assertScope(
  operation: Pick<AdminOperation, 'method' | 'isQuestion'>,
  { scopes }: Pick<Caller, 'scopes'>,
): void {
  const scope = scopeFor(operation)
  if (scopes === undefined || scopes.has(scope)) return
  const wwwAuthenticate = `Bearer error="insufficient_scope", scope="${scope}"`
  throw new ApiProblem('scope_insufficient', [], { wwwAuthenticate })
}

/** @throws ApiProblem that names the permission of the operation when the caller does not hold it */
export function assertPermitted({ permission, reach }: AdminOperation, caller: Caller): void {
  if (permission !== 'known') requirePermission(caller, permission)
  if (reach === 'platform') requirePermission(caller, 'platform:organizations')
}

/** @throws ApiProblem that names the permission when the caller does not hold it */
export function requirePermission({ permissions }: Pick<Caller, 'permissions'>, permission: Permission): void {
  if (!permissions.has(permission)) throw new ApiProblem('forbidden', [], { permission })
}

/**
 * Nobody gives what they do not hold, and nobody acts on the access of somebody who holds more than they do.
 * @throws ApiProblem that names the first permission that the caller lacks
 */
export function requireAll(caller: Pick<Caller, 'permissions'>, wanted: ReadonlySet<Permission>): void {
  for (const permission of wanted) requirePermission(caller, permission)
}

/**
 * A person proves the second factor anew (RFC 9470). A client has none to prove, so it has to be one whose key cannot be
 * read off a configuration file of ours: private_key_jwt.
 */
export function assertSteppedUp({ stepUp }: Pick<AdminOperation, 'stepUp'>, caller: Caller, now: Date): void {
  if (!stepUp) return
  if (caller.kind === 'client') {
    if (caller.authMethod !== 'private_key_jwt') throw new ApiProblem('client_too_weak')
    return
  }
  const ageSeconds = Math.floor(now.getTime() / 1_000) - (caller.authTime ?? 0)
  if (satisfies(caller.acr, stepUpAcr) && ageSeconds <= stepUpSeconds && ageSeconds >= -skewSeconds) return
  const wwwAuthenticate = `Bearer error="insufficient_user_authentication", error_description="a sign-in with the second factor of the last ${stepUpSeconds} seconds is needed", acr_values="${stepUpAcr}", max_age="${stepUpSeconds}"`
  throw new ApiProblem('step_up_required', [], { wwwAuthenticate })
}
