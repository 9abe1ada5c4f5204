-- What an administrator of very many people asks for is read out of an index of their organisation. Figures are of an
-- organisation of 50,000 among a million people.
-- Previewing a policy judges every open session: all that it looks at stands in the index that lists them. Saying that a
-- session is used rewrites that entry already; the longer one costs nothing that can be measured (86 and 87 µs a session,
-- 200 at once).
alter table sessions add column amr jsonb generated always as (payload -> 'amr') stored
-- next
drop index sessions_organization
-- next
create index sessions_organization on sessions (organization_id, signed_in_at desc, uid desc)
  include (last_activity_at, idle_expires_at, absolute_expires_at, ip, amr) where ended_at is null
-- next
create index memberships_guests on memberships (organization_id, account_id) where not home
-- next
-- The organisation that the owner is at home in, so that those who have a second factor are counted without asking for each.
alter table totp_credentials add column organization_id text
-- next
update totp_credentials t set organization_id = a.organization_id from accounts a where a.id = t.account_id
-- next
create index totp_credentials_organization on totp_credentials (organization_id, account_id) where confirmed_at is not null
-- next
create function place_totp_credential() returns trigger language plpgsql as $$
begin
  select a.organization_id into new.organization_id from mlpipes_auth.accounts a where a.id = new.account_id;
  return new;
end $$
-- next
create trigger totp_credentials_place before insert or update of confirmed_at on totp_credentials
  for each row execute function place_totp_credential()
-- next
create function move_totp_credentials() returns trigger language plpgsql as $$
begin
  update mlpipes_auth.totp_credentials set organization_id = new.organization_id where account_id = new.id;
  return null;
end $$
-- next
-- The operator may move somebody to another organisation.
create trigger accounts_move_totp after update of organization_id on accounts for each row
  when (old.organization_id is distinct from new.organization_id) execute function move_totp_credentials()
-- next
-- An event that is rare is found by its name, newest first, and not by walking through all that happened since. The three
-- that apps cause by themselves, without a person doing anything, are most of the log and have no entry: such a one is never
-- far down that walk where it is common at all. Other rows pay 10 µs beside 40, written twenty in a statement; alone, in a
-- statement of 340 µs, it cannot be told.
create index audit_events_name on audit_events (organization_id, name, occurred_at, id)
  where name not in ('token.issued', 'token.refreshed', 'session.extended')
-- next
-- Searching people reads an index of theirs row by row, as any text may stand anywhere in a name. So each row is made cheap:
-- the name stands there as it is compared, and the organisation of the request is asked for once and not for each row. A
-- search of nobody takes 24 ms of 46, one of an address 24 of 58. Letters beyond ASCII have no other case where the
-- database's locale is C; such a name stands there as it is written too.
alter table accounts add column searched_name text generated always as
  (case when octet_length(name) = char_length(name) then lower(name) else lower(name) || e'\n' || name end) stored
-- next
drop index accounts_search
-- next
create index accounts_search on accounts (organization_id, email_normalized) include (id, searched_name, disabled_at)
-- next
-- As migration 0004 says it, word for word but for the brackets: what stands in them is read once in a statement.
alter policy organization_reads on accounts using (organization_id = (select mlpipes_auth.current_organization())
  or exists (select from mlpipes_auth.memberships m
    where m.account_id = accounts.id and m.organization_id = mlpipes_auth.current_organization()))
-- next
-- Changes of policies whose stricter limits housekeeping has still to write into open sessions (sessions/tightening.ts).
create table session_tightenings (
  id bigint generated always as identity primary key,
  organization_id text not null references organizations(id) on delete cascade,
  idle_seconds integer not null,
  absolute_seconds integer not null,
  changed_at timestamptz not null default now()
)
-- next
create index session_tightenings_organization on session_tightenings (organization_id)
-- next
select isolate('session_tightenings', 'organization_id = mlpipes_auth.current_organization()', addable => 'false')
-- next
grant select, insert, delete on session_tightenings to mlpipes_auth_app
-- next
grant select on session_tightenings to mlpipes_auth_organization
-- next
drop index session_organizations_organization
-- next
-- In order, for whoever walks through them in batches.
create index session_organizations_organization on session_organizations (organization_id, session_uid)
