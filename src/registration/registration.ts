// Apps that register, read, change and remove themselves (RFC 7591, RFC 7592), and replace their secret. A client that comes
// this way is written by the function that writes every client, in one transaction with the use of the token and the audit
// row; so is its new secret. Its own token is kept as a hash and is good for this client alone.
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import { type ClientMembers, hasSecret } from '../clients/clients.ts'
import { type ClientProblem, newClientId, newClientSecret, registrationProblems } from '../clients/registrable.ts'
import { needsOf } from '../clients/rules.ts'
import { saveClient } from '../clients/save.ts'
import { replaceClientSecret, usualOverlapSeconds } from '../clients/secret.ts'
import { deleteClient, findClient, hasRoomForClient, maxClients, type StoredClient } from '../clients/store.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { beyond, confineTo, transactFor } from '../db/organization-transaction.ts'
import { transact } from '../db/transaction.ts'
import { endClientAccess } from '../sessions/parting.ts'
import { type AskingContext, type MetadataProblem, problemsOf, readMetadata } from './metadata.ts'
import { metadataProblem, RegistrationProblem, unknownToken } from './problems.ts'
import {
  addRegistration,
  endRegistration,
  type Invitation,
  type Registration,
  rotateRegistration,
  spendInvitation,
} from './store.ts'

/** RFC 7592 §2.2: what is ours to say and the client must not repeat. */
const serverMembers = [
  'registration_access_token',
  'registration_client_uri',
  'client_secret_expires_at',
  'client_id_issued_at',
] as const

export const newRegistrationToken = (kind: 'iat' | 'rat') => `${kind}_${randomBytes(32).toString('base64url')}`

/** A token as it was presented. */
export interface Presented {
  readonly token: string
  readonly hash: string
  readonly origin: Origin
}

export interface Registered {
  readonly client: StoredClient
  /** When one was made now: it is shown this once. */
  readonly secret: string | undefined
  readonly token: string
  /** Until when the secret of before works beside the one that was made now. */
  readonly formerSecretUntil?: Date | null
}

export interface Registrations {
  create(invitation: Invitation, presented: Presented, body: unknown): Promise<Registered>
  read(registration: Registration, presented: Presented): Promise<Registered>
  update(registration: Registration, presented: Presented, body: unknown): Promise<Registered>
  replaceSecret(registration: Registration, presented: Presented, body: unknown): Promise<Registered>
  remove(registration: Registration, presented: Presented): Promise<void>
}

export interface RegistrationParts {
  readonly database: Database
  readonly secrets: Secrets
  readonly clientProblem: ClientProblem
  readonly allowsLoopback: boolean
}

