// Fills a database as a large platform would have it: organisations of very different sizes, their people, apps, sessions,
// tokens and audit rows. One real sign-in is the pattern: sessions, grants and tokens are its rows, with other names in
// them, so that they are what the adapter stores. Set-based SQL, as the owner of the schema.
import pg from 'pg'

export interface Sizes {
  readonly organizations: number
  readonly accounts: number
  readonly clients: number
  readonly sessions: number
  readonly auditEvents: number
  /** Of one organisation: its people, each with a session. */
  readonly large: number
}

/** @param scale 1 is what the goals are about */
export function sizesAt(scale: number): Sizes {
  const of = (whole: number) => Math.max(1, Math.round(whole * scale))
  return {
    organizations: of(1_000),
    accounts: of(1_000_000),
    clients: of(5_000),
    sessions: of(200_000),
    auditEvents: of(1_000_000),
    large: of(50_000),
  }
}

/** What is there before: one session to take as the pattern, and the organisation that becomes large. */
export interface Ground {
  readonly ownerUrl: string
  /** The account whose latest session, grant and tokens are the pattern. */
  readonly patternEmail: string
  /** A client of the large organisation, in whose name its people have their tokens. */
  readonly largeClientId: string
}

/** The value of an access token of the large organisation; `n` from 1 to its size. */
export const seededToken = (n: number) => `seeded-access-token-of-the-large-one-${String(n).padStart(8, '0')}`

// Others fall off slowly: with exponent 0.6 the second largest of a thousand is half as large as the large one.
const exponent = 0.6

/** How many people each organisation has, the large one first. */
export function organizationSizes({ organizations, accounts, large }: Sizes): number[] {
  const weights = Array.from({ length: organizations - 1 }, (_, index) => (index + 1) ** -exponent)
  const sum = weights.reduce((total, weight) => total + weight, 0)
  return [large, ...weights.map((weight) => Math.max(1, Math.round(((accounts - large) * weight) / sum)))]
}

// SHA-256 in base64url, as the adapter stores ids.
const hashed = (text: string) =>
  `translate(encode(sha256(convert_to(${text}, 'UTF8')), 'base64'), '+/=' || chr(10), '-_')`
const givenNames = `array['Ada','Ben','Clara','Dmitri','Elif','Farid','Grace','Hugo','Ines','Jonas','Kaya','Lena','Mateo','Nora','Omar','Priya','Quinn','Rosa','Sven','Tara']`
const familyNames = `array['Abara','Becker','Castillo','Dubois','Eriksen','Fischer','Gupta','Haddad','Ivanov','Jansen','Kowalski','Lindqvist','Moreno','Nakamura','Okafor','Petrov','Rossi','Silva','Tanaka','Vargas','Weber','Yilmaz','Zhang']`

