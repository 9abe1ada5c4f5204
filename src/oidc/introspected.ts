// All that introspection asks about a token, in one statement for everybody who asks at the same moment: the token, its
// grant, its session, the client it was issued to, and its person in the organisation it was issued in. The provider asks
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
const isUnexpired = (alias: string) => `(${alias}.expires_at is null or ${alias}.expires_at > now())`
const statement = `select w.id_hash as asked, p.model, p.payload, p.consumed_at is not null as consumed,
      extract(epoch from now() - p.consumed_at)::integer as consumed_seconds_ago, g.payload as grant_payload,
      s.uid, s.payload as session_payload, s.account_id as session_account_id, s.organization_id as session_organization_id,
      host(s.ip) as ip, s.signed_in_at, s.last_activity_at, s.idle_expires_at, s.absolute_expires_at, now() as read_at,
      c.client_id, c.name as client_name, c.secret_digest, c.metadata, c.introspection, c.first_party, c.profile,
      case when c.previous_secret_until > now() then c.previous_secret_digest end as previous_secret,
      co.id as client_organization_id, co.name as client_organization_name, co.policy as client_organization_policy,
      a.id, a.email, a.email_verified_at, a.name, a.updated_at, o.id as organization_id, o.slug, o.name as organization_name,
      o.policy, m.roles, m.home
    from unnest($1::text[]) as w (id_hash)
    join mlpipes_auth.oidc_payloads p on p.id_hash = w.id_hash
      and p.model in ('AccessToken', 'ClientCredentials', 'RefreshToken') and ${isUnexpired('p')}
    left join mlpipes_auth.oidc_payloads g on g.model = 'Grant' and g.id_hash = ${grantHash} and ${isUnexpired('g')}
    left join mlpipes_auth.sessions s on s.uid = p.payload ->> 'sessionUid' and ${isLive}
    left join (mlpipes_auth.clients c join mlpipes_auth.organizations co on co.id = c.organization_id and co.closed_at is null)
      on c.client_id = p.client_id and c.disabled_at is null
    left join (mlpipes_auth.accounts a
      join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
      join mlpipes_auth.memberships m on m.account_id = a.id
      join mlpipes_auth.organizations o on o.id = m.organization_id and o.closed_at is null)
      on a.id = p.account_id and a.disabled_at is null
        and m.organization_id = case when p.organization_id is null then a.organization_id else p.organization_id end`

export type FindIntrospected = (tokenHash: string) => Promise<Introspected | undefined>

export function createIntrospected(database: Database, policies: Policies): FindIntrospected {
  return coalesce<string, Introspected | undefined>(database, {
    statement,
    values: (hashes) => [[...new Set(hashes)]],
    results(rows, hashes) {
      const byHash = new Map(rows.map((row) => [String(row['asked']), row]))
      return hashes.map((hash) => {
        const row = byHash.get(hash)
        return row && toIntrospected(row, policies)
      })
    },
  })
}

function toIntrospected(row: Row, policies: Policies): Introspected {
  return {
    model: String(row['model']),
    token: toStoredPayload(row),
    grant: row['grant_payload'] === null ? undefined : toStoredPayload({ payload: row['grant_payload'] }),
    session: row['uid'] === null ? undefined : toStoredSession(sessionRow(row)),
    client: row['client_id'] === null ? undefined : toMetadata(clientRow(row)),
    account: row['id'] === null ? undefined : toAccount(row, policies),
  }
}

function sessionRow(row: Row): Row {
  return {
    ...row,
    payload: row['session_payload'],
    account_id: row['session_account_id'],
    organization_id: row['session_organization_id'],
  }
}

function clientRow(row: Row): Row {
  return {
    ...row,
    name: row['client_name'],
    organization_id: row['client_organization_id'],
    organization_name: row['client_organization_name'],
    organization_policy: row['client_organization_policy'],
  }
}
