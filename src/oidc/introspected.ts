// All that introspection asks, in one statement for everybody who asks at the same moment: the token, its grant, its session,
// the client it was issued to, its person in the organisation it was issued in, and the client that asks. The provider asks
// for these one after another; each would be a way to the database and back (adapter.ts answers it from here).
import { type Account, toAccount } from '../accounts/accounts.ts'
import { toMetadata } from '../clients/clients.ts'
import { coalesce } from '../db/coalesce.ts'
import type { Database, Row } from '../db/database.ts'
import type { Policies } from '../organizations/organizations.ts'
import { isLive } from '../sessions/live.ts'
import { type StoredSession, toStoredSession } from '../sessions/sessions.ts'
import { type StoredPayload, toStoredPayload } from './store.ts'

export interface Introspected {
  /** AccessToken, ClientCredentials or RefreshToken. */
  readonly model: string
  readonly token: StoredPayload
  readonly grant: StoredPayload | undefined
  /** Live, and undefined too for a token that has none. */
  readonly session: StoredSession | undefined
  /** The client that the token was issued to, if it may act now. */
  readonly client: Record<string, unknown> | undefined
  /** The person of the token, if they may act now in its organisation. */
  readonly account: Account | undefined
}

// SHA-256 in base64url, as crypto/secrets.ts makes it of a grant's id.
const grantHash = `rtrim(translate(encode(sha256(convert_to(p.grant_id, 'UTF8')), 'base64'), '+/', '-_'), '=')`
const isUnexpired = '(expires_at is null or expires_at > now())'
// Each row of what is asked is a token or a client that asks. Each thing is looked up by its key, and `limit 1` keeps it so:
// left to join twelve tables, the planner took 1.7 ms each time, and where tables are young and it knows nothing of them, it
// read them whole.
const statement = `select w.id_hash as asked, w.caller, p.model, p.payload, p.consumed, p.consumed_seconds_ago, g.grant_payload,
      s.uid, s.session_payload, s.session_account_id, s.session_organization_id, s.ip, s.signed_in_at, s.last_activity_at,
      s.idle_expires_at, s.absolute_expires_at, now() as read_at,
      c.client_id, c.client_name, c.secret_digest, c.metadata, c.introspection, c.first_party, c.profile, c.previous_secret,
      c.client_organization_id, c.client_organization_name, c.client_organization_policy,
      a.id, a.email, a.email_verified_at, a.name, a.updated_at, a.organization_id, a.slug, a.organization_name, a.policy,
      a.roles, a.home
    from unnest($1::text[], $2::text[]) as w (id_hash, caller)
    left join lateral (select model, payload, grant_id, client_id, account_id, organization_id, consumed_at is not null as consumed,
          floor(extract(epoch from now() - consumed_at))::integer as consumed_seconds_ago
        from mlpipes_auth.oidc_payloads
        where model in ('AccessToken', 'ClientCredentials', 'RefreshToken') and id_hash = w.id_hash and ${isUnexpired}
        limit 1) as p on true
    left join lateral (select payload as grant_payload from mlpipes_auth.oidc_payloads
        where model = 'Grant' and id_hash = ${grantHash} and ${isUnexpired} limit 1) as g on true
    left join lateral (select s.uid, s.payload as session_payload, s.account_id as session_account_id,
          s.organization_id as session_organization_id, host(s.ip) as ip, s.signed_in_at, s.last_activity_at, s.idle_expires_at,
          s.absolute_expires_at
        from mlpipes_auth.sessions s where s.uid = p.payload ->> 'sessionUid' and ${isLive} limit 1) as s on true
    left join lateral (select c.client_id, c.name as client_name, c.secret_digest, c.metadata, c.introspection, c.first_party,
          c.profile, case when c.previous_secret_until > now() then c.previous_secret_digest end as previous_secret,
          o.id as client_organization_id, o.name as client_organization_name, o.policy as client_organization_policy
        from mlpipes_auth.clients c join mlpipes_auth.organizations o on o.id = c.organization_id and o.closed_at is null
        where c.client_id = coalesce(w.caller, p.client_id) and c.disabled_at is null limit 1) as c on true
    left join lateral (select a.id, a.email, a.email_verified_at, a.name, a.updated_at, o.id as organization_id, o.slug,
          o.name as organization_name, o.policy, m.roles, m.home
        from mlpipes_auth.accounts a
          join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
          join mlpipes_auth.memberships m on m.account_id = a.id and m.organization_id = case when p.organization_id is null then a.organization_id else p.organization_id end
          join mlpipes_auth.organizations o on o.id = m.organization_id and o.closed_at is null
        where a.id = p.account_id and a.disabled_at is null limit 1) as a on true`

