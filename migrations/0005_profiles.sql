-- The profile of an app of high assurance (FAPI 2.0 Security Profile), and two secrets of a client at once while one is rotated
-- out.
alter table clients drop constraint clients_profile_check
-- next
alter table clients add constraint clients_profile_check check (profile in ('standard', 'oidc-certification', 'fapi2'))
-- next
alter table clients
  -- The secret of before, which works until then beside the one of now.
  add column previous_secret_digest text,
  add column previous_secret_until timestamptz,
  add constraint clients_previous_secret check ((previous_secret_digest is null) = (previous_secret_until is null))
