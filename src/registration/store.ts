// Registration tokens and what registered with them, in SQL. What decides is always one statement, and its row count.
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { type Template, templateSchema } from './template.ts'

/** Of one organisation, spent and expired ones too until they are deleted. */
export const maxRegistrationTokens = 100
/** How long one that expired can still be seen. */
const expiredDays = 30

export interface StoredToken {
  readonly id: string
  readonly name: string
  readonly template: Template
  readonly maxUses: number
  readonly uses: number
  readonly createdAt: Date
  readonly expiresAt: Date
}

/** What a token that an administrator gave out stands for. */
export interface Invitation {
  readonly tokenId: string
  readonly organizationId: string
  readonly template: Template
}

/** What an app's own token stands for. */
export interface Registration {
  readonly clientId: string
  readonly organizationId: string
  readonly template: Template
  readonly registrationTokenId: string
  readonly secretDigest: string | undefined
  readonly isDisabled: boolean
}

const columns = 'id, name, template, max_uses, uses, created_at, expires_at'
const list = `select ${columns} from mlpipes_auth.registration_tokens
    where organization_id = $1 and ($2::text is null or id > $2) order by id limit $3::integer`
// Those who add one at the same time are counted one after another.
const lock = `select pg_advisory_xact_lock(hashtextextended('mlpipes_auth.registration_tokens:' || $1, 0))`
const insert = `insert into mlpipes_auth.registration_tokens
      (id, organization_id, name, token_hash, template, max_uses, expires_at)
    select $1, $2, $3, $4, $5::jsonb, $6::integer, now() + make_interval(secs => $7::integer)
    where (select count(*) from mlpipes_auth.registration_tokens where organization_id = $2) < ${maxRegistrationTokens}
    returning ${columns}`
const remove = 'delete from mlpipes_auth.registration_tokens where id = $1 and organization_id = $2 returning id'

/** One more than `limit`, if there are as many. */
export async function listRegistrationTokens(
  tx: Tx,
  organizationId: string,
  page: { readonly limit: number; readonly after: readonly string[] | undefined },
): Promise<StoredToken[]> {
  return (await runIn(tx, list, [organizationId, page.after?.[0] ?? null, page.limit + 1])).map(toToken)
}

/** Undefined when there are as many as there may be. */
export async function insertRegistrationToken(
  tx: Tx,
  organizationId: string,
  given: {
    readonly id: string
    readonly name: string
    readonly tokenHash: string
    readonly template: Template
    readonly maxUses: number
    readonly expiresInSeconds: number
  },
): Promise<StoredToken | undefined> {
  const { id, name, tokenHash, template, maxUses, expiresInSeconds } = given
  await runIn(tx, lock, [organizationId])
  const values = [id, organizationId, name, tokenHash, JSON.stringify(template), maxUses, expiresInSeconds]
  const [row] = await runIn(tx, insert, values)
  return row && toToken(row)
}

/** False when it is not there. */
export async function deleteRegistrationToken(tx: Tx, organizationId: string, id: string): Promise<boolean> {
  return (await runIn(tx, remove, [id, organizationId])).length === 1
}

/** Deletes tokens that expired long ago, at most `limit` of them. Safe on every replica at once. */
export async function cleanRegistrationTokens(database: Pick<Database, 'run'>, limit: number): Promise<number> {
  const rows = await database.run(
    `delete from mlpipes_auth.registration_tokens where id = any(array(
      select id from mlpipes_auth.registration_tokens where expires_at <= now() - make_interval(days => ${expiredDays})
      order by id limit $1::integer for update skip locked)) returning id`,
    [limit],
  )
  return rows.length
}

const isGood = `t.token_hash = $1 and t.uses < t.max_uses and t.expires_at > now()
      and exists (select from mlpipes_auth.organizations o where o.id = t.organization_id and o.closed_at is null)`
const findInvited = `select t.id, t.organization_id, t.template from mlpipes_auth.registration_tokens t where ${isGood}`
const spend = `update mlpipes_auth.registration_tokens t set uses = t.uses + 1 where ${isGood} returning t.id`

/** The token, if an app may be registered with it now. It is spent later. */
export async function findInvitation(
  database: Pick<Database, 'run'>,
  tokenHash: string,
): Promise<Invitation | undefined> {
  const [row] = await database.run(findInvited, [tokenHash])
  return (
    row && {
      tokenId: String(row['id']),
      organizationId: String(row['organization_id']),
      template: templateSchema.parse(row['template']),
    }
  )
}

/** Counts a use, if one is left: of requests at the same time, as many win as there are uses. */
export async function spendInvitation(tx: Tx, tokenHash: string): Promise<boolean> {
  return (await runIn(tx, spend, [tokenHash])).length === 1
}

const add = `insert into mlpipes_auth.client_registrations (client_id, token_hash, template, registration_token_id)
    values ($1, $2, $3::jsonb, $4)`
const find = `select r.client_id, c.organization_id, r.template, r.registration_token_id, c.secret_digest,
      c.disabled_at is not null as is_disabled
    from mlpipes_auth.client_registrations r join mlpipes_auth.clients c on c.client_id = r.client_id
      join mlpipes_auth.organizations o on o.id = c.organization_id and o.closed_at is null
    where r.token_hash = $1`
const rotate = `update mlpipes_auth.client_registrations set token_hash = $3
    where client_id = $1 and token_hash = $2 returning client_id`
const end = 'delete from mlpipes_auth.client_registrations where client_id = $1 and token_hash = $2 returning client_id'

export async function addRegistration(
  tx: Tx,
  clientId: string,
  tokenHash: string,
  { template, tokenId }: Invitation,
): Promise<void> {
  await runIn(tx, add, [clientId, tokenHash, JSON.stringify(template), tokenId])
}

export async function findRegistration(
  database: Pick<Database, 'run'>,
  tokenHash: string,
): Promise<Registration | undefined> {
  const [row] = await database.run(find, [tokenHash])
  return (
    row && {
      clientId: String(row['client_id']),
      organizationId: String(row['organization_id']),
      template: templateSchema.parse(row['template']),
      registrationTokenId: String(row['registration_token_id']),
      secretDigest: typeof row['secret_digest'] === 'string' ? row['secret_digest'] : undefined,
      isDisabled: row['is_disabled'] === true,
    }
  )
}

/** Puts another token in the place of this one. False when somebody was faster: the token is good for nothing any more. */
export async function rotateRegistration(tx: Tx, clientId: string, before: string, after: string): Promise<boolean> {
  return (await runIn(tx, rotate, [clientId, before, after])).length === 1
}

/** False when the token is good for nothing any more. */
export async function endRegistration(tx: Tx, clientId: string, tokenHash: string): Promise<boolean> {
  return (await runIn(tx, end, [clientId, tokenHash])).length === 1
}

function toToken(row: Row): StoredToken {
  return {
    id: String(row['id']),
    name: String(row['name']),
    template: templateSchema.parse(row['template']),
    maxUses: Number(row['max_uses']),
    uses: Number(row['uses']),
    createdAt: row['created_at'] as Date,
    expiresAt: row['expires_at'] as Date,
  }
}
