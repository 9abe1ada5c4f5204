// Row types: what stands in the tables, as the drivers hand it over. Stores map them to their own values.
import type { ColumnType, Generated, GeneratedAlways } from 'kysely'

type Json<T = Record<string, unknown>> = ColumnType<T, string, string>
type Timestamp = ColumnType<Date, Date | string, Date | string>
type TimestampOrNull = ColumnType<Date | null, Date | string | null | undefined, Date | string | null>
type GeneratedTimestamp = ColumnType<Date, Date | string | undefined, Date | string>

export interface Schema {
  organizations: {
    id: string
    slug: string
    name: string
    policy: Json
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
    closed_at: TimestampOrNull
    version: GeneratedAlways<number>
  }
  accounts: {
    id: string
    email: string
    email_normalized: string
    email_verified_at: TimestampOrNull
    name: string
    organization_id: string
    metadata: Json
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
    disabled_at: TimestampOrNull
    factor_reset_until: TimestampOrNull
    version: GeneratedAlways<number>
  }
  memberships: {
    account_id: string
    organization_id: string
    home: boolean
    roles: string[]
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
    version: GeneratedAlways<number>
  }
  password_credentials: {
    account_id: string
    hash: string
    changed_at: GeneratedTimestamp
    must_change: Generated<boolean>
    rehash_digest: Generated<string | null>
  }
  password_history: { id: GeneratedAlways<string>; account_id: string; hash: string; retired_at: GeneratedTimestamp }
  totp_credentials: {
    id: string
    account_id: string
    name: string
    sealed_secret: string
    last_step: Generated<string>
    confirmed_at: TimestampOrNull
    created_at: GeneratedTimestamp
  }
  sign_in_attempts: {
    key: string
    failures: Generated<number>
    window_ends_at: Timestamp
    not_before: TimestampOrNull
  }
  sign_in_flows: {
    interaction_hash: string
    version: Generated<number>
    account_id: string | null
    proved: Generated<string[]>
    expires_at: Timestamp
    totp_id: string | null
    codes_pending: Generated<boolean>
    organization_id: string | null
  }
  mail_outbox: {
    id: GeneratedAlways<string>
    template: string
    sealed: string | null
    account_id: string | null
    attempts: Generated<number>
    next_attempt_at: GeneratedTimestamp
    sent_at: TimestampOrNull
    failed_at: TimestampOrNull
    last_error: string | null
    created_at: GeneratedTimestamp
  }
  mail_links: {
    id_hash: string
    kind: string
    account_id: string | null
    organization_id: string | null
    interaction_hash: string | null
    code_mac: string | null
    code_failures: Generated<number>
    sealed: string | null
    created_at: GeneratedTimestamp
    expires_at: Timestamp
    used_at: TimestampOrNull
  }
  backup_codes: { account_id: string; code_mac: string; created_at: GeneratedTimestamp; used_at: TimestampOrNull }
  known_devices: {
    account_id: string
    device_hash: string
    user_agent: string | null
    first_seen_at: GeneratedTimestamp
    last_seen_at: GeneratedTimestamp
  }
  authenticator_failures: {
    account_id: string
    kind: string
    consecutive: Generated<number>
    disabled_at: TimestampOrNull
  }
  signing_keys: {
    kid: string
    alg: string
    public_jwk: Json
    sealed_private_jwk: string
    created_at: GeneratedTimestamp
    promote_at: Timestamp
    retire_at: TimestampOrNull
  }
  clients: {
    client_id: string
    organization_id: string
    name: string
    secret_digest: string | null
    metadata: Json
    introspection: Generated<string>
    first_party: Generated<boolean>
    profile: Generated<string>
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
    disabled_at: TimestampOrNull
    version: GeneratedAlways<number>
    permissions: Generated<string[]>
    previous_secret_digest: string | null
    previous_secret_until: TimestampOrNull
  }
  client_faults: {
    client_id: string
    slot: number
    endpoint: string
    error: string
    reason: string
    facts: Json
    digest: string
    count: string
    first_at: GeneratedTimestamp
    occurred_at: GeneratedTimestamp
  }
  consents: { account_id: string; client_id: string; scopes: string[]; granted_at: GeneratedTimestamp }
  oidc_payloads: {
    model: string
    id_hash: string
    payload: Json
    grant_id: string | null
    account_id: string | null
    client_id: string | null
    consumed_at: TimestampOrNull
    created_at: GeneratedTimestamp
    expires_at: TimestampOrNull
    organization_id: string | null
    user_code_hash: string | null
    polled_at: TimestampOrNull
    failures: Generated<number>
  }
  sessions: {
    uid: string
    id_hash: string
    payload: Json
    account_id: string | null
    organization_id: string | null
    surplus_in: Generated<string[] | null>
    ip: string | null
    user_agent: string | null
    created_at: GeneratedTimestamp
    signed_in_at: TimestampOrNull
    last_activity_at: GeneratedTimestamp
    idle_expires_at: Timestamp
    absolute_expires_at: Timestamp
    ended_at: TimestampOrNull
    end_reason: string | null
    idle_seconds: number | null
    absolute_seconds: number | null
  }
  session_organizations: { session_uid: string; organization_id: string }
  session_tightenings: {
    id: Generated<string>
    organization_id: string
    idle_seconds: number
    absolute_seconds: number
    changed_at: Generated<Date>
    allowed_cidrs: string[] | null
    max_concurrent: number | null
    changed_by: Generated<unknown>
  }
  organization_roles: {
    organization_id: string
    name: string
    description: Generated<string>
    permissions: Generated<string[]>
    version: GeneratedAlways<number>
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
  }
  organization_domains: {
    id: string
    organization_id: string
    domain: string
    challenge: string
    verified_at: TimestampOrNull
    created_at: GeneratedTimestamp
  }
  webhooks: {
    id: string
    organization_id: string
    url: string
    events: string[]
    sealed_secret: string
    version: GeneratedAlways<number>
    created_at: GeneratedTimestamp
    updated_at: GeneratedTimestamp
    disabled_at: TimestampOrNull
  }
  deliveries: {
    id: GeneratedAlways<string>
    delivery_id: string
    kind: string
    organization_id: string
    client_id: string | null
    webhook_id: string | null
    account_id: string | null
    session_uid: string | null
    sid: string | null
    body: Json
    attempts: Generated<number>
    next_attempt_at: GeneratedTimestamp
    delivered_at: TimestampOrNull
    failed_at: TimestampOrNull
    last_error: string | null
    created_at: GeneratedTimestamp
  }
  idempotency_keys: {
    key_hash: string
    organization_id: string | null
    request_hash: string
    status: number | null
    sealed_answer: string | null
    created_at: GeneratedTimestamp
    expires_at: Timestamp
  }
  audit_events: {
    id: GeneratedAlways<string>
    occurred_at: GeneratedAlways<Date>
    name: string
    outcome: string
    actor_type: string
    actor_id: string | null
    account_id: string | null
    organization_id: string | null
    session_uid: string | null
    client_id: string | null
    ip: string | null
    user_agent: string | null
    request_id: string | null
    details: Json
  }
}
