-- Device codes (RFC 8628): the short code that a person types is found by its keyed digest, and polling is paced.
alter table oidc_payloads
  -- HMAC of the user code under MLPIPES_AUTH_SECRET: eight letters would be guessed from a plain digest in seconds.
  add column user_code_hash text,
  -- When the device asked for its tokens last.
  add column polled_at timestamptz
-- next
create index oidc_payloads_user_code on oidc_payloads (user_code_hash) where user_code_hash is not null
