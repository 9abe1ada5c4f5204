-- The organisation that a session was begun for, where a sign-in has moved it to another one since: all that becomes of a
-- session stands in one log (sessions/ending.ts), that of its session.created. Null where it was never moved.
alter table sessions add column begun_for text
