// Webhooks over the admin API: where an organisation may be told, what it is told, and what it can see and repeat of it.
import { createHmac } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { webhookEvents } from '../../src/deliveries/webhooks.ts'
import { receiverProblem } from '../../src/http/receiver.ts'
import { type Call, type Receiver, startReceiver, until } from '../deliveries/support.ts'
import { newPerson, organizationId } from './matrix-rows.ts'
import { type AdminServer, type ApiAnswer, problem, startAdmin } from './support.ts'

const webhooks = '/api/admin/webhooks'

let server: AdminServer
let receiver: Receiver
let admin: string
let mercy: string
beforeAll(async () => {
  server = await startAdmin('postgres')
  receiver = await startReceiver()
  admin = await server.tokenOf('admin@mercy.example')
  mercy = await organizationId(server, 'mercy')
})
afterAll(async () => {
  await server.close()
  await receiver.close()
})
beforeEach(async () => {
  await server.database.run('delete from mlpipes_auth.webhooks', [])
  receiver.calls.length = 0
  receiver.answer = () => 200
})

const create = (given: object = {}, headers: Record<string, string> = {}, token = admin) =>
  server.call(token, webhooks, { body: { url: receiver.url, events: ['client.disabled'], ...given }, headers })
const made = async (given: object = {}) => {
  const answer = await create(given)
  expect(answer.status).toBe(201)
  return { id: String(answer.body['id']), secret: String(answer.body['secret']) }
}
const get = (id: string, more = '') => server.call(admin, `${webhooks}/${id}${more}`)
const act = (id: string, action: string) =>
  server.call(admin, `${webhooks}/${id}/${action}`, { method: 'POST', body: {} })
const change = async (id: string, method: string, body?: unknown) =>
  server.call(admin, `${webhooks}/${id}`, {
    method,
    ...(body === undefined ? {} : { body }),
    headers: { 'if-match': (await get(id)).headers.get('etag') ?? '' },
  })
interface Delivery {
  readonly id: string
  readonly type: string
  readonly status: string
  readonly attempts: number
  readonly lastError: string | null
}
const sent = async (id: string) => (await get(id, '/deliveries')).body['items'] as Delivery[]
const settled = async (id: string, status: string) => {
  await until(async () => expect((await sent(id))[0]?.status).toBe(status))
  return (await sent(id))[0] as Delivery
}
const pathsOf = (answer: ApiAnswer) => ((answer.body['errors'] ?? []) as { path: string }[]).map(({ path }) => path)
/** As a receiver checks it. */
const isSigned = ({ headers, body }: Call, secret: string) => {
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64')
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
  return headers['webhook-signature'] === `v1,${createHmac('sha256', key).update(signed).digest('base64')}`
}

describe('an address to be told at', () => {
  it.each([
    'http://hooks.example/',
    'https://user@hooks.example/',
    'https://hooks.example/#x',
    'https://127.0.0.1/',
    'http://localhost/',
    'https://localhost/',
    'https://[::1]/',
    'https://10.0.0.1/',
    'https://169.254.169.254/latest/meta-data',
    'https://[::ffff:10.0.0.1]/',
    'https://2130706433/',
    'https://0x7f.1/',
    'ftp://hooks.example/',
    'javascript:alert(1)',
    'hooks.example',
    '',
    'https://hooks.example/\u0000',
    'https://hooks.example/\ud800',
    `https://hooks.example/${'x'.repeat(2_048)}`,
  ])('is not %j in production', (url) => {
    expect(receiverProblem(url, { allowsLoopback: false })).toBeDefined()
  })
  it.each(['https://hooks.example/in?x=1', 'https://hooks.example:8443/', 'https://1.1.1.1/'])('may be %s', (url) => {
    expect(receiverProblem(url, { allowsLoopback: false })).toBeUndefined()
  })
  it('may be this machine elsewhere, and nothing else that is not public', async () => {
    expect(receiverProblem('http://127.0.0.1:8080/', { allowsLoopback: true })).toBeUndefined()
    for (const url of ['http://hooks.example/', 'https://10.0.0.1/', 'https://169.254.169.254/']) {
      const refused = await create({ url })
      expect(refused, url).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
      expect(pathsOf(refused)).toEqual(['url'])
    }
  })
})

