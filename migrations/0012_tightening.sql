-- A policy that got stricter holds open sessions from its commit on, by one row that every read asks for
-- (sessions/tightening.ts): what it says of networks stands there too, and who changed it, for the audit rows that follow.
alter table session_tightenings add column allowed_cidrs cidr[]
-- next
alter table session_tightenings add column changed_by jsonb not null default '{"type":"system"}'
-- next
-- Nearly always empty: an index of it costs every read more than it saves any.
drop index session_tightenings_organization
-- next
-- Nothing asks by the absolute limit alone, and every ending wrote an entry.
drop index sessions_expires
