-- The ground: who exists, what they hold, what was done.
-- Statements are separated by a line that says only "-- next", because PGlite runs one statement at a time.
-- Everything lives in the schema mlpipes_auth and belongs to the owner role; the app role gets what is granted below.
do $$ begin
  if not exists (select from pg_roles where rolname = 'mlpipes_auth_app') then
    create role mlpipes_auth_app nologin;
  end if;
exception when duplicate_object or unique_violation then null;
end $$
-- next
do $$ begin
  -- A temporary table could shadow a real one for the app role (F82).
  execute format('revoke temporary on database %I from public', current_database());
end $$
-- next
revoke create on schema public from public
-- next
grant usage on schema mlpipes_auth to mlpipes_auth_app
-- next
create table organizations (
  id text primary key,
  slug text not null unique,
  name text not null,
  policy jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  closed_at timestamptz
)
-- next
create table accounts (
  id text primary key,
  email text not null,
  -- One account and one attempt counter whatever the spelling (F37): NFKC, lower case, set by the application.
  email_normalized text not null unique,
  email_verified_at timestamptz,
  name text not null,
  organization_id text not null references organizations(id),
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  disabled_at timestamptz
)
-- next
create index accounts_organization on accounts (organization_id)
-- next
create table memberships (
  account_id text not null references accounts(id) on delete cascade,
  organization_id text not null references organizations(id),
  -- The home organisation manages the account; in others the person is a guest.
  home boolean not null,
  roles text[] not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (account_id, organization_id)
)
-- next
create unique index memberships_one_home on memberships (account_id) where home
-- next
create table password_credentials (
  account_id text primary key references accounts(id) on delete cascade,
  hash text not null,
  changed_at timestamptz not null default now()
)
-- next
create table password_history (
  id bigint generated always as identity primary key,
  account_id text not null references accounts(id) on delete cascade,
  hash text not null,
  retired_at timestamptz not null default now()
)
-- next
create index password_history_account on password_history (account_id, retired_at)
-- next
create table totp_credentials (
  id text primary key,
  account_id text not null references accounts(id) on delete cascade,
  name text not null,
  sealed_secret text not null,
  -- RFC 6238 §5.2: a step is accepted once.
  last_step bigint not null default 0,
  confirmed_at timestamptz,
  created_at timestamptz not null default now()
)
-- next
create index totp_credentials_account on totp_credentials (account_id)
-- next
create table sign_in_attempts (
  -- HMAC of what is counted: an account, an unknown e-mail, an address.
  key text primary key,
  failures integer not null default 0,
  window_ends_at timestamptz not null
)
-- next
create table sign_in_flows (
  interaction_hash text primary key,
  version integer not null default 0,
  account_id text references accounts(id) on delete cascade,
  proved text[] not null default '{}',
  expires_at timestamptz not null
)
-- next
create index sign_in_flows_expires on sign_in_flows (expires_at)
-- next
create table signing_keys (
  kid text primary key,
  alg text not null,
  public_jwk jsonb not null,
  sealed_private_jwk text not null,
  created_at timestamptz not null default now(),
  -- What a key does is a function of time alone, so that every replica agrees without talking to another.
  promote_at timestamptz not null,
  retire_at timestamptz
)
-- next
create table clients (
  client_id text primary key,
  organization_id text not null references organizations(id),
  name text not null,
  secret_digest text,
  metadata jsonb not null,
  introspection text not null default 'none' check (introspection in ('none', 'own', 'organization')),
  first_party boolean not null default false,
  profile text not null default 'standard' check (profile in ('standard', 'oidc-certification')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  disabled_at timestamptz
)
-- next
create table consents (
  account_id text not null references accounts(id) on delete cascade,
  client_id text not null references clients(client_id) on delete cascade,
  scopes text[] not null,
  granted_at timestamptz not null default now(),
  primary key (account_id, client_id)
)
-- next
create table oidc_payloads (
  model text not null,
  id_hash text not null,
  payload jsonb not null,
  grant_id text,
  account_id text,
  client_id text,
  consumed_at timestamptz,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  primary key (model, id_hash)
)
-- next
create index oidc_payloads_grant on oidc_payloads (grant_id) where grant_id is not null
-- next
create index oidc_payloads_account on oidc_payloads (account_id) where account_id is not null
-- next
create index oidc_payloads_expires on oidc_payloads (expires_at)
-- next
alter table oidc_payloads set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)
-- next
create table sessions (
  uid text primary key,
  id_hash text not null unique,
  payload jsonb not null,
  account_id text references accounts(id) on delete cascade,
  organization_id text references organizations(id),
  ip inet,
  user_agent text,
  created_at timestamptz not null default now(),
  signed_in_at timestamptz,
  last_activity_at timestamptz not null default now(),
  idle_expires_at timestamptz not null,
  absolute_expires_at timestamptz not null,
  ended_at timestamptz,
  end_reason text
)
-- next
create index sessions_account on sessions (account_id) where ended_at is null
-- next
create index sessions_expires on sessions (absolute_expires_at)
-- next
create table audit_events (
  id bigint generated always as identity,
  occurred_at timestamptz not null default now(),
  name text not null,
  outcome text not null check (outcome in ('success', 'failure')),
  actor_type text not null check (actor_type in ('account', 'client', 'operator', 'system', 'anonymous')),
  actor_id text,
  account_id text,
  organization_id text,
  session_uid text,
  client_id text,
  ip inet,
  user_agent text,
  request_id text,
  details jsonb not null default '{}',
  primary key (occurred_at, id)
) partition by range (occurred_at)
-- next
create index audit_events_organization on audit_events (organization_id, occurred_at)
-- next
create index audit_events_account on audit_events (account_id, occurred_at)
-- next
create function refuse_audit_change() returns trigger language plpgsql as $$
begin
  raise exception 'audit_events is append-only' using errcode = 'insufficient_privilege';
