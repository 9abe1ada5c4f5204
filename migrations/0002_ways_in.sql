-- Every way in: mails, links in them, second factors set up by their owner, devices, and how often somebody failed.
create table mail_outbox (
  id bigint generated always as identity primary key,
  template text not null,
  -- Recipient, words and links, sealed: a stolen table signs nobody in. Emptied once sent.
  sealed text,
  account_id text references accounts(id) on delete cascade,
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  sent_at timestamptz,
  -- Given up: a dead letter, for doctor to show.
  failed_at timestamptz,
  -- SMTP reply code or error code only; replies may quote the recipient.
  last_error text,
  created_at timestamptz not null default now()
)
-- next
create index mail_outbox_due on mail_outbox (next_attempt_at) where sent_at is null and failed_at is null
-- next
create table mail_links (
  -- SHA-256 of the token in the link.
  id_hash text primary key,
  kind text not null check (kind in ('sign_in', 'sign_up', 'reset', 'invite', 'email_change', 'not_me')),
  account_id text references accounts(id) on delete cascade,
  organization_id text references organizations(id) on delete cascade,
  -- The sign-in that asked for it; its browser holds the cookie of the interaction.
  interaction_hash text,
  -- Keyed digest of the short code that is typed where the sign-in began.
  code_mac text,
  code_failures integer not null default 0,
  -- What the link will do when it is spent (a new account, an invitation's roles, a new address), sealed.
  sealed text,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
)
-- next
create index mail_links_account on mail_links (account_id, kind) where used_at is null
-- next
create index mail_links_interaction on mail_links (interaction_hash) where interaction_hash is not null
-- next
create index mail_links_expires on mail_links (expires_at)
-- next
create table backup_codes (
  account_id text not null references accounts(id) on delete cascade,
  code_mac text not null,
  created_at timestamptz not null default now(),
  used_at timestamptz,
  primary key (account_id, code_mac)
)
-- next
create table known_devices (
  account_id text not null references accounts(id) on delete cascade,
  -- SHA-256 of the device cookie.
  device_hash text not null,
  user_agent text,
  first_seen_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now(),
  primary key (account_id, device_hash)
)
-- next
create table authenticator_failures (
  account_id text not null references accounts(id) on delete cascade,
  kind text not null check (kind in ('password', 'totp', 'backup_code')),
  -- SP 800-63B-4 §3.2.2: consecutive failures; success clears them, 100 disable the authenticator.
  consecutive integer not null default 0,
  disabled_at timestamptz,
  primary key (account_id, kind)
)
-- next
-- Growing delays: no further try on this key before then.
alter table sign_in_attempts add column not_before timestamptz
-- next
alter table sign_in_flows
  -- The authenticator that is being set up in this sign-in.
  add column totp_id text,
  -- Backup codes were made in this sign-in and the person has not said yet that they are kept.
  add column codes_pending boolean not null default false
-- next
-- An administrator's reset of a lost factor: until then the person may set up a new one with the password alone.
alter table accounts add column factor_reset_until timestamptz
-- next
alter table password_credentials
  -- Must be replaced at the next sign-in (evidence of compromise, or an administrator's doing).
  add column must_change boolean not null default false
-- next
grant select, insert, update, delete on mail_outbox, mail_links, backup_codes, known_devices, authenticator_failures
  to mlpipes_auth_app
