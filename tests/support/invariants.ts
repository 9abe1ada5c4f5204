// What must be true of the database after any crash or load. Each query returns the rows that break it.
// I2 and I9, what is honoured at read, are asked of the running server instead.
import type { Database } from '../../src/db/database.ts'

const invariants: Readonly<Record<string, string>> = {
  'I1: at most one unspent refresh token per grant': `select grant_id from oidc_payloads
    where model = 'RefreshToken' and consumed_at is null group by grant_id having count(*) > 1`,
  'I3: a code gave at most one set of tokens': `select grant_id from oidc_payloads
    where model = 'AccessToken' and payload ->> 'gty' = 'authorization_code' group by grant_id having count(*) > 1`,
  'I3: no tokens beside a code that is not spent': `select c.grant_id from oidc_payloads c join oidc_payloads t on t.grant_id = c.grant_id
    where c.model = 'AuthorizationCode' and c.consumed_at is null and t.model = 'AccessToken'`,
  // Joined over sets rather than asked per row: there are thousands after a load.
  'I4: each token has one audit row, and each such row its token unless tokens of that client were revoked or access ended': `
    with logged as (select details ->> 'tokenHash' as hash, client_id, account_id, count(*) as rows from audit_events
        where name in ('token.issued', 'token.refreshed') group by 1, 2, 3),
      stored as (select id_hash as hash from oidc_payloads where model in ('AccessToken', 'RefreshToken', 'ClientCredentials')),
      revoked as (select distinct client_id from audit_events where name = 'token.revoked')
    select * from stored full join logged using (hash)
    where stored.* is null and client_id not in (select client_id from revoked)
      and not exists (select from audit_events e where e.name = 'access.ended' and e.account_id = logged.account_id) or stored.* is not null and rows is distinct from 1`,
  'I4: each session has one audit row, and each such row its session': `
    with logged as (select session_uid as uid, count(*) as rows from audit_events where name = 'session.created' group by 1),
      stored as (select uid from sessions where account_id is not null)
    select * from stored full join logged using (uid) where stored.* is null or rows is distinct from 1`,
  'I4: each session that was ended has one audit row, and each such row its session': `
    with logged as (select session_uid as uid, count(*) as rows from audit_events where name = 'logout.succeeded' group by 1),
      stored as (select uid from sessions where account_id is not null and end_reason = 'sign_out')
    select * from stored full join logged using (uid) where stored.* is null or rows is distinct from 1`,
  // Flows go when their account's access is ended, so there may be fewer; never more, for accounts without a factor.
  'I4: each finished sign-in has one audit row': `select 1 where (select count(*) from audit_events where name = 'login.succeeded')
    < (select count(*) from sign_in_flows f where totp_id is null and not codes_pending
      and not exists (select from totp_credentials t where t.account_id = f.account_id))`,
  'I4: a sign-in is finished for the provider only beside its flow': `select id_hash from oidc_payloads p where model = 'Interaction'
    and payload -> 'result' ? 'login' and not payload -> 'result' ? 'consent' and not exists (select from sign_in_flows f where f.interaction_hash = p.id_hash)`,
  'I4: each consent has its audit row': `select account_id from consents c
    where not exists (select from audit_events e where e.name = 'consent.granted' and e.account_id = c.account_id and e.client_id = c.client_id)`,
  'I4: a consent is finished for the provider only beside its audit row': `select id_hash from oidc_payloads p where model = 'Interaction'
    and payload -> 'result' ? 'consent' and not exists (select from audit_events e where e.name = 'consent.granted'
      and e.session_uid = p.payload -> 'session' ->> 'uid')`,
  'I5: no session without the second factor that its account has': `select uid from sessions s where account_id is not null
    and exists (select from totp_credentials t where t.account_id = s.account_id and t.confirmed_at is not null)
    and not payload -> 'amr' ? 'otp'`,
  'I7: a session is in an organisation that its account belongs to': `select uid from sessions s
    where account_id is not null and ended_at is null and not exists (select from memberships m
      where m.account_id = s.account_id and m.organization_id = s.organization_id)`,
  'I8: no counter is above its limit': 'select key from sign_in_attempts where failures > 300',
}

/** Names of the invariants that do not hold, each with how many rows break it. Empty when all is well. */
export async function violations(database: Database): Promise<string[]> {
  const found: string[] = []
  for (const [name, query] of Object.entries(invariants)) {
    const rows = await database.run(query, [])
    if (rows.length > 0) found.push(`${name} (${rows.length}: ${JSON.stringify(rows[0])})`)
  }
  return found
}