end $$
-- next
create trigger audit_events_no_change before update or delete on audit_events
  for each row execute function refuse_audit_change()
-- next
create trigger audit_events_no_truncate before truncate on audit_events
  for each statement execute function refuse_audit_change()
-- next
create table audit_events_default partition of audit_events default
-- next
create function protect_audit_partition(partition_name text) returns void language plpgsql as $$
begin
  -- Row triggers reach partitions by themselves; a truncate trigger does not, and neither reaches a
  -- session that sets session_replication_role unless it is ENABLE ALWAYS (F80).
  execute format('create trigger audit_events_no_truncate before truncate on mlpipes_auth.%I
    for each statement execute function mlpipes_auth.refuse_audit_change()', partition_name);
  execute format('alter table mlpipes_auth.%I enable always trigger audit_events_no_truncate', partition_name);
  execute format('alter table mlpipes_auth.%I enable always trigger audit_events_no_change', partition_name);
end $$
-- next
alter table audit_events enable always trigger audit_events_no_change
-- next
alter table audit_events enable always trigger audit_events_no_truncate
-- next
select protect_audit_partition('audit_events_default')
-- next
create function ensure_audit_partitions() returns integer language plpgsql security definer
  set search_path = mlpipes_auth, pg_catalog, pg_temp as $$
declare
  month_start timestamptz;
  partition_name text;
  made integer := 0;
begin
  -- One replica at a time; the others find the partitions there.
  perform pg_advisory_xact_lock(hashtext('mlpipes_auth.audit_partitions'));
  for offset_months in 0..2 loop
    month_start := date_trunc('month', now() at time zone 'UTC' + make_interval(months => offset_months)) at time zone 'UTC';
    partition_name := 'audit_events_' || to_char(month_start at time zone 'UTC', 'YYYYMM');
    if to_regclass('mlpipes_auth.' || partition_name) is null then
      execute format('create table mlpipes_auth.%I partition of mlpipes_auth.audit_events for values from (%L) to (%L)',
        partition_name, month_start, (month_start at time zone 'UTC' + interval '1 month') at time zone 'UTC');
      perform mlpipes_auth.protect_audit_partition(partition_name);
      made := made + 1;
    end if;
  end loop;
  return made;
end $$
-- next
revoke all on function ensure_audit_partitions() from public
-- next
revoke all on function protect_audit_partition(text) from public
-- next
grant execute on function ensure_audit_partitions() to mlpipes_auth_app
-- next
select ensure_audit_partitions()
-- next
grant select, insert, update, delete on organizations, accounts, memberships, password_credentials, password_history,
  totp_credentials, sign_in_attempts, sign_in_flows, signing_keys, clients, consents, oidc_payloads, sessions
  to mlpipes_auth_app
-- next
grant select on audit_events to mlpipes_auth_app
-- next
-- Neither the id nor the time of an audit event is the application's to choose (F80).
grant insert (name, outcome, actor_type, actor_id, account_id, organization_id, session_uid, client_id, ip, user_agent,
  request_id, details) on audit_events to mlpipes_auth_app
