// Device codes at rest (RFC 8628): the code that a person types is found by a keyed digest and guessed at a few times
// only, each step of a code is taken once, and a device that polls too fast is told so. The pages are in device.ts.
import { type Adapter, type AdapterPayload, errors, type KoaContextWithOIDC, Provider } from 'oidc-provider'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent } from '../audit/events.ts'
import type { Clients } from '../clients/clients.ts'
import type { Throttle } from '../credentials/throttle.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { inRequestTransaction } from '../db/transaction.ts'
import { originOf } from '../http/origin.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { accountOf } from './claims.ts'
import { assertStorable } from './store.ts'

export const deviceCodeSeconds = 600
/** Codes of one client that nobody has decided about yet: a thousand wards may ask at once, a loop may not ask for ever. */
export const maxOpenDeviceCodes = 2_000
/** When some of them have run out. */
const roomAfterSeconds = 60
/** What a device is told to wait between two polls. */
export const pollSeconds = 5
// Networks do not deliver evenly: a device that keeps to the interval must not be told to slow down.
const pollSlackSeconds = 1
/** So long after its end a code is still known, so that device and person hear that it expired. */
const rememberedSeconds = 600
/** A device that asks twice at once is no theft: who is later gets nothing, and what the first got lives on. */
const reuseGraceSeconds = 10

/** RFC 8628 §6.1: eight letters without vowels, so that no word comes of them. */
const userCodePattern = /^[BCDFGHJKLMNPQRSTVWXZ]{8}$/

/** Too many codes were tried from this browser, or from where it is. */
export class TooManyCodes extends errors.OIDCProviderError {
  readonly retryAfterSeconds: number