/** One statement for each step; `$n` as said beside it. Temporary tables end with the connection. */
const steps: readonly { readonly what: string; readonly sql: string; readonly values?: readonly (keyof Facts)[] }[] = [
  {
    what: 'organisations',
    // The large one is there already.
    sql: `create temporary table seed_organizations as
        select case when k = 1 then $1::text else 'org_' || md5('organization ' || k) end as id,
          case when k = 1 then $2::text else 'seeded-' || k end as slug, k, size,
          case when k = 1 then size else least(size, round(size * $4::float8)::integer) end as sessions,
          sum(size) over (order by k) - size as before
        from unnest($3::integer[]) with ordinality as given (size, k)`,
    values: ['largeId', 'largeSlug', 'people', 'sessionShare'],
  },
  {
    what: 'organisations',
    sql: `insert into mlpipes_auth.organizations (id, slug, name) select id, slug, 'Organisation ' || k from seed_organizations where k > 1`,
  },
  {
    what: 'people',
    sql: `create temporary table seed_people as
        select o.before + i as n, o.id as organization_id, o.k, i, i <= o.sessions as has_session,
          'acc_' || md5('account ' || (o.before + i)) as id,
          (${givenNames})[1 + abs(hashint8(o.before + i)) % 20] as given,
          (${familyNames})[1 + abs(hashint8(o.before + i + 500000000)) % 23] as family
        from seed_organizations o cross join lateral generate_series(1, o.size) as i`,
  },
  {
    what: 'people',
    sql: `insert into mlpipes_auth.accounts (id, email, email_normalized, email_verified_at, name, organization_id, disabled_at, created_at)
        select id, address, address, now(), given || ' ' || family, organization_id, case when n % 50 = 0 and not has_session then now() end,
          now() - make_interval(hours => n::integer % 20000)
        from (select *, lower(given || '.' || family) || '.' || n || '@org-' || k || '.example' as address from seed_people) as each_one`,
  },
  {
    what: 'memberships',
    sql: `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select id, organization_id, true, case when n % 200 = 0 then '{member,nurse}' else '{member}' end::text[] from seed_people`,
  },
  {
    what: 'memberships',
    // One in fifty is a guest in another organisation.
    sql: `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select p.id, o.id, false, '{member}' from seed_people p
          join seed_organizations o on o.k = 1 + abs(hashint8(p.n)) % (select max(k) from seed_organizations) and o.id <> p.organization_id
        where p.n % 50 = 7`,
  },
  {
    what: 'credentials',
    // Nobody signs in with these: they are as long as real ones.
    sql: `insert into mlpipes_auth.password_credentials (account_id, hash)
        select id, '$argon2id$v=19$m=19456,p=1,t=2$' || left(md5(id), 22) || '$' || md5(id) || left(md5(id), 11) from seed_people`,
  },
  {
    what: 'credentials',
    sql: `insert into mlpipes_auth.totp_credentials (id, account_id, name, sealed_secret, confirmed_at)
        select 'totp_' || md5(id), id, 'Phone', md5(id) || md5(id) || md5(id), now() from seed_people where n % 3 = 0`,
  },
  {
    what: 'clients',
    sql: `insert into mlpipes_auth.clients (client_id, organization_id, name, secret_digest, metadata, introspection, first_party)
        select 'seeded-' || o.k || '-' || i, o.id, 'App ' || i, c.secret_digest, c.metadata, c.introspection, c.first_party
        from seed_organizations o cross join generate_series(1, $2::integer) as i join mlpipes_auth.clients c on c.client_id = $1`,
    values: ['largeClientId', 'clientsEach'],
  },
  {
    what: 'sessions',
    // Signed in two to eight hours ago, active in the last twenty minutes, as a policy of half an hour and half a day has them.
    sql: `create temporary table seed_sessions as
        select p.n, p.id as account_id, p.organization_id, p.k, md5('session ' || p.n) || 'seededseed1' as uid,
          case when p.k = 1 then $1 else 'seeded-' || p.k || '-1' end as client_id, ${hashed("'grant ' || p.n")} as grant_id,
          md5('sid ' || p.n) || 'seededseed1' as sid, now() - make_interval(secs => 7200 + abs(hashint8(p.n)) % 21600) as signed_in_at,
          now() - make_interval(secs => abs(hashint8(p.n + 1)) % 1200) as last_activity_at
        from seed_people p where p.has_session`,
    values: ['largeClientId'],
  },
  {
    what: 'sessions',
    sql: `insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, ip, user_agent, created_at, signed_in_at,
          last_activity_at, idle_expires_at, absolute_expires_at, idle_seconds, absolute_seconds)
        select n.uid, ${hashed("'session id ' || n.n")}, s.payload || jsonb_build_object('uid', n.uid, 'accountId', n.account_id,
            'loginTs', extract(epoch from n.signed_in_at)::bigint,
            'authorizations', jsonb_build_object(n.client_id, jsonb_build_object('sid', n.sid, 'grantId', n.grant_id))),
          n.account_id, n.organization_id, ('10.' || n.n / 65536 % 256 || '.' || n.n / 256 % 256 || '.' || n.n % 256)::inet,
          'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36', n.signed_in_at,
          n.signed_in_at, n.last_activity_at, n.last_activity_at + interval '1800 s', n.signed_in_at + interval '43200 s', 1800, 43200
        from seed_sessions n join mlpipes_auth.sessions s on s.uid = $1`,
    values: ['patternUid'],
  },
  {
    what: 'sessions',
    // One in twenty was used for another organisation too.
    sql: `insert into mlpipes_auth.session_organizations (session_uid, organization_id)
        select n.uid, o.id from seed_sessions n
          join seed_organizations o on o.k = 1 + abs(hashint8(n.n + 7)) % (select max(k) from seed_organizations) and o.id <> n.organization_id
        where n.n % 20 = 3`,
  },
  {
    what: 'tokens',
    sql: `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, grant_id, account_id, client_id, organization_id, expires_at)
        select t.model, case t.model when 'Grant' then ${hashed('n.grant_id')}
            when 'AccessToken' then ${hashed("'seeded-access-token-of-the-large-one-' || lpad(n.n::text, 8, '0')")}
            else ${hashed("'refresh ' || n.n")} end,
          t.payload || jsonb_build_object('accountId', n.account_id, 'clientId', n.client_id, 'exp', extract(epoch from now())::bigint + 43200)
            || case when t.model = 'Grant' then '{}' else jsonb_build_object('grantId', n.grant_id, 'sessionUid', n.uid, 'sid', n.sid,
              'organizationId', n.organization_id) end
            || case when t.model <> 'AccessToken' then '{}' else jsonb_build_object('extra', t.payload -> 'extra' || jsonb_build_object(
              'org_id', n.organization_id, 'org_slug', o.slug, 'auth_time', extract(epoch from n.signed_in_at)::bigint)) end,
          case when t.model <> 'Grant' then n.grant_id end, n.account_id, n.client_id,
          case when t.model <> 'Grant' then n.organization_id end, now() + interval '43200 s'
        from seed_sessions n join seed_organizations o on o.k = n.k
          cross join (select distinct on (model) model, payload from mlpipes_auth.oidc_payloads
            where account_id = $1 and model in ('Grant', 'AccessToken', 'RefreshToken') order by model, created_at desc) as t`,
    values: ['patternAccountId'],
  },
  {
    what: 'audit events',
    // Of the last weeks of this month and the ones before, more of larger organisations.
    sql: `insert into mlpipes_auth.audit_events (occurred_at, name, outcome, actor_type, actor_id, account_id, organization_id, session_uid,
          client_id, ip, request_id, details)
        select now() - make_interval(secs => e * 5.0), (array['login.succeeded', 'session.created', 'token.issued', 'token.refreshed',
            'token.refreshed', 'session.extended', 'login.failed', 'session.ended'])[1 + e % 8],
          case when e % 8 = 6 then 'failure' else 'success' end, 'account', p.id, p.id, p.organization_id, md5('session ' || p.n),
          'seeded-' || p.k || '-1', '10.1.2.3', gen_random_uuid()::text, jsonb_build_object('kind', 'AccessToken', 'tokenHash', md5(e::text))
        from generate_series(1, $1::integer) as e join seed_people p
          on p.n = 1 + abs(hashint8(e)) % (select max(n) from seed_people)`,
    values: ['auditEvents'],
  },
]

