// Who is to hear of an ending: the clients that took part in a session, by back-channel logout (OpenID Connect Back-Channel
// Logout 1.0 §2). Written in the statement that ends it, so that neither is ever without the other.

// A client took part when the provider gave it a `sid`, which it does with the grant. Each is looked up: the planner, who
// cannot know how few took part, would read all clients for every session.
const participants = `parted p cross join lateral jsonb_each(coalesce(p.payload -> 'authorizations', '{}'::jsonb)) as part (client_id, value)
      cross join lateral (select client_id, organization_id, disabled_at, metadata from mlpipes_auth.clients
        where clients.client_id = part.client_id limit 1) as c
    where p.account_id is not null and (p.client_id is null or p.client_id = c.client_id)
      and part.value ->> 'sid' is not null and c.disabled_at is null and c.metadata ->> 'backchannel_logout_uri' is not null
      and (c.metadata -> 'backchannel_logout_causes' is null
        or c.metadata -> 'backchannel_logout_causes' @> to_jsonb(p.cause::text))`

/**
 * A WITH item, `told`, over one before it named `parted`: uid, account_id, payload (of the session), cause, and client_id for
 * one client alone or null for all.
 */
export const tellClients = `told as (
    insert into mlpipes_auth.deliveries (delivery_id, kind, organization_id, client_id, account_id, session_uid, sid, body)
    select gen_random_uuid()::text, 'backchannel_logout', c.organization_id, c.client_id, p.account_id, p.uid,
      part.value ->> 'sid', jsonb_build_object('cause', p.cause::text)
    from ${participants} returning id
  )`

/**
 * The same where very many may end: a client's part of them is one delivery, a bundle, which the worker makes into one for
 * each session (`unfold`, outbox.ts), a few hundred at a time: tens of thousands of rows are not written while they end, and
 * whoever looks for what is due does not pass by them.
 */
export const tellClientsInBundles = `told as (
    insert into mlpipes_auth.deliveries (delivery_id, kind, organization_id, client_id, body)
    select gen_random_uuid()::text, 'backchannel_logout', c.organization_id, c.client_id, jsonb_build_object('sessions',
      jsonb_agg(jsonb_build_object('account_id', p.account_id, 'uid', p.uid, 'sid', part.value ->> 'sid', 'cause', p.cause)))
    from ${participants} group by c.organization_id, c.client_id returning id
  )`
