// Denials of callers who are known, in the audit log: the plan's ADMIN_ACCESS_DENIED. Each in a transaction of its own,
// since what was refused is rolled back.
import type { FastifyRequest } from 'fastify'
import { ApiProblem, type ApiProblemCode } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Database } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { originOf } from '../http/origin.ts'
import { NotHere, type ThingKind } from './call.ts'
import type { Caller } from './caller.ts'

const denialCodes: ReadonlySet<ApiProblemCode> = new Set([
  'forbidden',
  'request_foreign',
  'scope_insufficient',
  'step_up_required',
  'client_too_weak',
  'last_administrator',
])

/** Whether something of this id is in an organisation other than $2. Without a row here, ids of a kind are not unique. */
const elsewhere: Readonly<Partial<Record<ThingKind, string>>> = {
  account: `select a.id from mlpipes_auth.accounts a where a.id = $1 and not exists
    (select from mlpipes_auth.memberships m where m.account_id = a.id and m.organization_id = $2)`,
  session: `select s.uid from mlpipes_auth.sessions s where s.uid = $1 and not exists
    (select from mlpipes_auth.memberships m where m.account_id = s.account_id and m.organization_id = $2)`,
  client: 'select client_id from mlpipes_auth.clients where client_id = $1 and organization_id <> $2',
  domain: 'select id from mlpipes_auth.organization_domains where id = $1 and organization_id <> $2',
  invitation: 'select id_hash from mlpipes_auth.mail_links where id_hash = $1 and organization_id <> $2',
  registration_token: 'select id from mlpipes_auth.registration_tokens where id = $1 and organization_id <> $2',
  webhook: 'select id from mlpipes_auth.webhooks where id = $1 and organization_id <> $2',
  organization: 'select id from mlpipes_auth.organizations where id = $1 and id <> $2',
}
const maxTargetLength = 128

export interface Denials {
  /** Does `work`; when it is refused to this caller, writes that down and refuses all the same. */
  watch<T>(attempt: Attempt, work: () => Promise<T>): Promise<T>
}

interface Attempt {
  readonly caller: Caller
  /** Where it was tried, if that is decided already. */
  readonly organizationId: string
  readonly operationId: string
  readonly request: FastifyRequest
}

export function createDenials(database: Pick<Database, 'kysely' | 'run'>): Denials {
  async function record(attempt: Attempt, reason: string, target?: string, permission?: string): Promise<void> {
    const { caller, operationId, request } = attempt
    await transact(database.kysely, (tx) =>
      appendAudit(tx, {
        name: 'admin.access_denied',
        outcome: 'failure',
        actor: caller.actor,
        accountId: caller.kind === 'account' ? caller.id : undefined,
        organizationId: caller.organization.id,
        sessionUid: caller.sessionUid,
        clientId: caller.clientId,
        origin: originOf(request.raw),
        details: {
          operation: operationId,
          reason,
          ...(permission === undefined ? {} : { permission }),
          ...(target === undefined || target === '' ? {} : { target: target.toWellFormed().slice(0, maxTargetLength) }),
        },
      }),
    )
  }

  return {
    async watch(attempt, work) {
      try {
        return await work()
      } catch (error) {
        if (error instanceof ApiProblem && denialCodes.has(error.code)) {
          const target = Object.values(Object(attempt.request.params)).map(String).join('/')
          await record(attempt, error.code, target, error.exact.permission)
        }
        if (error instanceof NotHere) {
          const statement = elsewhere[error.kind]
          const rows = statement ? await database.run(statement, [error.id, attempt.organizationId]) : []
          if (rows.length > 0) await record(attempt, 'other_organization', error.id)
        }
        throw error
      }
    },
  }
}