interface Facts {
  readonly largeId: string
  readonly largeSlug: string
  readonly largeClientId: string
  readonly people: readonly number[]
  /** How many sessions a person of the others has, on average. */
  readonly sessionShare: number
  readonly clientsEach: number
  readonly patternUid: string
  readonly patternAccountId: string
  readonly auditEvents: number
}

export interface Seeded {
  readonly seconds: number
  /** What was written, by table. */
  readonly rows: Readonly<Record<string, number>>
}

const find = `select c.organization_id as large_id, o.slug as large_slug, s.uid, s.account_id
    from mlpipes_auth.clients c join mlpipes_auth.organizations o on o.id = c.organization_id,
      mlpipes_auth.accounts a join mlpipes_auth.sessions s on s.account_id = a.id
    where c.client_id = $1 and a.email_normalized = $2 order by s.created_at desc limit 1`

/** @param report hears of every step as it is done */
export async function seed(
  { ownerUrl, patternEmail, largeClientId }: Ground,
  sizes: Sizes,
  report: (line: string) => void,
): Promise<Seeded> {
  const client = new pg.Client({ connectionString: ownerUrl })
  await client.connect()
  const begun = performance.now()
  const rows: Record<string, number> = {}
  try {
    const [ground] = (await client.query(find, [largeClientId, patternEmail])).rows
    const facts: Facts = {
      largeId: ground.large_id,
      largeSlug: ground.large_slug,
      largeClientId,
      people: organizationSizes(sizes),
      sessionShare: (sizes.sessions - sizes.large) / (sizes.accounts - sizes.large),
      clientsEach: Math.round(sizes.clients / sizes.organizations),
      patternUid: ground.uid,
      patternAccountId: ground.account_id,
      auditEvents: sizes.auditEvents,
    }
    await client.query(`set work_mem = '256MB'`)
    for (const { what, sql, values = [] } of steps) {
      const from = performance.now()
      const { rowCount } = await client.query(
        sql,
        values.map((name) => facts[name]),
      )
      const table = /insert into mlpipes_auth\.(\w+)/.exec(sql)?.[1]
      if (table) rows[table] = (rows[table] ?? 0) + (rowCount ?? 0)
      else await client.query(`analyze ${/create temporary table (\w+)/.exec(sql)?.[1]}`)
      report(`${what}: ${String(rowCount)} rows in ${((performance.now() - from) / 1_000).toFixed(1)} s`)
    }
    for (const table of Object.keys(rows)) await client.query(`vacuum (analyze) mlpipes_auth.${table}`)
  } finally {
    await client.end()
  }
  return { seconds: (performance.now() - begun) / 1_000, rows }
}
