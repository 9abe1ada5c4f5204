-- The organisations in which a session was too many when a policy allowed fewer at once, written down by the change itself
-- (sessions/tightening.ts): whatever becomes of the newer ones before housekeeping has been there, it brings this one not back.
alter table sessions add column surplus_in text[]
