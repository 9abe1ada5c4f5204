// Two organisations with everything that an organisation can have, each with a guest in the other, and what of it belongs
// to whom: told from the rows alone, so that policies in SQL can be held against it.
import { type Database, runIn } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'

export type StoredRow = Readonly<Record<string, unknown>>
export type Tables = Readonly<Record<string, readonly StoredRow[]>>

/** Statements that fill one organisation. `x` becomes its letter, `y` that of the other one. */
const filling = (x: string, y: string) => {
  const people = [`acc_${x}1`, `acc_${x}2`, `acc_${x}3`]
  const guest = `acc_${x}2`
  const hour = `now() + interval '1 hour'`
  const session = (uid: string, account: string, organization: string) => `insert into sessions
    (uid, id_hash, payload, account_id, organization_id, signed_in_at, idle_expires_at, absolute_expires_at)
    values ('${uid}', 'hash-${uid}', '{"amr":["pwd"]}', '${account}', '${organization}', now(), ${hour}, ${hour})`
  const payload = (id: string, account: string, organization: string, client: string) => `insert into oidc_payloads
    (model, id_hash, payload, account_id, organization_id, client_id, expires_at)
    values ('AccessToken', '${id}', '{}', ${account}, ${organization}, ${client}, ${hour})`
  const link = (id: string, kind: string, account: string, organization: string) => `insert into mail_links
    (id_hash, kind, account_id, organization_id, sealed, expires_at)
    values ('${id}', '${kind}', ${account}, ${organization}, 'sealed', ${hour})`
  const own = [
    `insert into organizations (id, slug, name) values ('org_${x}', '${x}', 'Organisation ${x}')`,
    `insert into clients (client_id, organization_id, name, metadata) values ('client_${x}', 'org_${x}', 'App', '{}')`,
    `insert into registration_tokens (id, organization_id, name, token_hash, template, max_uses, expires_at)
      values ('registration_${x}', 'org_${x}', 'Vendor', 'hash-${x}', '{}', 1, ${hour})`,
    `insert into client_registrations (client_id, token_hash, template, registration_token_id)
      values ('client_${x}', 'hash-${x}', '{}', 'registration_${x}')`,
    `insert into client_faults (client_id, slot, endpoint, error, reason, facts, digest, count)
      values ('client_${x}', 0, 'token', 'invalid_grant', 'code_used', '{}', 'd', 1)`,
    ...people.flatMap((id) => [
      `insert into accounts (id, email, email_normalized, name, organization_id)
        values ('${id}', '${id}@x.example', '${id}@x.example', 'Person ${id}', 'org_${x}')`,
      `insert into memberships (account_id, organization_id, home, roles) values ('${id}', 'org_${x}', true, '{member}')`,
      `insert into password_credentials (account_id, hash) values ('${id}', 'hash')`,
      `insert into password_history (account_id, hash) values ('${id}', 'hash')`,
      `insert into totp_credentials (id, account_id, name, sealed_secret) values ('totp_${id}', '${id}', 'Phone', 'sealed')`,
      `insert into backup_codes (account_id, code_mac) values ('${id}', 'mac')`,
      `insert into known_devices (account_id, device_hash) values ('${id}', 'hash')`,
      `insert into authenticator_failures (account_id, kind, consecutive) values ('${id}', 'totp', 3)`,
      `insert into mail_outbox (template, sealed, account_id) values ('reset-link', 'sealed', '${id}')`,
      link(`reset-${id}`, 'reset', `'${id}'`, `'org_${x}'`),
      link(`not-me-${id}`, 'not_me', `'${id}'`, 'null'),
      `insert into sign_in_flows (interaction_hash, account_id, expires_at) values ('flow-${id}', '${id}', ${hour})`,
      session(`session_${id}`, id, `org_${x}`),
      payload(`token-${id}`, `'${id}'`, `'org_${x}'`, `'client_${x}'`),
      payload(`old-token-${id}`, `'${id}'`, 'null', `'client_${x}'`),
    ]),
  ]
  const shared = [
    `insert into memberships (account_id, organization_id, home) values ('${guest}', 'org_${y}', false)`,
    session(`session_guest_${x}`, guest, `org_${y}`),
    payload(`token-guest-${x}`, `'${guest}'`, `'org_${y}'`, `'client_${y}'`),
    link(`link-guest-${x}`, 'sign_in', `'${guest}'`, `'org_${y}'`),
    `insert into sign_in_flows (interaction_hash, account_id, organization_id, expires_at)
      values ('flow-guest-${x}', '${guest}', 'org_${y}', ${hour})`,
    `insert into session_organizations values ('session_acc_${x}1', 'org_${y}')`,
    `insert into session_tightenings (organization_id, idle_seconds, absolute_seconds) values ('org_${x}', 600, 3600)`,
    `insert into consents (account_id, client_id, scopes)
      values ('acc_${x}1', 'client_${x}', '{openid}'), ('${guest}', 'client_${y}', '{openid}')`,
    payload(`service-token-${x}`, 'null', 'null', `'client_${x}'`),
    payload(`interaction-${x}`, 'null', 'null', 'null'),
    link(`invitation-${x}`, 'invite', 'null', `'org_${x}'`),
    `insert into mail_outbox (template, sealed) values ('invitation', 'sealed')`,
    `insert into organization_roles (organization_id, name) values ('org_${x}', 'nurse')`,
    `insert into organization_domains (id, organization_id, domain, challenge) values ('dom_${x}', 'org_${x}', '${x}.example', 'c')`,
    `insert into webhooks (id, organization_id, url, events, sealed_secret)
      values ('hook_${x}', 'org_${x}', 'https://${x}.example', '{account.disabled}', 'sealed')`,
    `insert into deliveries (delivery_id, kind, organization_id, webhook_id, body)
      values ('hook-${x}', 'webhook', 'org_${x}', 'hook_${x}', '{}')`,
    `insert into deliveries (delivery_id, kind, organization_id, client_id, account_id, body)
      values ('logout-${x}', 'backchannel_logout', 'org_${x}', 'client_${x}', '${guest}', '{}')`,
    `insert into idempotency_keys (key_hash, organization_id, request_hash, expires_at) values ('key-${x}', 'org_${x}', 'r', ${hour})`,
    `insert into audit_events (name, outcome, actor_type, account_id, organization_id)
      values ('login.succeeded', 'success', 'account', 'acc_${x}1', 'org_${x}'), ('login.failed', 'failure', 'anonymous', 'acc_${x}1', null)`,
  ]
  return { own, shared }
}