describe('webhooks', () => {
  it('are added with a secret that is shown once and kept sealed', async () => {
    const { id, secret } = await made()
    expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/)
    expect((await get(id)).text).not.toContain('whsec_')
    expect((await server.call(admin, webhooks)).text).not.toContain('whsec_')
    const rows = await server.database.run('select * from mlpipes_auth.webhooks', [])
    expect(JSON.stringify(rows)).not.toContain(secret.slice(6))
    expect(server.logs.join('')).not.toContain(secret)
    expect(await server.audit('webhook.created')).toMatchObject([{ details: { webhookId: id } }])
  })

  it.each([
    [{ events: [] }, 'events'],
    [{ events: ['client.disabled', 'client.disabled'] }, 'events'],
    [{ events: ['account.password'] }, 'events.0'],
    [{ events: ['ping'] }, 'events.0'],
    [{ secret: 'whsec_chosen' }, 'secret'],
    [{ organizationId: 'org_x' }, 'organizationId'],
  ])('refuse %j', async (given, path) => {
    const refused = await create(given)
    expect(refused).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
    expect(pathsOf(refused)).toEqual([path])
  })

  it('take every event of the list', async () => {
    expect((await create({ events: webhookEvents })).status).toBe(201)
  })

  it('are twenty at most, however many are added at once', async () => {
    for (let n = 0; n < 19; n += 1) await made()
    const answers = await Promise.all(Array.from({ length: 20 }, () => create()))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(19).fill(409)])
    const hope = await server.tokenOf('admin@hope.example')
    expect((await create({}, {}, hope)).status, 'others have their own twenty').toBe(201)
  })

  it('are added once for an Idempotency-Key', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => create({}, { 'idempotency-key': 'hook-1' })))
    const ids = answers.filter(({ status }) => status === 201).map(({ body }) => body['id'])
    expect(new Set(ids).size).toBe(1)
    expect((await server.call(admin, webhooks)).body['items']).toHaveLength(1)
  })

  it('are changed for one version, and deleted for one', async () => {
    const { id } = await made()
    const stale = { 'if-match': '"7"' }
    const body = { events: ['client.enabled'] }
    expect((await server.call(admin, `${webhooks}/${id}`, { method: 'PATCH', body, headers: stale })).status).toBe(412)
    expect(await change(id, 'PATCH', body)).toMatchObject({ status: 200, body })
    expect((await change(id, 'PATCH', { url: 'https://10.0.0.1/' })).status).toBe(400)
    expect((await server.call(admin, `${webhooks}/${id}`, { method: 'DELETE', headers: stale })).status).toBe(412)
    expect((await change(id, 'DELETE')).status).toBe(204)
    expect((await get(id)).status).toBe(404)
  })
})

