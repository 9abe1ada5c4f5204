// The worker and its outbox: several replicas, a receiver that hangs, a process that dies, and webhooks.
import { createHmac } from 'node:crypto'
import { decodeJwt } from 'jose'
import pino from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createSecrets } from '../../src/crypto/secrets.ts'
import type { Database } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'
import { createDeliveries, type DeliveriesParts } from '../../src/deliveries/deliveries.ts'
import { tellClientsInBundles } from '../../src/deliveries/logouts.ts'
import { createDeliveryOutbox, retrySeconds } from '../../src/deliveries/outbox.ts'
import {
  createWebhookSecret,
  enqueueWebhooks,
  sealWebhookSecret,
  webhookEvents,
} from '../../src/deliveries/webhooks.ts'
import { maxCallsPerReceiver } from '../../src/deliveries/worker.ts'
import { createOutbound } from '../../src/http/outbound.ts'
import { createKeys } from '../../src/oidc/keys.ts'
import { bareDatabase, barePostgres } from '../support/bare-database.ts'
import { databaseKinds, testSecret } from '../support/server.ts'
import { type Receiver, startReceiver, until } from './support.ts'

const secrets = createSecrets(testSecret)
const issuer = 'https://auth.mercy.example'

function start(database: Database, extra: Partial<DeliveriesParts> = {}) {
  const logs: string[] = []
  const worker = createDeliveries({
    database,
    secrets,
    issuer,
    keys: createKeys(database.kysely, secrets),
    outbound: createOutbound({ allowLoopback: true, timeoutMs: 1_000 }),
    logger: pino({ level: 'debug' }, { write: (line: string) => void logs.push(line) }),
    now: () => new Date(),
    pollMs: 50,
    retrySeconds: [0.05, 0.05, 0.05],
    ...extra,
  }).start()
  return { ...worker, logs }
}

async function prepare(database: Database): Promise<void> {
  await database.run(
    `insert into mlpipes_auth.organizations (id, slug, name) values ('org_a', 'a', 'A'), ('org_b', 'b', 'B')`,
    [],
  )
}
async function addWebhook(
  database: Database,
  id: string,
  url: string,
  organizationId = 'org_a',
  events: readonly string[] = webhookEvents,
) {
  const secret = createWebhookSecret()
  await database.kysely
    .insertInto('webhooks')
    .values({
      id,
      organization_id: organizationId,
      url,
      events: [...events],
      sealed_secret: sealWebhookSecret(secrets, id, secret),
    })
    .execute()
  return secret
}
const say = (database: Database, count = 1, organizationId = 'org_a') =>
  transact(database.kysely, async (tx) => {
    for (let index = 0; index < count; index += 1)
      await enqueueWebhooks(tx, organizationId, { type: 'account.disabled', data: { accountId: `acc_${index}` } })
  })
const rows = (database: Database) =>
  database.kysely
    .selectFrom('deliveries')
    .select(['delivery_id', 'webhook_id', 'attempts', 'delivered_at', 'failed_at', 'last_error', 'body'])
    .orderBy('id')
    .execute()
const clear = async (database: Database) => {
  await database.run('delete from mlpipes_auth.deliveries', [])
  await database.run('delete from mlpipes_auth.webhooks', [])
}