export type FindIntrospected = (tokenHash: string) => Promise<Introspected | undefined>

export interface IntrospectionReads {
  readonly find: FindIntrospected
  /** The metadata of a client that asks, if it may act now: as `Clients.findMetadata`, with what it asks about. */
  findCaller(clientId: string): Promise<Record<string, unknown> | undefined>
}

interface Asked {
  readonly kind: 'token' | 'caller'
  /** The hash of a token, or a client's id. */
  readonly key: string
}

export function createIntrospected(database: Database, policies: Policies): IntrospectionReads {
  const read = coalesce<Asked, Row | undefined>(database, {
    statement,
    values(asked) {
      const keys = (kind: Asked['kind']) => [...new Set(asked.filter((one) => one.kind === kind).map(({ key }) => key))]
      const [tokens, callers] = [keys('token'), keys('caller')]
      return [
        [...tokens, ...callers.map(() => null)],
        [...tokens.map(() => null), ...callers],
      ]
    },
    results(rows, asked) {
      const byKey = { token: new Map<string, Row>(), caller: new Map<string, Row>() }
      for (const row of rows)
        if (row['caller'] !== null) byKey.caller.set(String(row['caller']), row)
        else byKey.token.set(String(row['asked']), row)
      return asked.map(({ kind, key }) => byKey[kind].get(key))
    },
  })
  return {
    async find(key) {
      const row = await read({ kind: 'token', key })
      return row && row['model'] !== null ? toIntrospected(row, policies) : undefined
    },
    async findCaller(key) {
      const row = await read({ kind: 'caller', key })
      return row && toClient(row)
    },
  }
}

function toIntrospected(row: Row, policies: Policies): Introspected {
  return {
    model: String(row['model']),
    token: toStoredPayload(row),
    grant: row['grant_payload'] === null ? undefined : toStoredPayload({ payload: row['grant_payload'] }),
    session: toSession(row),
    client: toClient(row),
    account: row['id'] === null ? undefined : toAccount(row, policies),
  }
}

function toSession(row: Row): StoredSession | undefined {
  if (row['uid'] === null) return undefined
  return toStoredSession({
    uid: row['uid'],
    payload: row['session_payload'],
    account_id: row['session_account_id'],
    organization_id: row['session_organization_id'],
    ip: row['ip'],
    signed_in_at: row['signed_in_at'],
    last_activity_at: row['last_activity_at'],
    idle_expires_at: row['idle_expires_at'],
    absolute_expires_at: row['absolute_expires_at'],
    read_at: row['read_at'],
  })
}

function toClient(row: Row): Record<string, unknown> | undefined {
  if (row['client_id'] === null) return undefined
  return toMetadata({
    client_id: row['client_id'],
    name: row['client_name'],
    metadata: row['metadata'],
    secret_digest: row['secret_digest'],
    previous_secret: row['previous_secret'],
    introspection: row['introspection'],
    first_party: row['first_party'],
    profile: row['profile'],
    organization_id: row['client_organization_id'],
    organization_name: row['client_organization_name'],
    organization_policy: row['client_organization_policy'],
  })
}
