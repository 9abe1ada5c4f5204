-- Searching people: all that a search compares stands in the index, so that one which matches nobody reads the index of
-- its organisation and no rows. It orders lists as the index did whose place it takes.
create index accounts_search on accounts (organization_id, email_normalized) include (id, name, disabled_at)
-- next
drop index accounts_list
-- next
drop index accounts_organization
