-- Ways to rows that are asked for often.
-- The worker of deliveries goes from receiver to receiver (deliveries/outbox.ts), so that one that has very many waiting
-- costs the look for the others nothing.
create index deliveries_waiting on deliveries (coalesce(client_id, webhook_id), next_attempt_at, id)
  where delivered_at is null and failed_at is null
-- next
drop index deliveries_due
-- next
-- A hash says which row it is, and introspection does not know the kind of what it asks about: with the hash first, one way
-- down the index finds it, where it took one for each of three kinds (a tenth more introspections a second among a million).
alter table oidc_payloads drop constraint oidc_payloads_pkey, add primary key (id_hash, model)
-- next
-- Consent pages that are open for an app were found by their kind, which does not come first any more.
create index oidc_payloads_interactions on oidc_payloads ((payload -> 'params' ->> 'client_id')) where model = 'Interaction'
-- next
-- What a foreign key names is looked up and locked for every delivery: more than half of what it costs to write one where a
-- policy ends tens of thousands of sessions. What waits for an app that is removed is given up with it, and an app is to hear
-- that somebody's session is over also when the account is gone by then. Last, as it locks the three tables.
alter table deliveries drop constraint deliveries_organization_id_fkey, drop constraint deliveries_account_id_fkey,
  drop constraint deliveries_client_id_fkey
-- next
-- How many sessions at once somebody may have since a change (sessions/live.ts), where it allows fewer.
alter table session_tightenings add column max_concurrent integer
