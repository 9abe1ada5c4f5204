-- Isolation: a second role that sees the rows of one organisation at a time, whatever a statement forgets to say.
-- docs/decisions/0005-row-level-security.md says what this protects against, and what it does not.
do $$ begin
  if not exists (select from pg_roles where rolname = 'mlpipes_auth_organization') then
    create role mlpipes_auth_organization nologin;
  end if;
exception when duplicate_object or unique_violation then null;
end $$
-- next
do $$ begin
  -- SET ROLE asks what the login may become. Where the server can tell the two apart, the app role may become the other
  -- and has nothing from it meanwhile: neither rights nor policies.
  if not pg_has_role('mlpipes_auth_app', 'mlpipes_auth_organization', 'member') then
    execute 'grant mlpipes_auth_organization to mlpipes_auth_app'
      || case when current_setting('server_version_num')::integer >= 160000 then ' with inherit false, set true' else '' end;
  end if;
exception when unique_violation then null;
end $$
-- next
grant usage on schema mlpipes_auth to mlpipes_auth_organization
-- next
-- Null, which equals nothing, unless the transaction said for which organisation it works. A single expression, so that
-- the planner puts it in place of the call and can look it up in an index.
create function current_organization() returns text language sql stable parallel safe
  return nullif(pg_catalog.current_setting('mlpipes_auth.organization', true), '')
-- next
create function isolate(table_name text, visible text, changeable text default null, addable text default null)
  returns void language plpgsql as $$
begin
  execute format('alter table mlpipes_auth.%I enable row level security', table_name);
  execute format('alter table mlpipes_auth.%I force row level security', table_name);
  -- Without a condition, so that they cost nothing: the protocol's statements go across organisations.
  execute format('create policy app_all on mlpipes_auth.%I to mlpipes_auth_app using (true) with check (true)', table_name);
  -- FORCE holds the owner too, who migrates.
  execute format('create policy owner_all on mlpipes_auth.%I to current_user using (true) with check (true)', table_name);
  execute format('create policy organization_reads on mlpipes_auth.%I for select to mlpipes_auth_organization using (%s)',
    table_name, visible);
  execute format('create policy organization_adds on mlpipes_auth.%I for insert to mlpipes_auth_organization with check (%s)',
    table_name, coalesce(addable, changeable, visible));
  execute format('create policy organization_changes on mlpipes_auth.%I for update to mlpipes_auth_organization
    using (%s) with check (%2$s)', table_name, coalesce(changeable, visible));
  execute format('create policy organization_removes on mlpipes_auth.%I for delete to mlpipes_auth_organization using (%s)',
    table_name, coalesce(changeable, visible));
end $$
-- next
do $$
declare
  here constant text := 'organization_id = mlpipes_auth.current_organization()';
  -- Of the account that a row belongs to. Guests are managed where they are at home, and nowhere else.
  at_home constant text := 'exists (select from mlpipes_auth.accounts a
    where a.id = account_id and a.organization_id = mlpipes_auth.current_organization())';
  client_here constant text := 'exists (select from mlpipes_auth.clients c
    where c.client_id = %I.client_id and c.organization_id = mlpipes_auth.current_organization())';
  never constant text := 'false';
begin
  perform mlpipes_auth.isolate('organizations', 'id = mlpipes_auth.current_organization()', addable => never);
  -- What others ask through accounts ends at memberships, whose reading policy asks nothing further: no circle.
  perform mlpipes_auth.isolate('accounts', here || ' or exists (select from mlpipes_auth.memberships m
    where m.account_id = accounts.id and m.organization_id = mlpipes_auth.current_organization())', changeable => here);
  -- A guest comes by accepting an invitation, never by an organisation that knows an id.
  perform mlpipes_auth.isolate('memberships', here, addable => here || ' and ' || at_home);
  perform mlpipes_auth.isolate(name, at_home) from unnest(array['password_credentials', 'password_history',
    'totp_credentials', 'backup_codes', 'known_devices', 'authenticator_failures']) as name;
  perform mlpipes_auth.isolate('mail_links', here || ' or ' || at_home,
    addable => here || ' and (account_id is null or ' || at_home || ')');
  perform mlpipes_auth.isolate('mail_outbox', at_home,
    addable => 'mlpipes_auth.current_organization() is not null and (account_id is null
      or exists (select from mlpipes_auth.accounts a where a.id = account_id))');
  perform mlpipes_auth.isolate('clients', here);
  -- What a person does at an app is the affair of their organisation and of the app's. The provider alone makes such rows.
  perform mlpipes_auth.isolate('consents', at_home || ' or ' || format(client_here, 'consents'), addable => never);
  perform mlpipes_auth.isolate('oidc_payloads', here || ' or ' || at_home
    || ' or account_id is null and ' || format(client_here, 'oidc_payloads'), addable => never);
  perform mlpipes_auth.isolate(name, here || ' or ' || at_home, addable => never)
    from unnest(array['sessions', 'sign_in_flows']) as name;
  perform mlpipes_auth.isolate('session_organizations', here || ' or exists (select from mlpipes_auth.sessions s
    where s.uid = session_uid)', addable => never);
  perform mlpipes_auth.isolate(name, here) from unnest(array['organization_roles', 'organization_domains', 'webhooks',
    'deliveries', 'idempotency_keys']) as name;
  perform mlpipes_auth.isolate('audit_events', here, changeable => never, addable => here);