const ofThePlatform = `insert into idempotency_keys (key_hash, request_hash, expires_at) values ('key-platform', 'r', now())`

export async function fillTwoOrganizations(owner: Database): Promise<void> {
  const [a, b] = [filling('a', 'b'), filling('b', 'a')]
  await transact(owner.kysely, async (tx) => {
    for (const statement of [...a.own, ...b.own, ...a.shared, ...b.shared, ofThePlatform])
      await runIn(tx, statement, [])
  })
}

export interface Rule {
  /** Whose row an organisation sees. */
  sees(row: StoredRow, organization: string, tables: Tables): boolean
  /** Which of them it may change; all that it sees when not said. */
  changes?(row: StoredRow, organization: string, tables: Tables): boolean
  /** Which it may write anew, likewise. */
  adds?(row: StoredRow, organization: string, tables: Tables): boolean
}

const find = (tables: Tables, table: string, column: string, value: unknown) =>
  tables[table]?.find((row) => row[column] === value)
const isHere = (row: StoredRow, organization: string) => row['organization_id'] === organization
const isAtHome = (row: StoredRow, organization: string, tables: Tables) =>
  row['account_id'] !== null && find(tables, 'accounts', 'id', row['account_id'])?.['organization_id'] === organization
const isOfClient = (row: StoredRow, organization: string, tables: Tables) =>
  find(tables, 'clients', 'client_id', row['client_id'])?.['organization_id'] === organization
const isHereOrAtHome = (row: StoredRow, organization: string, tables: Tables) =>
  isHere(row, organization) || isAtHome(row, organization, tables)
const isKnown = (accountId: unknown, organization: string, tables: Tables) =>
  tables['memberships']?.some((row) => row['account_id'] === accountId && isHere(row, organization)) === true
const never = () => false

export const scopedTables: Readonly<Record<string, Rule>> = {
  organizations: { sees: (row, organization) => row['id'] === organization, adds: never },
  accounts: { sees: (row, organization, tables) => isKnown(row['id'], organization, tables), changes: isHere },
  memberships: {
    sees: isHere,
    adds: (row, organization, tables) => isHere(row, organization) && isAtHome(row, organization, tables),
  },
  password_credentials: { sees: isAtHome },
  password_history: { sees: isAtHome },
  totp_credentials: { sees: isAtHome },
  backup_codes: { sees: isAtHome },
  known_devices: { sees: isAtHome },
  authenticator_failures: { sees: isAtHome },
  mail_outbox: {
    sees: isAtHome,
    adds: (row, organization, tables) => row['account_id'] === null || isKnown(row['account_id'], organization, tables),
  },
  mail_links: {
    sees: isHereOrAtHome,
    adds: (row, organization, tables) =>
      isHere(row, organization) && (row['account_id'] === null || isAtHome(row, organization, tables)),
  },
  clients: { sees: isHere },
  registration_tokens: { sees: isHere },
  client_registrations: { sees: isOfClient },
  client_faults: { sees: isOfClient },
  consents: { sees: (...of) => isAtHome(...of) || isOfClient(...of), adds: never },
  oidc_payloads: {
    sees: (...of) => isHereOrAtHome(...of) || (of[0]['account_id'] === null && isOfClient(...of)),
    adds: never,
  },
  sessions: { sees: isHereOrAtHome, adds: never },
  sign_in_flows: { sees: isHereOrAtHome, adds: never },
  session_organizations: {
    sees(row, organization, tables) {
      const session = find(tables, 'sessions', 'uid', row['session_uid'])
      return isHere(row, organization) || (session !== undefined && isHereOrAtHome(session, organization, tables))
    },
    adds: never,
  },
  session_tightenings: { sees: isHere, adds: never },
  organization_roles: { sees: isHere },
  organization_domains: { sees: isHere },
  webhooks: { sees: isHere },
  deliveries: { sees: isHere },
  idempotency_keys: { sees: isHere },
  audit_events: { sees: isHere, changes: never, adds: isHere },
}

/** Tables that are nobody's, and why. The organisation's role has no right to them. */
export const platformTables: Readonly<Record<string, string>> = {
  signing_keys: 'one set of keys signs for every organisation',
  sign_in_attempts: 'keyed digests of addresses and accounts; what is counted has no organisation yet',
  schema_migrations: 'which migrations stand',
  schema_migrations_lock: 'holds replicas that migrate at once apart',
}
