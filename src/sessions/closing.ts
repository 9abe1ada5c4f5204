// A closed organisation: every read refuses its people and apps from the moment it is marked closed. What is here makes that
// last, so that nothing comes back when it is opened again, in steps that lock little and not for long.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, Origin } from '../audit/events.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { tellClients } from '../deliveries/logouts.ts'
import { endingEvents, endSessionsWhere, ringIfTold } from './ending.ts'
import { isPersonal } from './tokens.ts'

const sessionsPerStep = 500
const tokensPerStep = 2_000

// Of its people wherever they signed in, and of guests who signed in there.
const endSome = endSessionsWhere(`uid in (select uid from (
      select s.uid from mlpipes_auth.sessions s where s.ended_at is null and s.organization_id = $2
      union select s.uid from mlpipes_auth.accounts a join mlpipes_auth.sessions s on s.account_id = a.id
      where a.organization_id = $2 and s.ended_at is null
    ) as its limit $3::integer)`)
const dropSome = `delete from mlpipes_auth.oidc_payloads where ctid = any(array(
      select p.ctid from mlpipes_auth.accounts a join mlpipes_auth.oidc_payloads p on p.account_id = a.id
      where a.organization_id = $1 and (${isPersonal} or model in ('Grant', 'Interaction')) limit $2::integer for update of p))
    returning id_hash`
// Of its apps, whoever's it is.
const dropOfClients = `delete from mlpipes_auth.oidc_payloads where (model, id_hash) in (
      select p.model, p.id_hash from mlpipes_auth.clients c join mlpipes_auth.oidc_payloads p on p.client_id = c.client_id
      where c.organization_id = $1 limit $2::integer)
    returning id_hash`
// What guests were given there with apps of others, who hear of it where the session goes on: what they keep of it is for a
// closed organisation. Found by way of the places that people have here, as tokens have no index of their own for it
// (migration 0010 says why). Its own apps are forgotten by then.
const dropOfGuests = `with gone as (
    delete from mlpipes_auth.oidc_payloads where (model, id_hash) in (
      select p.model, p.id_hash from mlpipes_auth.memberships m join mlpipes_auth.oidc_payloads p on p.account_id = m.account_id
      where m.organization_id = $1 and not m.home and p.organization_id = $1 limit $2::integer)
    returning client_id, payload ->> 'sessionUid' as session_uid
  ), parted as (
    select s.uid, s.account_id, s.payload, 'organization_closed' as cause, held.client_id
    from (select distinct client_id, session_uid from gone) as held join mlpipes_auth.sessions s on s.uid = held.session_uid
    where s.ended_at is null
  ), ${tellClients}
  select (select count(*) from gone)::integer as tokens, (select count(*) from told)::integer as told`
// Sessions of others that go on, which were used for its apps: the session forgets the app, and in the same statement the app
// hears of it, or the person would stay signed in there. What is forgotten is not found again, so each hears once. The apps
// cannot act any more, but they can be told: whom the outbox tells is not asked whether their organisation is closed.
const apps = 'select client_id from mlpipes_auth.clients where organization_id = $1'
const partFromApps = `with page as materialized (
    select s.uid, s.account_id, s.payload from mlpipes_auth.session_organizations x
      join mlpipes_auth.sessions s on s.uid = x.session_uid
    where x.organization_id = $1 and s.ended_at is null and jsonb_exists_any(s.payload -> 'authorizations', array(${apps}))
    order by x.session_uid limit $2::integer for update of s
  ), forgotten as (
    update mlpipes_auth.sessions s
      set payload = jsonb_set(s.payload, '{authorizations}', (s.payload -> 'authorizations') - array(${apps}))
    from page where s.uid = page.uid returning s.uid
  ), parted as (
    select page.uid, page.account_id, page.payload, 'organization_closed' as cause, own.client_id
    from page cross join lateral (${apps} and page.payload -> 'authorizations' -> client_id is not null) as own
  ), ${tellClients}
  select (select count(*) from forgotten)::integer as sessions, (select count(*) from told)::integer as told`