export function createRegistrations(parts: RegistrationParts): Registrations {
  const { database, secrets, clientProblem, allowsLoopback } = parts
  const db = database.kysely

  /** @throws RegistrationProblem */
  function membersOf(clientId: string, body: unknown, context: Omit<AskingContext, 'allowsLoopback'>): ClientMembers {
    const asked = readMetadata(body, { ...context, allowsLoopback })
    if (!asked.ok) throw metadataProblem(asked.problems)
    const problems = registrationProblems(clientProblem, clientId, asked.members)
    if (problems.length > 0) throw metadataProblem(problems)
    return asked.members
  }

  return {
    async create(invitation, { hash, origin }, body) {
      const { organizationId, template, tokenId: registrationTokenId } = invitation
      const clientId = newClientId()
      const members = membersOf(clientId, body, { template })
      const secret = hasSecret(members) ? newClientSecret() : undefined
      const token = newRegistrationToken('rat')
      const actor = { type: 'client' as const, id: clientId }
      return transact(db, async (tx) => {
        if (!(await spendInvitation(tx, hash))) throw unknownToken()
        await confineTo(tx, organizationId)
        if (!(await hasRoomForClient(tx, organizationId)))
          throw new RegistrationProblem(
            'access_denied',
            `the organisation has ${maxClients} clients, and no room for one more`,
          )
        await saveClient(tx, secrets, { clientId, organizationId, members, secret, actor, origin, registrationTokenId })
        await addRegistration(tx, clientId, sha256(token), invitation)
        return { client: present(await findClient(tx, organizationId, clientId)), secret, token }
      })
    },

    read: ({ clientId, organizationId }, { token }) =>
      transactFor(db, organizationId, async (tx) => {
        const client = present(await findClient(tx, organizationId, clientId))
        return { client, secret: undefined, token }
      }),

    update(registration, { hash, origin }, body) {
      const { clientId, organizationId, template } = registration
      const token = newRegistrationToken('rat')
      const actor = { type: 'client' as const, id: clientId }
      return transactFor(db, organizationId, async (tx) => {
        const before = present(await findClient(tx, organizationId, clientId, true))
        assertItsOwn(before)
        assertRepeated(secrets, registration, body)
        const members = membersOf(clientId, body, { template, before: before.members })
        const secret = hasSecret(members) && !before.hasSecret ? newClientSecret() : undefined
        const saving = { clientId, organizationId, members, secret, actor, origin }
        // Tokens of a client are in the organisations of its people, guests among them.
        await beyond(tx, organizationId, async () => {
          if (!(await rotateRegistration(tx, clientId, hash, sha256(token)))) throw unknownToken()
          const { kind } = await saveClient(tx, secrets, saving)
          if (kind !== 'unchanged') return
          const details = { changed: ['registration_access_token'] }
          const about = { outcome: 'success' as const, actor, organizationId, clientId, origin }
          await appendAudit(tx, { ...about, name: 'client.updated', details })
        })
        return { client: present(await findClient(tx, organizationId, clientId)), secret, token }
      })
    },

    async replaceSecret({ clientId, organizationId, template }, { hash, origin }, body) {
      assertNothing(body)
      const token = newRegistrationToken('rat')
      const actor = { type: 'client' as const, id: clientId }
      const replacing = { clientId, organizationId, overlapSeconds: usualOverlapSeconds, actor, origin }
      return transactFor(db, organizationId, async (tx) => {
        const before = present(await findClient(tx, organizationId, clientId, true))
        assertItsOwn(before)
        // Nothing is asked for here that the template could be held against: so what stands is.
        if (problemsOf(before.members, { template, allowsLoopback }).length > 0) throw gotMore()
        await beyond(tx, organizationId, async () => {
          if (!(await rotateRegistration(tx, clientId, hash, sha256(token)))) throw unknownToken()
        })
        const replaced = await replaceClientSecret(tx, secrets, replacing)
        if (!replaced) throw metadataProblem([hasNoSecret])
        const client = present(await findClient(tx, organizationId, clientId))
        return { client, secret: replaced.secret, token, formerSecretUntil: replaced.formerUntil }
      })
    },

    remove({ clientId, organizationId }, { hash, origin }) {
      const about = { actor: { type: 'client' as const, id: clientId }, organizationId, clientId, origin }
      return transactFor(db, organizationId, async (tx) => {
        present(await findClient(tx, organizationId, clientId, true))
        await beyond(tx, organizationId, async () => {
          if (!(await endRegistration(tx, clientId, hash))) throw unknownToken()
          await endClientAccess(tx, about)
        })
        await deleteClient(tx, organizationId, clientId)
        await appendAudit(tx, { ...about, name: 'client.deleted', outcome: 'success', details: {} })
      })
    },
  }
}

/** @throws RegistrationProblem for a client that went, or was switched off, since its token was looked up */
function present(client: StoredClient | undefined): StoredClient {
  if (!client) throw unknownToken()
  if (client.disabledAt !== null) throw switchedOff()
  return client
}

export const switchedOff = () =>
  new RegistrationProblem('access_denied', 'an administrator has switched this client off; ask them')

/**
 * What an administrator gave a client beyond what it could have registered makes it theirs to change: whoever holds the
 * token could otherwise send codes of people who are not asked to an address of their own.
 */
function assertItsOwn({ members, permissions }: StoredClient): void {
  const needs = needsOf(undefined, members)
  if (needs.platform.length + needs.stepUp.length + permissions.length > 0) throw gotMore()
}

const gotMore = () =>
  new RegistrationProblem(
    'access_denied',
    'an administrator has given this client more than it can register itself; ask them to change it',
  )

const hasNoSecret: MetadataProblem = {
  path: 'token_endpoint_auth_method',
  message: 'this client proves itself without a secret, so there is none to replace',
}
const nothing = z.strictObject({}).optional()

/** Neither the secret nor the overlap is the client's to choose: whoever sends members expects what will not happen. */
function assertNothing(body: unknown): void {
  if (!nothing.safeParse(body).success)
    throw metadataProblem([{ path: '', message: 'takes no members: send an empty JSON object, or no body' }])
}

/** RFC 7592 §2.2: which members of its registration a client has to repeat, may repeat, and must not. */
function assertRepeated(secrets: Secrets, { clientId, secretDigest }: Registration, body: unknown): void {
  const said = (name: string): unknown => Reflect.get(Object(body), name) ?? undefined
  const problems: MetadataProblem[] = []
  if (said('client_id') !== clientId) problems.push({ path: 'client_id', message: 'must be the one of this address' })
  const secret = said('client_secret')
  const isKnown = typeof secret === 'string' && secrets.matchesClientSecret(secret, secretDigest ?? '')
  if (secret !== undefined && !isKnown)
    problems.push({ path: 'client_secret', message: 'must be the one of now, or be left out' })
  for (const path of serverMembers)
    if (said(path) !== undefined) problems.push({ path, message: 'is the server’s to say; leave it out' })
  if (problems.length > 0) throw metadataProblem(problems)
}
