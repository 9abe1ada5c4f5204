// Every operation of the admin API, for the document and the tests. A resource's table is in its own file.
import { operations as audit } from './audit.ts'
import { operations as clientFaults } from './client-faults.ts'
import { operations as clients } from './clients.ts'
import { operations as domains } from './domains.ts'
import { operations as explain } from './explain.ts'
import { operations as guests } from './guests.ts'
import { operations as invitations } from './invitations.ts'
import { operations as me } from './me.ts'
import type { AdminOperation } from './operation.ts'
import { operations as organizations } from './organizations.ts'
import { operations as policy } from './policy.ts'
import { operations as registrationTokens } from './registration-tokens.ts'
import { operations as roles } from './roles.ts'
import { operations as sessions } from './sessions.ts'
import { operations as userAccess } from './user-access.ts'
import { operations as users } from './users.ts'
import { operations as webhooks } from './webhooks.ts'

const tables = [
  me,
  users,
  userAccess,
  guests,
  invitations,
  roles,
  organizations,
  policy,
  explain,
  domains,
  audit,
  clients,
  clientFaults,
  registrationTokens,
  sessions,
  webhooks,
]

export const adminOperations: readonly AdminOperation[] = tables.flatMap((table): AdminOperation[] =>
  Object.values(table),
)