// Links that let somebody in, or into it. "This was not me" stays: it only ends things.
const endLinks = `update mlpipes_auth.mail_links set used_at = now() where used_at is null and kind <> 'not_me'
    and (organization_id = $1 or account_id in (select id from mlpipes_auth.accounts where organization_id = $1))`
const dropFlows = `delete from mlpipes_auth.sign_in_flows
    where organization_id = $1 or account_id in (select id from mlpipes_auth.accounts where organization_id = $1)`

export interface Closing {
  readonly organizationId: string
  readonly actor: Actor
  readonly origin: Origin
}

export interface ClosingStep {
  readonly sessions: number
  readonly tokens: number
  /** False when there may be more: `finishClosing` does the rest, as does housekeeping within seconds. */
  readonly isDone: boolean
}

/** One step of ending what the people and apps of a closed organisation have. Belongs into the transaction that closes it. */
export async function endOrganizationAccess(tx: Tx, { organizationId, actor, origin }: Closing): Promise<ClosingStep> {
  await runIn(tx, dropFlows, [organizationId])
  await runIn(tx, endLinks, [organizationId])
  const cause = 'organization_closed' as const
  const sessions = await runIn(tx, endSome, [cause, organizationId, sessionsPerStep])
  const dropped = (await runIn(tx, dropSome, [organizationId, tokensPerStep])).length
  const [parted] = await runIn(tx, partFromApps, [organizationId, sessionsPerStep])
  const areParted =
    sessions.length < sessionsPerStep && dropped < tokensPerStep && Number(parted?.['sessions']) < sessionsPerStep
  const [ofGuests] = areParted ? await runIn(tx, dropOfGuests, [organizationId, tokensPerStep]) : []
  const guests = Number(ofGuests?.['tokens'] ?? 0)
  const isLast = areParted && guests < tokensPerStep
  const ofClients = isLast ? (await runIn(tx, dropOfClients, [organizationId, tokensPerStep])).length : 0
  const isDone = isLast && ofClients < tokensPerStep
  const tokens = dropped + guests + ofClients
  const ended = { sessions: sessions.length, tokens }
  if (sessions.length + tokens > 0)
    await appendAudit(tx, ...endingEvents(sessions, tokens, { actor, origin, organizationId, cause }))
  ringIfTold(tx, [...sessions, parted, ofGuests])
  return { ...ended, isDone }
}

/** Ends all that is left. */
export async function finishClosing(database: Database, organizationId: string): Promise<void> {
  const closing: Closing = { organizationId, actor: { type: 'system' }, origin: {} }
  for (;;) {
    const { isDone } = await transact(database.kysely, (tx) => endOrganizationAccess(tx, closing))
    if (isDone) return
  }
}

const holdClosed = 'select id from mlpipes_auth.organizations where id = $1 and closed_at is not null for share'

/**
 * The same for as long as it is closed. To be awaited before an organisation is opened again, or what was not reached would
 * come back. Whoever opens it waits for the step under way, and no other follows.
 */
export async function finishWhileClosed(database: Database, organizationId: string): Promise<void> {
  const closing: Closing = { organizationId, actor: { type: 'system' }, origin: {} }
  const step = (tx: Tx) =>
    runIn(tx, holdClosed, [organizationId]).then(
      async ([closed]) => closed === undefined || (await endOrganizationAccess(tx, closing)).isDone,
    )
  while (!(await transact(database.kysely, step)));
}

// What its apps have is dropped last.
const findUnfinished = `select o.id from mlpipes_auth.organizations o where o.closed_at is not null
    and (exists (select from mlpipes_auth.sessions s where s.organization_id = o.id and s.ended_at is null)
      or exists (select from mlpipes_auth.clients c join mlpipes_auth.oidc_payloads p on p.client_id = c.client_id
        where c.organization_id = o.id)) limit 100`

/** Goes on with closings whose process ended in the middle. */
export async function finishClosings(database: Database): Promise<void> {
  for (const row of await database.run(findUnfinished, [])) await finishWhileClosed(database, String(row['id']))
}
