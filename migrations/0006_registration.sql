-- Apps that register themselves (RFC 7591): tokens that an administrator gives out for it, and what each app keeps its own
-- registration up with (RFC 7592).
create table registration_tokens (
  id text primary key,
  organization_id text not null references organizations(id) on delete cascade,
  name text not null,
  -- Of the token itself, which is nowhere kept.
  token_hash text not null unique,
  -- What may be asked for with it; never changed.
  template jsonb not null,
  max_uses integer not null check (max_uses >= 1),
  uses integer not null default 0 check (uses between 0 and max_uses),
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
)
-- next
create index registration_tokens_organization on registration_tokens (organization_id, id)
-- next
create index registration_tokens_expiry on registration_tokens (expires_at)
-- next
create table client_registrations (
  client_id text primary key references clients(client_id) on delete cascade,
  token_hash text not null unique,
  -- That of the token it was registered with, whatever became of that one.
  template jsonb not null,
  registration_token_id text not null,
  created_at timestamptz not null default now()
)
-- next
select isolate('registration_tokens', 'organization_id = mlpipes_auth.current_organization()')
-- next
-- By the client, so that a client that the operator moves takes it along.
select isolate('client_registrations', 'exists (select from mlpipes_auth.clients c
    where c.client_id = client_registrations.client_id and c.organization_id = mlpipes_auth.current_organization())')
-- next
grant select, insert, update, delete on registration_tokens, client_registrations to mlpipes_auth_app
-- next
grant select (id, organization_id, name, template, max_uses, uses, created_at, expires_at), insert, delete
  on registration_tokens to mlpipes_auth_organization
-- next
grant select (client_id, template, registration_token_id, created_at), insert on client_registrations
  to mlpipes_auth_organization