describe('what is told', () => {
  const disabled = async () => {
    const id = await newPerson(server, 'mercy')
    const answer = await server.call(admin, `/api/admin/users/${id}/disable`, { method: 'POST', body: {} })
    expect(answer.status).toBe(200)
    return id
  }

  it('arrives signed, and is seen in the list', async () => {
    const { id, secret } = await made({ events: ['account.disabled'] })
    const accountId = await disabled()
    const delivery = await settled(id, 'delivered')
    expect(delivery).toMatchObject({ type: 'account.disabled', data: { accountId }, attempts: 1, lastError: null })
    const [call] = receiver.calls
    expect(JSON.parse(call?.body ?? '')).toMatchObject({
      id: delivery.id,
      type: 'account.disabled',
      organizationId: mercy,
      data: { accountId },
    })
    expect(call && isSigned(call, secret)).toBe(true)
  })

  it('is not told to a webhook of another organisation, of other events, or that is switched off', async () => {
    const off = await made({ events: ['account.disabled'] })
    const other = await made({ events: ['account.enabled'] })
    const hope = await server.tokenOf('admin@hope.example')
    await create({ events: ['account.disabled'] }, {}, hope)
    expect((await act(off.id, 'disable')).body['disabledAt']).not.toBeNull()
    await disabled()
    const rows = await server.database.run('select id from mlpipes_auth.deliveries', [])
    expect(rows).toEqual([])
    expect((await act(off.id, 'enable')).body['disabledAt']).toBeNull()
    expect(await sent(other.id)).toEqual([])
  })

  it('is signed with a new secret as soon as there is one', async () => {
    const before = await made({ events: ['account.disabled'] })
    const replaced = await act(before.id, 'replace-secret')
    const secret = String(replaced.body['secret'])
    expect(secret).not.toBe(before.secret)
    await disabled()
    await settled(before.id, 'delivered')
    const [call] = receiver.calls
    expect(call && isSigned(call, secret)).toBe(true)
    expect(call && isSigned(call, before.secret)).toBe(false)
    const changes = await server.audit('webhook.updated')
    expect(changes[0]).toMatchObject({ details: { webhookId: before.id, changed: ['secret'] } })
  })

  it('that failed says why, in a code, and nothing of what was answered', async () => {
    const { id } = await made({ events: ['account.disabled'] })
    receiver.answer = () => 503
    await disabled()
    await until(async () => expect((await sent(id))[0]?.lastError).toBe('HTTP_503'))
    const list = await get(id, '/deliveries')
    expect(list.text).not.toContain('canary')
    expect((await sent(id))[0]).toMatchObject({ status: 'waiting', attempts: 1 })
  })

  it('comes page by page, the newest first', async () => {
    const { id } = await made()
    await server.database.run(
      `insert into mlpipes_auth.deliveries (delivery_id, kind, organization_id, webhook_id, body, delivered_at)
       select 'd' || lpad(n::text, 2, '0'), 'webhook', $1, $2, '{"type":"client.disabled","data":{"clientId":"x"}}', now()
       from generate_series(1, 7) as n`,
      [mercy, id],
    )
    const walked: string[] = []
    let cursor = ''
    do {
      const { body } = await get(id, `/deliveries?limit=3${cursor}`)
      walked.push(...(body['items'] as Delivery[]).map((item) => item.id))
      cursor = body['next'] === null ? '' : `&cursor=${body['next']}`
    } while (cursor !== '')
    expect(walked).toEqual(['d07', 'd06', 'd05', 'd04', 'd03', 'd02', 'd01'])
  })
})

describe('asking for a delivery', () => {
  it('sends a ping, one at a time', async () => {
    const { id, secret } = await made()
    receiver.answer = () => 'never'
    const answers = await Promise.all(Array.from({ length: 20 }, () => act(id, 'ping')))
    expect(answers.map(({ status }) => status).sort()).toEqual([202, ...Array(19).fill(409)])
    await until(() => expect(receiver.calls).toHaveLength(1))
    const [call] = receiver.calls
    expect(call && isSigned(call, secret)).toBe(true)
    expect(JSON.parse(call?.body ?? '')).toMatchObject({ type: 'ping', organizationId: mercy, data: {} })
    const asked = await server.audit('delivery.requested')
    expect(asked).toMatchObject([{ details: { webhookId: id, by: 'ping' } }])
  })

  it('repeats what is settled, once, under the same id, and tells who asked', async () => {
    const { id } = await made()
    await act(id, 'ping')
    const first = await settled(id, 'delivered')
    const repeat = () => act(id, `deliveries/${first.id}/redeliver`)
    receiver.answer = () => 'never'
    const answers = await Promise.all(Array.from({ length: 20 }, repeat))
    expect(answers.map(({ status }) => status).sort()).toEqual([202, ...Array(19).fill(409)])
    await until(() => expect(receiver.calls).toHaveLength(2))
    expect(new Set(receiver.calls.map(({ headers }) => headers['webhook-id']))).toEqual(new Set([first.id]))
    const asked = (await server.audit('delivery.requested')).filter((row) =>
      JSON.stringify(row.details).includes('redeliver'),
    )
    expect(asked).toMatchObject([{ details: { webhookId: id, deliveryId: first.id } }])
  })

  it('is for what is there, of a webhook that is switched on', async () => {
    const { id } = await made()
    const other = await made()
    await act(id, 'ping')
    const { id: deliveryId } = await settled(id, 'delivered')
    expect((await act(other.id, `deliveries/${deliveryId}/redeliver`)).status).toBe(404)
    expect((await act(id, 'deliveries/0f3c/redeliver')).status).toBe(404)
    await act(id, 'disable')
    for (const action of ['ping', `deliveries/${deliveryId}/redeliver`])
      expect(await act(id, action)).toMatchObject({ status: 409, body: { type: problem('not_possible') } })
  })
})
