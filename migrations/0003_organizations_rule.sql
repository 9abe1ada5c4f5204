-- Organisations rule themselves: roles of their own, versions for those who edit, which organisation a token belongs to, and
-- what is to be told to others when something ends.
create function bump_version() returns trigger language plpgsql as $$
begin
  -- Whoever changes a row makes what others read of it before old, by whatever way they came (RFC 9110 §13.1.1).
  new.version := old.version + 1;
  return new;
end $$
-- next
alter table organizations add column version integer not null default 1
-- next
alter table accounts add column version integer not null default 1
-- next
alter table memberships add column version integer not null default 1
-- next
alter table clients
  add column version integer not null default 1,
  -- What a service client may do at the admin API with a token of its own.
  add column permissions text[] not null default '{}'
-- next
create trigger organizations_version before update on organizations for each row execute function bump_version()
-- next
create trigger accounts_version before update on accounts for each row execute function bump_version()
-- next
create trigger memberships_version before update on memberships for each row execute function bump_version()
-- next
create trigger clients_version before update on clients for each row execute function bump_version()
-- next
create table organization_roles (
  organization_id text not null references organizations(id) on delete cascade,
  name text not null,
  description text not null default '',
  permissions text[] not null default '{}',
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (organization_id, name)
)
-- next
create trigger organization_roles_version before update on organization_roles for each row execute function bump_version()
-- next
create table organization_domains (
  id text primary key,
  organization_id text not null references organizations(id) on delete cascade,
  -- Lower case, as in DNS. Several may claim one; only one can show that it is theirs.
  domain text not null,
  -- What a TXT record of the domain has to say.
  challenge text not null,
  verified_at timestamptz,
  created_at timestamptz not null default now(),
  unique (organization_id, domain)
)
-- next
create unique index organization_domains_verified on organization_domains (domain) where verified_at is not null
-- next
create table webhooks (
  id text primary key,
  organization_id text not null references organizations(id) on delete cascade,
  url text not null,
  events text[] not null,
  -- The key of its signatures, sealed.
  sealed_secret text not null,
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  disabled_at timestamptz
)
-- next
create index webhooks_organization on webhooks (organization_id)
-- next
create trigger webhooks_version before update on webhooks for each row execute function bump_version()
-- next
-- What others are to be told, written in the transaction of the act and sent by a worker of any replica.
create table deliveries (
  id bigint generated always as identity primary key,
  -- Said to the receiver, the same at each try, so that it can tell a repetition.
  delivery_id text not null unique,
  kind text not null check (kind in ('backchannel_logout', 'webhook')),
  organization_id text not null references organizations(id) on delete cascade,
  client_id text references clients(client_id) on delete cascade,
  webhook_id text references webhooks(id) on delete cascade,
  account_id text references accounts(id) on delete cascade,
  session_uid text,
  -- What the client knows the session by.
  sid text,
  -- What happened, without secrets: the cause of a logout, the body of a webhook.
  body jsonb not null,
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  delivered_at timestamptz,
  failed_at timestamptz,
  -- A status code or an error code only; answers may hold anything.
  last_error text,
  created_at timestamptz not null default now(),
  check ((kind = 'webhook') = (webhook_id is not null) and (kind = 'backchannel_logout') = (client_id is not null))
)
-- next
create index deliveries_due on deliveries (next_attempt_at) where delivered_at is null and failed_at is null
-- next
create index deliveries_created on deliveries (created_at)
-- next
create index deliveries_webhook on deliveries (webhook_id, id) where webhook_id is not null
-- next
create table idempotency_keys (
  -- Digest of who asks, for which organisation, and their key.
  key_hash text primary key,
  organization_id text references organizations(id) on delete cascade,
  -- Digest of the request: the same key with another request is a mistake.
  request_hash text not null,
  status integer,
  -- The answer, sealed: it may show a client's secret, this once.
  sealed_answer text,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
)
-- next
create index idempotency_keys_expires on idempotency_keys (expires_at)
-- next
alter table sign_in_flows
  -- The organisation that somebody of several chose in this sign-in.
  add column organization_id text references organizations(id) on delete cascade
-- next
alter table oidc_payloads
  -- The organisation that a person's code, token or grant was issued in.
  add column organization_id text
-- next
-- Organisations beside the one of the sign-in whose apps a session was used for: their limits hold it too.
create table session_organizations (
  session_uid text not null references sessions(uid) on delete cascade,
  organization_id text not null references organizations(id) on delete cascade,
  primary key (session_uid, organization_id)
)
-- next
alter table sessions
  -- The strictest limits of all organisations that the session was used for. Null: nobody signed in, or of before.
  add column idle_seconds integer,
  add column absolute_seconds integer
-- next
create index session_organizations_organization on session_organizations (organization_id)
-- next
create index sessions_organization on sessions (organization_id, signed_in_at desc, uid desc) where ended_at is null
-- next
-- For the sweeper: whichever limit comes first.
create index sessions_ends on sessions (least(idle_expires_at, absolute_expires_at)) where ended_at is null
-- next
-- An id has 256 random bits; that it stands once needs no constraint. With one, `on conflict (uid)` fails now and then when
-- several requests of a browser write its session at the same moment: only the index that it names is settled in peace.
alter table sessions drop constraint sessions_id_hash_key
-- next
create index sessions_id on sessions (id_hash)
-- next
create index memberships_organization on memberships (organization_id, account_id)
-- next
-- Lists of people, in their order.
create index accounts_list on accounts (organization_id, email_normalized)
-- next
create index clients_organization on clients (organization_id)
-- next
grant select, insert, update, delete on organization_roles, organization_domains, webhooks, deliveries, idempotency_keys,
  session_organizations to mlpipes_auth_app
