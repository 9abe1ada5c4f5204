-- Sessions that are too many under a change that allows fewer at once, written down by the change itself (sessions/tightening.ts):
-- whatever becomes of the newer ones before housekeeping has been there, it brings none of these back. They go with their end.
create table session_surplus (
  session_uid text not null,
  organization_id text not null,
  primary key (session_uid, organization_id)
)
-- next
select isolate('session_surplus', 'organization_id = mlpipes_auth.current_organization()', addable => 'false')
-- next
grant select, insert, delete on session_surplus to mlpipes_auth_app
-- next
grant select on session_surplus to mlpipes_auth_organization
