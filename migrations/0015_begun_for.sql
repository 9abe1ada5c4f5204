-- The organisation that a session was begun for, where a sign-in has moved it to another one since: all that becomes of a
-- session stands in one log (sessions/ending.ts), that of its session.created. Null until the session is saved a second
-- time; organization_id says it till then.
alter table sessions add column begun_for text
