// Ending what an app has, rather than what an account has: a consent withdrawn, a client switched off, a place in an
// organisation that ended. Sessions of the same person elsewhere go on.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, Origin } from '../audit/events.ts'
import { runIn, type Tx } from '../db/database.ts'
import { tellClients } from '../deliveries/logouts.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { type Ended, endingEvents, endSessionsWhere, ringIfTold } from './ending.ts'
import { isPersonal } from './tokens.ts'

interface By {
  readonly actor: Actor
  readonly origin: Origin
}

const dropConsent = `delete from mlpipes_auth.consents where account_id = $1 and client_id = $2 returning client_id`
const dropGrants = `delete from mlpipes_auth.oidc_payloads where account_id = $1 and client_id = $2 and model = 'Grant'
    returning id_hash`
const dropTokens = `delete from mlpipes_auth.oidc_payloads where account_id = $1 and client_id = $2 and ${isPersonal}
    returning id_hash`
const tellClient = `with parted as (
    select uid, account_id, payload, 'consent_withdrawn' as cause, $2::text as client_id from mlpipes_auth.sessions
    where account_id = $1 and ended_at is null
  ), ${tellClients}
  select count(*)::integer as told from told`

export interface Withdrawal {
  readonly accountId: string
  readonly clientId: string
}

/**
 * Takes everything from an app that it has of an account, and tells it. The audit row is the caller's.
 * @returns whether it had anything
 */
export async function endConsent(tx: Tx, { accountId, clientId }: Withdrawal): Promise<boolean> {
  // In the order in which a token request locks them, the code or refresh token before the grant; and once more for
  // what such a request issued while it was waited for. After the grants are gone, none can issue.
  const values = [accountId, clientId]
  let gone = 0
  for (const statement of [dropConsent, dropTokens, dropGrants, dropTokens])
    gone += (await runIn(tx, statement, values)).length
  if (gone === 0) return false
  ringIfTold(tx, await runIn(tx, tellClient, values))
  return true
}

const dropOfClient = `with gone as (
    delete from mlpipes_auth.oidc_payloads where client_id = $1 and (${isPersonal} or model in ('ClientCredentials', 'Grant'))
    returning model
  )
  select count(*)::integer as tokens from gone where model <> 'Grant'`

/** Ends all tokens and grants of a client that was switched off in this transaction. */
export async function endClientAccess(
  tx: Tx,
  { clientId, organizationId, actor, origin }: By & { readonly clientId: string; readonly organizationId: string },
): Promise<Ended> {
  // Twice, as with an account: what was issued by requests that the first waited for.
  const rows = [...(await runIn(tx, dropOfClient, [clientId])), ...(await runIn(tx, dropOfClient, [clientId]))]
  const ended = { sessions: 0, tokens: rows.reduce((sum, row) => sum + Number(row['tokens']), 0) }
  const common = { outcome: 'success' as const, actor, organizationId, clientId, origin }
  await appendAudit(tx, { ...common, name: 'access.ended', details: { cause: 'client_disabled', ...ended } })
  await enqueueWebhooks(tx, organizationId, { type: 'client.disabled', data: { clientId } })
  return ended
}

const settle = 'select id from mlpipes_auth.accounts where id = $1 for update'
const dropFlows = 'delete from mlpipes_auth.sign_in_flows where account_id = $1 and organization_id = $2'
// A grant says nothing about the organisation, and tokens of before neither: there the app's counts. Where the session goes
// on, apps of others hear that they lost what they had for this organisation.
const dropOfMember = `with gone as (
    delete from mlpipes_auth.oidc_payloads where account_id = $1 and (${isPersonal} or model = 'Grant')
      and (organization_id = $2 or organization_id is null
        and client_id in (select client_id from mlpipes_auth.clients where organization_id = $2))
    returning model, client_id, payload ->> 'sessionUid' as session_uid
  ), parted as (
    select s.uid, s.account_id, s.payload, 'membership_ended' as cause, held.client_id
    from (select distinct client_id, session_uid from gone) as held join mlpipes_auth.sessions s on s.uid = held.session_uid
    where s.ended_at is null and s.organization_id is distinct from $2
      and held.client_id not in (select client_id from mlpipes_auth.clients where organization_id = $2)
  ), ${tellClients}
  select (select count(*) from gone where model <> 'Grant')::integer as tokens, (select count(*) from told)::integer as told`
const endSessionsThere = endSessionsWhere('account_id = $2 and organization_id = $3')
// In sessions of another organisation that go on: the apps of this one.
const tellClientsThere = `with parted as (
    select s.uid, s.account_id, s.payload, 'membership_ended' as cause, c.client_id
    from mlpipes_auth.sessions s join mlpipes_auth.clients c on s.payload -> 'authorizations' -> c.client_id is not null
    where s.account_id = $1 and s.ended_at is null and c.organization_id = $2
  ), ${tellClients}
  select count(*)::integer as told from told`

/** Ends what somebody has in an organisation that they left in this transaction: its sessions, and tokens of it anywhere. */
export async function endMembershipAccess(
  tx: Tx,
  { accountId, organizationId, actor, origin }: By & { readonly accountId: string; readonly organizationId: string },
): Promise<Ended> {
  const there = [accountId, organizationId]
  await runIn(tx, settle, [accountId])
  await runIn(tx, dropFlows, there)
  const before = await runIn(tx, dropOfMember, there)
  const sessions = await runIn(tx, endSessionsThere, ['membership_ended', ...there])
  const told = await runIn(tx, tellClientsThere, there)
  const meanwhile = await runIn(tx, dropOfMember, there)
  const dropped = [...before, ...meanwhile]
  const tokens = dropped.reduce((sum, row) => sum + Number(row['tokens']), 0)
  const by = { accountId, actor, origin, organizationId, cause: 'membership_ended' as const }
  await appendAudit(tx, ...endingEvents(sessions, tokens, by))
  await enqueueWebhooks(tx, organizationId, { type: 'membership.ended', data: { accountId } })
  ringIfTold(tx, [...sessions, ...told, ...dropped])
  return { sessions: sessions.length, tokens }
}