describe.each(databaseKinds)('webhooks on %s', (kind) => {
  let database: Database
  let receiver: Receiver
  beforeAll(async () => {
    database = await bareDatabase(kind)
    await prepare(database)
    receiver = await startReceiver()
  })
  afterAll(async () => {
    await receiver.close()
    await database.close()
  })
  beforeEach(async () => {
    await clear(database)
    receiver.calls.length = 0
    receiver.answer = () => 204
  })

  it('go to those of the organisation that subscribe and are on, and to nobody else', async () => {
    await addWebhook(database, 'wh_yes', `${receiver.url}/yes`)
    await addWebhook(database, 'wh_other_type', receiver.url, 'org_a', ['client.disabled'])
    await addWebhook(database, 'wh_other_organization', receiver.url, 'org_b')
    await addWebhook(database, 'wh_off', receiver.url)
    await database.run(`update mlpipes_auth.webhooks set disabled_at = now() where id = 'wh_off'`, [])
    await say(database)
    expect((await rows(database)).map((row) => row.webhook_id)).toEqual(['wh_yes'])
  })

  it('say what happened, with a signature that a receiver can check', async () => {
    const secret = await addWebhook(database, 'wh_signed', `${receiver.url}/hook`)
    const worker = start(database)
    await say(database)
    await until(async () => expect((await rows(database))[0]?.delivered_at).toBeInstanceOf(Date))
    await worker.stop()
    const [call] = receiver.calls
    const [row] = await rows(database)
    expect(JSON.parse(call?.body ?? '')).toEqual({
      id: row?.delivery_id,
      type: 'account.disabled',
      occurredAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      organizationId: 'org_a',
      data: { accountId: 'acc_0' },
    })
    const { 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': signature } = call?.headers ?? {}
    expect(id).toBe(row?.delivery_id)
    expect(Math.abs(Number(at) - Date.now() / 1000)).toBeLessThan(30)
    const key = Buffer.from(secret.replace('whsec_', ''), 'base64')
    expect(key).toHaveLength(32)
    const mac = createHmac('sha256', key)
      .update(`${String(id)}.${String(at)}.${call?.body}`)
      .digest('base64')
    expect(signature).toBe(`v1,${mac}`)
    const stored = JSON.stringify([
      await database.run('select to_jsonb(w)::text as w from mlpipes_auth.webhooks w', []),
      worker.logs,
    ])
    expect(stored).not.toContain(secret.slice(6))
  })

  it('that fail are given up after the last try, with an audit row', async () => {
    receiver.answer = () => 500
    await addWebhook(database, 'wh_failing', receiver.url)
    const worker = start(database)
    await say(database)
    await until(async () =>
      expect((await rows(database))[0]).toMatchObject({
        failed_at: expect.any(Date),
        attempts: 4,
        last_error: 'HTTP_500',
      }),
    )
    await worker.stop()
    expect(new Set(receiver.calls.map((call) => call.headers['webhook-id'])).size).toBe(1)
    const audited = await database.run(
      `select details from mlpipes_auth.audit_events where name = 'delivery.failed'`,
      [],
    )
    expect(audited.at(-1)?.['details']).toMatchObject({ kind: 'webhook', attempts: 4, error: 'HTTP_500' })
  })

  it('of one that was taken away or switched off meanwhile are not sent', async () => {
    await addWebhook(database, 'wh_gone', receiver.url)
    await say(database)
    await database.run(`update mlpipes_auth.webhooks set disabled_at = now() where id = 'wh_gone'`, [])
    const worker = start(database)
    await until(async () =>
      expect((await rows(database))[0]).toMatchObject({ failed_at: expect.any(Date), last_error: 'ENOBODY' }),
    )
    await worker.stop()
    expect(receiver.calls).toEqual([])
  })

  it('to an app that was removed meanwhile are given up', async () => {
    await database.run(
      `insert into mlpipes_auth.deliveries (delivery_id, kind, organization_id, client_id, account_id, sid, body)
      values ('gone', 'backchannel_logout', 'org_a', 'removed', 'acc_removed', 'sid', '{}')`,
      [],
    )
    const worker = start(database)
    await until(async () =>
      expect((await rows(database))[0]).toMatchObject({ failed_at: expect.any(Date), last_error: 'ENOBODY' }),
    )
    await worker.stop()
  })

  it('of a process that died after it committed, and of one that died while sending, are sent by another', async () => {
    await addWebhook(database, 'wh_crash', receiver.url)
    await say(database, 2)
    // Took one of them, and was never heard of again.
    const dead = createDeliveryOutbox({ database, leaseSeconds: 0.2 })
    expect(await dead.takeDue(1, 4, new Map())).toHaveLength(1)
    const worker = start(database)
    await until(async () => expect((await rows(database)).every((row) => row.delivered_at !== null)).toBe(true))
    await worker.stop()
    expect((await rows(database)).map((row) => row.attempts)).toEqual([2, 1])
    expect(receiver.calls).toHaveLength(2)
  })

  it('are taken by turns of receivers, of each only what it has room for, however many wait for it', async () => {
    await addWebhook(database, 'wh_busy', receiver.url, 'org_a')
    await addWebhook(database, 'wh_idle', receiver.url, 'org_b')
    await say(database, 600, 'org_a')
    await say(database, 6, 'org_b')
    const outbox = createDeliveryOutbox({ database })
    const takenOf = async (limit: number, calls: ReadonlyMap<string, number>) =>
      (await outbox.takeDue(limit, 4, calls)).map(({ webhookId }) => webhookId).toSorted()
    const times = (count: number, id: string) => Array.from({ length: count }, () => id)
    // The first of each comes before the second of any, which is older.
    expect(await takenOf(2, new Map())).toEqual(['wh_busy', 'wh_idle'])
    // Full, and one past it: what is under way elsewhere may be more than is allowed here.
    expect(await takenOf(100, new Map([['wh_busy', 4]]))).toEqual(times(4, 'wh_idle'))
    expect(
      await takenOf(
        100,
        new Map([
          ['wh_busy', 5],
          ['wh_idle', 4],
        ]),
      ),
    ).toEqual([])
    expect(await takenOf(100, new Map([['wh_busy', 3]]))).toEqual(['wh_busy', 'wh_idle'])
    expect(await takenOf(3, new Map())).toEqual(times(3, 'wh_busy'))
    expect(await takenOf(100, new Map())).toEqual(times(4, 'wh_busy'))
  })

  it('are deleted a week after they were delivered', async () => {
    await addWebhook(database, 'wh_old', receiver.url)
    await say(database, 3)
    await database.run(
      `update mlpipes_auth.deliveries set delivered_at = now(), created_at = now() - interval '8 days'
      where id = (select min(id) from mlpipes_auth.deliveries)`,
      [],
    )
    await database.run(
      `update mlpipes_auth.deliveries set created_at = now() - interval '8 days'
      where id = (select max(id) from mlpipes_auth.deliveries)`,
      [],
    )
    expect(await createDeliveryOutbox({ database }).clean(100)).toBe(1)
    expect(await rows(database)).toHaveLength(2)
  })
})

describe('workers', () => {
  let here: Database
  let there: Database
  let receiver: Receiver
  let slow: Receiver
  beforeAll(async () => {
    const [first, second] = await barePostgres(2)
    if (!first || !second) throw new Error('no databases')
    here = first
    there = second
    await prepare(here)
    receiver = await startReceiver()
    slow = await startReceiver()
  })
  afterAll(async () => {
    await receiver.close()
    await slow.close()
    await here.close()
    await there.close()
  })
  beforeEach(async () => {
    await clear(here)
    receiver.calls.length = 0
    receiver.answer = () => 204
    slow.calls.length = 0
  })

  it('of two replicas send each delivery once', async () => {
    await addWebhook(here, 'wh_1', `${receiver.url}/1`)
    await addWebhook(here, 'wh_2', `${receiver.url}/2`)
    const workers = [start(here), start(there)]
    await say(here, 100)
    await until(async () => expect((await rows(here)).every((row) => row.delivered_at !== null)).toBe(true))
    await Promise.all(workers.map((worker) => worker.stop()))
    expect(receiver.calls).toHaveLength(200)
    expect(new Set(receiver.calls.map((call) => call.headers['webhook-id'])).size).toBe(200)
    const audited = await here.run(
      `select count(*) as n from mlpipes_auth.audit_events where name = 'delivery.succeeded'`,
      [],
    )
    expect(Number(audited[0]?.['n'])).toBe(200)
  })

  it('ask a receiver that fails again only after a pause, and send to others meanwhile', async () => {
    await addWebhook(here, 'wh_down', slow.url, 'org_b')
    await addWebhook(here, 'wh_up', receiver.url, 'org_a')
    slow.answer = () => 503
    const worker = start(here, { failurePauseMs: 3_600_000, retrySeconds: [0.01, 0.01, 0.01] })
    await say(here, 100, 'org_b')
    await until(() => expect(slow.calls).toHaveLength(maxCallsPerReceiver))
    await say(here, 50, 'org_a')
    await until(async () => expect((await rows(here)).filter((row) => row.delivered_at)).toHaveLength(50))
    await worker.stop()
    expect(slow.calls).toHaveLength(maxCallsPerReceiver)
  })

  it('wait for a receiver that hangs with a few calls, and send to others meanwhile', async () => {
    await addWebhook(here, 'wh_slow', slow.url, 'org_b')
    slow.answer = () => 'never'
    await addWebhook(here, 'wh_quick', receiver.url, 'org_a')
    // As long as the test lasts.
    const worker = start(here, {
      outbound: createOutbound({ allowLoopback: true, timeoutMs: 60_000 }),
      retrySeconds: [60],
    })
    await say(here, 600, 'org_b')
    await until(() => expect(slow.calls).toHaveLength(maxCallsPerReceiver))
    await say(here, 50, 'org_a')
    await until(() => expect(receiver.calls).toHaveLength(50))
    expect(slow.calls).toHaveLength(maxCallsPerReceiver)
    const stopped = worker.stop()
    await slow.close()
    await stopped
  })

  it('ask a receiver that refuses for the next one at once', async () => {
    await addWebhook(here, 'wh_refusing', receiver.url)
    receiver.answer = () => 404
    const worker = start(here, { failurePauseMs: 3_600_000, retrySeconds: [60] })
    await say(here, 30)
    await until(() => expect(receiver.calls).toHaveLength(30))
    await worker.stop()
  })

  it('are rung at once by what their own process writes', async () => {
    await addWebhook(here, 'wh_bell', receiver.url)
    const worker = start(here, { pollMs: 3_600_000 })
    // The first look is over.
    await new Promise((resolve) => setTimeout(resolve, 200))
    await say(here)
    await until(() => expect(receiver.calls).toHaveLength(1))
    await worker.stop()
  })
})

describe.each(databaseKinds)('a bundle of logouts on %s', (kind) => {
  let database: Database
  let receiver: Receiver
  beforeAll(async () => {
    database = await bareDatabase(kind)
    await prepare(database)
    await createKeys(database.kysely, secrets).ensure()
    receiver = await startReceiver()
  })
  afterAll(async () => {
    await receiver.close()
    await database.close()
  })
  beforeEach(async () => {
    await clear(database)
    await database.run('delete from mlpipes_auth.clients', [])
    receiver.calls.length = 0
    receiver.answer = () => 204
  })

  const addApp = (id: string, metadata: object = {}) =>
    database.run(
      `insert into mlpipes_auth.clients (client_id, organization_id, name, metadata)
      values ($1, 'org_a', 'App', $2::jsonb || jsonb_build_object('backchannel_logout_uri', $3::text))`,
      [id, JSON.stringify(metadata), `${receiver.url}/${id}`],
    )
  /** As when so many sessions end, each with these apps, by one statement. */
  const endMany = (count: number, apps: readonly string[]) =>
    database.run(
      `with parted as (
        select 'uid_' || n as uid, 'acc_' || n as account_id, 'idle' as cause, null::text as client_id,
          jsonb_build_object('authorizations', (select jsonb_object_agg(app, jsonb_build_object('sid', app || '_' || n))
            from unnest($2::text[]) as app)) as payload
        from generate_series(1, $1::integer) as n
      ), ${tellClientsInBundles} select * from told`,
      [count, apps],
    )
  const kept = () =>
    database.kysely
      .selectFrom('deliveries')
      .select(['client_id', 'account_id', 'session_uid', 'sid', 'body', 'delivered_at', 'failed_at', 'last_error'])
      .orderBy('id')
      .execute()

  it('is one delivery for an app, and becomes one for each session', async () => {
    await addApp('ehr')
    await addApp('labs', { backchannel_logout_causes: ['disabled'] })
    await addApp('ward')
    await endMany(40, ['ehr', 'labs', 'ward', 'nobody'])
    expect((await kept()).map((row) => row.client_id).toSorted()).toEqual(['ehr', 'ward'])
    const worker = start(database)
    await until(async () => expect((await kept()).filter((row) => row.delivered_at)).toHaveLength(80))
    await worker.stop()
    const told = await kept()
    expect(told).toHaveLength(80)
    expect(told.find((row) => row.sid === 'ward_7')).toMatchObject({
      client_id: 'ward',
      account_id: 'acc_7',
      session_uid: 'uid_7',
      body: { cause: 'idle' },
    })
    const tokens = receiver.calls.map((call) => new URLSearchParams(call.body).get('logout_token') ?? '')
    const sids = tokens.map((token) => decodeJwt(token)['sid'])
    expect(new Set(sids).size).toBe(80)
    expect(sids).toHaveLength(80)
  })

  it('is unfolded by one of two that hold it, however late the other is', async () => {
    await addApp('ehr')
    await endMany(3, ['ehr'])
    const late = createDeliveryOutbox({ database, leaseSeconds: 0 })
    const [first] = await late.takeDue(1, 4, new Map())
    const [second] = await late.takeDue(1, 4, new Map())
    expect(first).toMatchObject({ isBundle: true, attempts: 1 })
    expect(second).toMatchObject({ isBundle: true, attempts: 2 })
    if (!first || !second) throw new Error('nothing was taken')
    await late.unfold(first)
    expect(await kept()).toHaveLength(1)
    await Promise.all([late.unfold(second), late.unfold(second)])
    await late.unfold(second)
    expect((await kept()).map((row) => row.sid).toSorted()).toEqual(['ehr_1', 'ehr_2', 'ehr_3'])
  })

  it('waits until those of the one before are sent', async () => {
    await addApp('ehr')
    await endMany(20, ['ehr'])
    await endMany(20, ['ehr'])
    const outbox = createDeliveryOutbox({ database })
    const [bundle] = await outbox.takeDue(1, 1, new Map())
    if (!bundle) throw new Error('nothing was taken')
    await outbox.unfold(bundle)
    const taken = await outbox.takeDue(100, 20, new Map())
    expect(taken.filter((delivery) => delivery.isBundle)).toEqual([])
    expect(taken).toHaveLength(20)
  })

  it('for an app that is gone by then is given up, each with its audit row', async () => {
    await addApp('ehr')
    await endMany(3, ['ehr'])
    await database.run(`delete from mlpipes_auth.clients`, [])
    const worker = start(database)
    await until(async () => expect((await kept()).filter((row) => row.last_error === 'ENOBODY')).toHaveLength(3))
    await worker.stop()
    const audited = await database.run(
      `select session_uid from mlpipes_auth.audit_events where name = 'delivery.failed' order by session_uid`,
      [],
    )
    expect(audited.map((row) => row['session_uid'])).toEqual(['uid_1', 'uid_2', 'uid_3'])
    expect(receiver.calls).toEqual([])
  })
})

describe('the times between tries', () => {
  const total = (kind: keyof typeof retrySeconds) => retrySeconds[kind].reduce((sum, seconds) => sum + seconds, 0)
  it('are a day for webhooks, and hours for a logout', () => {
    expect(total('webhook')).toBeGreaterThanOrEqual(86_400)
    expect(total('backchannel_logout')).toBeGreaterThanOrEqual(3_600)
  })
})
