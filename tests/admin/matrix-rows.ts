// What the matrix knows of each operation: who may do it, and how to ask for it. One file of rows per helper of targets:
// a row's target is made anew for each cell, in the organisation asked for.
import { randomBytes } from 'node:crypto'
import type { AdminServer, ApiAnswer } from './support.ts'

/** Who asks. `elsewhere` administers another organisation. */
export const askers = ['nobody', 'member', 'auditor', 'support', 'admin', 'elsewhere', 'platform'] as const
export type Asker = (typeof askers)[number]

export interface Target {
  /** Values of the parameters in the path. */
  readonly params?: Readonly<Record<string, string>>
  /** What is sent as If-Match. */
  readonly etag?: string
}

export interface Row {
  /** The roles of mercy that may; whoever administers the platform always may, and hope's administrator in hope. */
  readonly may: readonly Asker[]
  /** What those are answered. */
  readonly status: number
  /** Makes something to do it to in an organisation; undefined for an operation without an id. */
  readonly target?: (server: AdminServer, slug: 'mercy' | 'hope') => Promise<Target>
  /** The body of a change. */
  readonly body?: (unique: string) => unknown
  /** Ids of this kind are not unique beyond an organisation, so that another's is no denial. */
  readonly isLocal?: true
  /** Only for whoever administers the platform. */
  readonly isPlatforms?: true
  /** It is addressed without an id, or by one that the platform alone has: there is no other's to try. */
  readonly isSole?: true
  /** It ends the sessions of others: everybody signs in anew afterwards. */
  readonly signsOut?: true
}

const unique = () => randomBytes(9).toString('hex')

export async function organizationId(server: AdminServer, slug: string): Promise<string> {
  const [row] = await server.database.run('select id from mlpipes_auth.organizations where slug = $1', [slug])
  return String(row?.['id'])
}

/** Somebody new, with a password, at home in an organisation. */
export async function newPerson(
  server: AdminServer,
  slug: string,
  roles: readonly string[] = ['member'],
): Promise<string> {
  const [id, home] = [`acc_${unique()}`, await organizationId(server, slug)]
  const email = `${unique()}@${slug}.example`
  await server.database.run(
    `insert into mlpipes_auth.accounts (id, email, email_normalized, email_verified_at, name, organization_id)
     values ($1, $2, $2, now(), 'New Person', $3)`,
    [id, email, home],
  )
  await server.database.run(
    'insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, true, $3)',
    [id, home, [...roles]],
  )
  await server.database.run('insert into mlpipes_auth.password_credentials (account_id, hash) values ($1, $2)', [
    id,
    'x',
  ])
  return id
}

/** A guest of an organisation, at home on the platform. */
export async function newGuest(
  server: AdminServer,
  slug: string,
  roles: readonly string[] = ['member'],
): Promise<string> {
  const id = await newPerson(server, 'platform')
  await server.database.run(
    'insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, $3)',
    [id, await organizationId(server, slug), [...roles]],
  )
  return id
}

export async function newSession(server: AdminServer, accountId: string, slug: string): Promise<string> {
  const uid = unique()
  await server.database.run(
    `insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, signed_in_at, idle_expires_at, absolute_expires_at)
     values ($1, $1, '{}', $2, $3, now(), now() + interval '1 hour', now() + interval '1 hour')`,
    [uid, accountId, await organizationId(server, slug)],
  )
  return uid
}

async function newRole(server: AdminServer, slug: string): Promise<string> {
  const name = `r${unique()}`
  await server.database.run(
    'insert into mlpipes_auth.organization_roles (organization_id, name, permissions) values ($1, $2, $3)',
    [await organizationId(server, slug), name, ['user:read']],
  )
  return name
}

async function newInvitation(server: AdminServer, slug: string): Promise<string> {
  const token = await server.tokenOf(`admin@${slug}.example`)
  const body = { email: `${unique()}@new.example` }
  const answer: ApiAnswer = await server.call(token, '/api/admin/invitations', { body })
  return String(answer.body['id'])
}

const person: Row['target'] = async (server, slug) => ({
  params: { accountId: await newPerson(server, slug) },
  etag: '"1.1"',
})
/** Somebody who can have lost a second factor. */
export async function newFactor(server: AdminServer, accountId: string): Promise<void> {
  await server.database.run(
    `insert into mlpipes_auth.totp_credentials (id, account_id, name, sealed_secret, confirmed_at) values ($1, $2, 'Phone', 'x', now())`,
    [`totp_${unique()}`, accountId],
  )
}
const personWithFactor: Row['target'] = async (server, slug) => {
  const accountId = await newPerson(server, slug)
  await newFactor(server, accountId)
  return { params: { accountId } }
}
const guest: Row['target'] = async (server, slug) => ({
  params: { accountId: await newGuest(server, slug) },
  etag: '"1"',
})
const role: Row['target'] = async (server, slug) => ({ params: { name: await newRole(server, slug) }, etag: '"1"' })
const invitation: Row['target'] = async (server, slug) => ({
  params: { invitationId: await newInvitation(server, slug) },
})
const session: Row['target'] = async (server, slug) => {
  const accountId = await newPerson(server, slug)
  return { params: { accountId, sessionUid: await newSession(server, accountId, slug) } }
}

const readers: readonly Asker[] = ['auditor', 'support', 'admin']
const helpers: readonly Asker[] = ['support', 'admin']
const admins: readonly Asker[] = ['admin']

/** Access, people, guests, invitations and roles. */
export const peopleRows: Readonly<Record<string, Row>> = {
  getMe: { may: ['member', ...readers], status: 200 },
  listPermissions: { may: readers, status: 200 },
  listUsers: { may: readers, status: 200 },
  getUser: { may: readers, status: 200, target: person },
  createUser: { may: admins, status: 201, body: (id) => ({ email: `${id}@new.example`, name: 'New Person' }) },
  updateUser: { may: admins, status: 200, target: person, body: () => ({ name: 'Other Name' }) },
  setUserRoles: { may: admins, status: 200, target: person, body: () => ({ roles: ['support'] }) },
  disableUser: { may: admins, status: 200, target: person },
  enableUser: { may: admins, status: 200, target: person },
  resetUserPassword: { may: helpers, status: 202, target: person },
  requireUserPasswordChange: { may: helpers, status: 200, target: person },
  resetUserMfa: { may: helpers, status: 200, target: personWithFactor },
  endUserSessions: { may: helpers, status: 200, target: person },
  listUserSessions: { may: readers, status: 200, target: person },
  endUserSession: { may: helpers, status: 204, target: session },
  listGuests: { may: readers, status: 200 },
  getGuest: { may: readers, status: 200, target: guest },
  setGuestRoles: { may: admins, status: 200, target: guest, body: () => ({ roles: ['support'] }) },
  endGuest: { may: admins, status: 204, target: guest },
  listInvitations: { may: readers, status: 200 },
  createInvitation: { may: admins, status: 201, body: (id) => ({ email: `${id}@new.example` }) },
  withdrawInvitation: { may: admins, status: 204, target: invitation },
  listRoles: { may: readers, status: 200 },
  getRole: { may: readers, status: 200, target: role, isLocal: true },
  createRole: { may: admins, status: 201, body: (id) => ({ name: `r${id}`, permissions: ['user:read'] }) },
  updateRole: { may: admins, status: 200, target: role, body: () => ({ permissions: ['audit:read'] }), isLocal: true },
  deleteRole: { may: admins, status: 204, target: role, isLocal: true },
}
