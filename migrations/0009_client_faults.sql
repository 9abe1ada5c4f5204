-- What apps were refused for lately, for the people who connect them. Facts of ours, never what was sent as it stands.
create table client_faults (
  client_id text not null references clients(client_id) on delete cascade,
  -- A client has as many rows as there are slots, however often it errs.
  slot smallint not null check (slot between 0 and 49),
  endpoint text not null,
  error text not null,
  -- Out of a closed list: clients/fault-reasons.ts.
  reason text not null,
  facts jsonb not null,
  -- Of everything above: what is equal within an hour is one row that counts.
  digest text not null,
  count bigint not null check (count >= 1),
  first_at timestamptz not null default now(),
  occurred_at timestamptz not null default now(),
  primary key (client_id, slot)
)
-- next
-- By the client, so that a client that the operator moves takes them along.
select isolate('client_faults', 'exists (select from mlpipes_auth.clients c
    where c.client_id = client_faults.client_id and c.organization_id = mlpipes_auth.current_organization())')
-- next
grant select, insert, update, delete on client_faults to mlpipes_auth_app
-- next
grant select on client_faults to mlpipes_auth_organization
