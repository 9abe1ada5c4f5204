// What the admin API and registration by an app itself do alike with a new client: its id, its secret, and everything that
// is wrong with what is said of it.
import { randomBytes } from 'node:crypto'
import { type ClientField, type ClientMembers, clientMetadata, hasSecret, memberProblems } from './clients.ts'

export const newClientId = () => `client_${randomBytes(16).toString('base64url')}`
export const newClientSecret = () => randomBytes(32).toString('base64url')

/** What the provider finds wrong with a registration, if anything. */
export type ClientProblem = (metadata: Readonly<Record<string, unknown>>) => string | undefined

/** What members say together that each alone may, by our rules and then by the provider's. Empty when nothing is wrong. */
export function registrationProblems(
  clientProblem: ClientProblem,
  clientId: string,
  members: ClientMembers,
  before?: ClientMembers,
): { readonly path: string; readonly message: string }[] {
  const problems = [...memberProblems(members), ...listProblems(members, before)]
  if (problems.length > 0) return problems
  const message = clientProblem({
    ...clientMetadata(members),
    client_id: clientId,
    client_name: members.client_name,
    ...(hasSecret(members) ? { client_secret: 'shown by nobody' } : {}),
  })
  return message === undefined ? [] : [{ path: '', message }]
}

const lists = [
  'redirect_uris',
  'post_logout_redirect_uris',
  'grant_types',
  'backchannel_logout_causes',
] as const satisfies readonly ClientField[]
/** RFC 7591 §3.2.2: what could only be a mistake is refused, not mended in silence. */
function listProblems(
  members: ClientMembers,
  before?: ClientMembers,
): { readonly path: ClientField; readonly message: string }[] {
  const isService = members.grant_types.length > 0 && members.grant_types.every((name) => name === 'client_credentials')
  // What an operator's file said otherwise stands in the way of no other change.
  const changed = lists.filter((path) => !before || JSON.stringify(before[path]) !== JSON.stringify(members[path]))
  const twice = changed.filter((path) => new Set(members[path]).size !== (members[path]?.length ?? 0))
  const problems = twice.map((path) => ({ path, message: 'must not hold one twice' }))
  const mayBeFull = !changed.includes('redirect_uris') && !changed.includes('grant_types')
  if (!isService || mayBeFull || members.redirect_uris.length === 0) return problems
  const message = 'must be empty: with client_credentials alone nobody is sent anywhere'
  return [...problems, { path: 'redirect_uris', message }]
}
