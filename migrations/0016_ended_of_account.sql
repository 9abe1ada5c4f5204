-- Which of a person's sessions are too many under a change is asked of those that were there at the change (sessions/live.ts),
-- also of those that have ended since.
create index sessions_of_account on sessions (account_id, ended_at)
-- next
drop index sessions_account