  constructor(retryAfterSeconds: number) {
    super(429, 'too_many_codes')
    this.name = 'TooManyCodes'
    this.error_description = 'too many codes were tried'
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** The client has as many codes as it may. What is meant for the token endpoint (RFC 8628 §3.5) says it best here too. */
class NoRoom extends errors.OIDCProviderError {
  constructor() {
    super(429, 'slow_down')
    this.name = 'NoRoom'
    this.error_description = 'too many device codes of this client are waiting'
  }
}

/** Somebody else was faster with this code. */
export class CodeTaken extends errors.OIDCProviderError {
  constructor() {
    super(400, 'invalid_request')
    this.name = 'AlreadyUsedError'
    this.error_description = 'the code has already been used'
  }
}

const isDecided = `p.payload ?| array['accountId', 'error']`
// A code of the same letters that is still live would make the device of one person that of another. Requests of the very
// same moment do not see each other and may go past the limit together: it is there to bound what is kept.
const insert = `with waiting as (
    select count(*) < $6::integer as has_room from (
      select from mlpipes_auth.oidc_payloads p where p.client_id = $3 and p.model = 'DeviceCode' and p.consumed_at is null
        and not ${isDecided} and p.created_at > now() - make_interval(secs => $7::integer) limit $6::integer
    ) as open
  ), inserted as (
    insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, client_id, expires_at, user_code_hash)
    select 'DeviceCode', $1, $2::jsonb, $3, now() + make_interval(secs => $4::integer), $5 from waiting where has_room
      and not exists (select from mlpipes_auth.oidc_payloads where user_code_hash = $5 and expires_at > now())
    returning 1
  )
  select has_room, exists (select from inserted) as is_inserted from waiting`
const findByUserCode = `select id_hash, payload from mlpipes_auth.oidc_payloads
    where model = 'DeviceCode' and user_code_hash = any($1::text[]) and expires_at > now()`
const findOne = `select payload from mlpipes_auth.oidc_payloads
    where model = 'DeviceCode' and id_hash = $1 and expires_at > now()`
// First somebody confirms the code, which takes it; then it is decided. Each happens once, whoever tries at the same time.
const advance = `update mlpipes_auth.oidc_payloads p
    set payload = $2::jsonb, account_id = $3, grant_id = $4, organization_id = $5
    where p.model = 'DeviceCode' and p.id_hash = $1 and p.consumed_at is null and not ${isDecided}
      and ($6::boolean or not p.payload ? 'inFlight')
    returning 1 as advanced`
// The row is locked by being written, so that of two polls the later sees what the first did.
const poll = `update mlpipes_auth.oidc_payloads p set polled_at = clock_timestamp()
    where p.model = 'DeviceCode' and p.id_hash = $1 and p.expires_at > now()
    returning p.payload, p.consumed_at is not null as consumed,
      floor(extract(epoch from clock_timestamp() - p.consumed_at))::integer as consumed_seconds_ago,
      coalesce(old.polled_at > clock_timestamp() - make_interval(secs => $2::integer), false) and not ${isDecided} as is_early`

export interface DeviceCodeParts {
  readonly database: Database
  readonly clients: Clients
  readonly sessions: Sessions
  readonly throttle: Throttle
  readonly secrets: Secrets
  record(event: AuditEvent): Promise<void>
}

export interface DeviceCodes {
  /** The adapter of the provider's model DeviceCode, over one that knows what codes and tokens have in common. */
  adapter(base: Adapter): Adapter
}

export function createDeviceCodes(parts: DeviceCodeParts): DeviceCodes {
  return {
    adapter: (base) => ({
      ...base,
      upsert: (id, payload, expiresIn) =>
        contextNow()?.oidc.route === 'device_authorization'
          ? begin(parts, id, payload, expiresIn)
          : moveOn(parts, id, payload),
      async find(id) {
        const context = contextNow()
        // A device knows the code itself, never what it is kept under.
        if (context?.oidc.route === 'token') return polled(parts, context, id)
        const [row] = await parts.database.run(findOne, [hashOf(id)])
        return row && { ...payloadOf(row), jti: id }
      },
      findByUserCode: (userCode) => guess(parts, userCode),
    }),
  }
}

async function begin(
  parts: DeviceCodeParts,
  id: string,
  payload: AdapterPayload,
  expiresIn = deviceCodeSeconds,
): Promise<void> {
  assertStorable(payload)
  const { jti, userCode, ...kept } = payload
  void jti
  const [row] = await parts.database.run(insert, [
    sha256(id),
    JSON.stringify(kept),
    payload.clientId ?? null,
    expiresIn + rememberedSeconds,
    parts.secrets.mac('user-code', userCode ?? ''),
    maxOpenDeviceCodes,
    expiresIn,
  ])
  if (row?.['has_room'] !== true) await refuseForRoom(parts, payload.clientId)
  if (row?.['is_inserted'] !== true) throw new errors.TemporarilyUnavailable('try again')
}

/** @throws NoRoom */
async function refuseForRoom({ record }: DeviceCodeParts, clientId: string | undefined): Promise<never> {
  const context = contextNow()
  const refusal = new NoRoom()
  const organizationId = context?.oidc.client?.['organization_id']
  await record({
    name: 'authorization.refused',
    outcome: 'failure',
    actor: { type: 'anonymous' },
    organizationId: typeof organizationId === 'string' ? organizationId : undefined,
    clientId,
    origin: context ? originOf(context.req) : {},
    details: { error: refusal.error, detail: refusal.error_description ?? '' },
  })
  context?.set('Retry-After', String(roomAfterSeconds))
  throw refusal
}

/**
 * Finds the code that a person typed. The try is counted before anything is looked up; a right one is given back, and does
 * not forgive the wrong ones before it, because whoever guesses can always have a right one of their own.
 * @throws TooManyCodes
 */
async function guess(parts: DeviceCodeParts, userCode: string): Promise<AdapterPayload | undefined> {
  if (!userCodePattern.test(userCode)) return undefined
  const context = contextNow()
  const origin = context ? originOf(context.req) : {}
  const identifier = context?.oidc.session?.uid ?? 'unknown'
  const accountId = context?.oidc.session?.accountId
  const refused = (reason: 'throttled' | 'unknown', attempts: number) =>
    parts.record({
      name: 'device.code_refused',
      outcome: 'failure',
      actor: accountId === undefined ? { type: 'anonymous' } : { type: 'account', id: accountId },
      accountId,
      origin,
      details: { reason, attempts },
    })
  const taken = await parts.throttle.take({ purpose: 'user_code', identifier, ip: origin.ip, deviceHash: undefined })
  if (!taken.ok) {
    await refused('throttled', taken.attempts)
    throw new TooManyCodes(taken.retryAfterSeconds)
  }
  const [row] = await parts.database.run(findByUserCode, [parts.secrets.macs('user-code', userCode)])
  if (!row) {
    await refused('unknown', taken.attempts)
    return undefined
  }
  await parts.throttle.settle(taken)
  return { ...payloadOf(row), userCode, jti: referenceTo(String(row['id_hash'])) }
}

/** A person confirmed the code, allowed the device or did not. Throws CodeTaken when somebody else was faster. */
async function moveOn(parts: DeviceCodeParts, id: string, payload: AdapterPayload): Promise<void> {
  const { jti, userCode, ...rest } = payload
  void [jti, userCode]
  const context = contextNow()
  const isDecision = payload.accountId !== undefined || payload.error !== undefined
  const organizationId = accountOf(context)?.organization.id
  const kept = { ...rest, ...(organizationId === undefined ? {} : { organizationId }) }
  const event = isDecision ? await decision(parts, context, payload) : undefined
  await inRequestTransaction(parts.database.kysely, async (tx) => {
    const rows = await runIn(tx, advance, [
      hashOf(id),
      JSON.stringify(kept),
      payload.accountId ?? null,
      payload.grantId ?? null,
      organizationId ?? null,
      isDecision,
    ])
    if (rows.length === 0) throw new CodeTaken()
    if (event) await appendAudit(tx, event)
  })
}

async function decision(
  { clients }: DeviceCodeParts,
  context: KoaContextWithOIDC | undefined,
  { clientId, accountId: approvedBy, scope, error }: AdapterPayload,
): Promise<AuditEvent> {
  const client = clientId === undefined ? undefined : await clients.findMetadata(clientId)
  const ofClient = client?.['organization_id']
  const session = context?.oidc.session
  const accountId = approvedBy ?? session?.accountId
  const common = {
    actor: accountId === undefined ? ({ type: 'anonymous' } as const) : ({ type: 'account', id: accountId } as const),
    accountId,
    organizationId: typeof ofClient === 'string' ? ofClient : undefined,
    sessionUid: accountId === undefined ? undefined : session?.uid,
    clientId,
    origin: context ? originOf(context.req) : {},
  }
  if (approvedBy === undefined)
    return { ...common, name: 'device.denied', outcome: 'failure', details: { error: (error ?? '').slice(0, 64) } }
  const scopes = (scope ?? '').split(' ').filter((name) => name !== '')
  return { ...common, name: 'device.approved', outcome: 'success', details: { scopes } }
}

/** What a device gets to see when it asks. @throws SlowDown when it asks too often while nobody has decided */
async function polled(
  parts: DeviceCodeParts,
  context: KoaContextWithOIDC,
  deviceCode: string,
): Promise<AdapterPayload | undefined> {
  const idHash = sha256(deviceCode)
  const row = await inRequestTransaction(parts.database.kysely, (tx) => pollOnce(parts, tx, context, idHash))
  if (!row) return undefined
  if (row['is_early'] === true) throw new errors.SlowDown('wait longer between two requests')
  return { ...payloadOf(row), jti: deviceCode, ...(row['consumed'] === true ? { consumed: true } : {}) }
}

async function pollOnce(parts: DeviceCodeParts, tx: Tx, context: KoaContextWithOIDC, idHash: string) {
  const [row] = await runIn(tx, poll, [idHash, pollSeconds - pollSlackSeconds])
  if (!row) return undefined
  if (row['consumed'] === true) {
    const withinGrace = Number(row['consumed_seconds_ago']) < reuseGraceSeconds
    await appendAudit(tx, reuseEvent(context, idHash, withinGrace, payloadOf(row)))
    return withinGrace ? undefined : row
  }
  // Who left the session in which they allowed the device, or lost it, gives it nothing any more.
  const { sessionUid } = payloadOf(row)
  return sessionUid !== undefined && !(await parts.sessions.hold(tx, sessionUid)) ? undefined : row
}

function reuseEvent(
  context: KoaContextWithOIDC,
  tokenHash: string,
  withinGrace: boolean,
  { accountId }: Readonly<Record<string, unknown>>,
): AuditEvent {
  const { client } = context.oidc
  const organizationId = client?.['organization_id']
  return {
    name: 'token.reuse_detected',
    outcome: 'failure',
    actor: client ? { type: 'client', id: client.clientId } : { type: 'anonymous' },
    accountId: typeof accountId === 'string' ? accountId : undefined,
    organizationId: typeof organizationId === 'string' ? organizationId : undefined,
    clientId: client?.clientId,
    origin: originOf(context.req),
    details: { kind: 'DeviceCode', withinGrace, tokenHash },
  }
}

// Who types the short code does not learn the long one: the server has its digest only. Where the provider wants an id it
// gets the digest, marked so that the token endpoint, which hashes what it is given, never takes one for a code.
const referenceTo = (idHash: string) => `~${idHash}`
const hashOf = (id: string) => (id.startsWith('~') ? id.slice(1) : sha256(id))

function payloadOf(row: Row): AdapterPayload {
  return row['payload'] as AdapterPayload
}

function contextNow(): KoaContextWithOIDC | undefined {
  const context = Provider.ctx
  return context?.oidc ? context : undefined
}