end $$
-- next
-- Who asks the parent is held to the parent's policies alone; who asks a partition finds it closed.
create function close_audit_partition(partition_name text) returns void language plpgsql as $$
begin
  execute format('alter table mlpipes_auth.%I enable row level security', partition_name);
  execute format('alter table mlpipes_auth.%I force row level security', partition_name);
  execute format('create policy owner_all on mlpipes_auth.%I to current_user using (true) with check (true)', partition_name);
end $$
-- next
create or replace function protect_audit_partition(partition_name text) returns void language plpgsql as $$
begin
  -- Row triggers reach partitions by themselves; a truncate trigger does not, and neither reaches a
  -- session that sets session_replication_role unless it is ENABLE ALWAYS (F80).
  execute format('create trigger audit_events_no_truncate before truncate on mlpipes_auth.%I
    for each statement execute function mlpipes_auth.refuse_audit_change()', partition_name);
  execute format('alter table mlpipes_auth.%I enable always trigger audit_events_no_truncate', partition_name);
  execute format('alter table mlpipes_auth.%I enable always trigger audit_events_no_change', partition_name);
  perform mlpipes_auth.close_audit_partition(partition_name);
end $$
-- next
select close_audit_partition(c.relname) from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'mlpipes_auth.audit_events'::regclass
-- next
revoke all on function isolate(text, text, text, text), close_audit_partition(text), current_organization() from public
-- next
grant execute on function current_organization() to mlpipes_auth_organization
-- next
-- Rights are what the administration of one organisation needs. Hashes of passwords and sealed authenticators are not.
grant select on organizations, accounts, memberships, authenticator_failures, clients, consents, oidc_payloads, sessions,
  session_organizations, organization_roles, organization_domains, webhooks, deliveries, idempotency_keys,
  audit_events to mlpipes_auth_organization
-- next
grant select (account_id, changed_at, must_change), update (must_change) on password_credentials to mlpipes_auth_organization
-- next
grant select (id, account_id, name, confirmed_at, created_at), delete on totp_credentials to mlpipes_auth_organization
-- next
grant select (account_id, created_at, used_at), delete on backup_codes to mlpipes_auth_organization
-- next
grant update (name, policy, updated_at) on organizations to mlpipes_auth_organization
-- next
grant insert, update (email, email_normalized, email_verified_at, name, metadata, updated_at, disabled_at, factor_reset_until)
  on accounts to mlpipes_auth_organization
-- next
grant insert, update (roles, updated_at), delete on memberships to mlpipes_auth_organization
-- next
grant select (id_hash, kind, account_id, organization_id, interaction_hash, sealed, created_at, expires_at, used_at), insert,
  update (used_at) on mail_links to mlpipes_auth_organization
-- next
grant insert on mail_outbox to mlpipes_auth_organization
-- next
grant insert, update (attempts, next_attempt_at, delivered_at, failed_at, last_error) on deliveries to mlpipes_auth_organization
-- next
grant delete on authenticator_failures, consents, oidc_payloads to mlpipes_auth_organization
-- next
grant insert, update, delete on clients, organization_roles, organization_domains, webhooks to mlpipes_auth_organization
-- next
grant insert, update on idempotency_keys to mlpipes_auth_organization
-- next
-- As for the app role: neither the id nor the time of an audit event is anybody's to choose (F80).
grant insert (name, outcome, actor_type, actor_id, account_id, organization_id, session_uid, client_id, ip, user_agent,
  request_id, details) on audit_events to mlpipes_auth_organization
