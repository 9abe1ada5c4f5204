// What the admin API and registration by an app itself do alike with a new client: its id, its secret, and everything that
// is wrong with what is said of it.
import { randomBytes } from 'node:crypto'
import { type ClientMembers, clientMetadata, hasSecret, memberProblems } from './clients.ts'

export const newClientId = () => `client_${randomBytes(16).toString('base64url')}`
export const newClientSecret = () => randomBytes(32).toString('base64url')

/** What the provider finds wrong with a registration, if anything. */
export type ClientProblem = (metadata: Readonly<Record<string, unknown>>) => string | undefined

/** What members say together that each alone may, by our rules and then by the provider's. Empty when nothing is wrong. */
export function registrationProblems(
  clientProblem: ClientProblem,
  clientId: string,
  members: ClientMembers,
): { readonly path: string; readonly message: string }[] {
  const problems = memberProblems(members)
  if (problems.length > 0) return problems
  const message = clientProblem({
    ...clientMetadata(members),
    client_id: clientId,
    client_name: members.client_name,
    ...(hasSecret(members) ? { client_secret: 'shown by nobody' } : {}),
  })
  return message === undefined ? [] : [{ path: '', message }]
}
