// The policy over the API: read, written whole and in parts, previewed; and what a change does to sessions that are out.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import { isAddressAllowed } from '../../src/organizations/network.ts'
import { effectivePolicy, type PolicyInput } from '../../src/organizations/policy.ts'
import { isLive } from '../../src/sessions/live.ts'
import { breachOf, sessionLimits, sessionState } from '../../src/sessions/policy.ts'
import { finishTightenings } from '../../src/sessions/tightening.ts'
import { mainDatabase } from '../support/server.ts'
import { newOrganization } from './organization-rows.ts'
import { type AdminServer, problem, seed, startAdmin } from './support.ts'

const path = '/api/admin/policy'
const environment = { ENABLE_MAGIC_LINKS: 'true', ENABLE_SIGNUP: 'true' }
const platform = parseConfig({ NODE_ENV: 'test', ...environment })

describe.each(mainDatabase)('the policy on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind, seed, { environment })
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  /** In an organisation of its own, so that no test meets what another one did. */
  async function corner() {
    const id = await newOrganization(server)
    const root = await server.tokenOf('root@platform.example')
    const call = (method: string, body?: unknown, etag?: string, suffix = '') =>
      server.call(root, `${path}${suffix}?organization=${id}`, {
        method,
        ...(body === undefined ? {} : { body }),
        headers: etag === undefined ? {} : { 'if-match': etag },
      })
    const read = () => call('GET')
    const patch = async (body: unknown) => call('PATCH', body, String((await read()).headers.get('etag')))
    return { id, call, read, patch }
  }
  async function addSession(
    organizationId: string,
    {
      amr = ['pwd', 'otp'],
      ip = '192.0.2.7',
      age = 0,
    }: { amr?: readonly string[]; ip?: string | null; age?: number } = {},
  ) {
    const uid = `s-${Math.floor(performance.now() * 1_000)}-${organizationId}`
    await run(
      `insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, ip, signed_in_at, last_activity_at,
         idle_expires_at, absolute_expires_at, idle_seconds, absolute_seconds)
       values ($1, $1, $2::jsonb, $3, $4, $5::inet, now() - make_interval(secs => $6::integer),
         now() - make_interval(secs => $6::integer), now() + interval '1 hour', now() + interval '1 hour', 36000, 36000)`,
      [
        uid,
        JSON.stringify({ amr, authorizations: { told: { sid: `sid-${uid}` } } }),
        server.ids.get('member@hope.example'),
        organizationId,
        ip,
        age,
      ],
    )
    return uid
  }
  const session = async (uid: string) =>
    (
      await run(
        `select s.ended_at is not null as ended, s.end_reason, not (${isLive}) as over from mlpipes_auth.sessions s where uid = $1`,
        [uid],
      )
    )[0]

  it('says what is written, what is in effect, and what the platform holds it to', async () => {
    const { read } = await corner()
    const { status, body, headers } = await read()
    expect(status).toBe(200)
    expect(body).toMatchObject({
      written: {},
      effective: { 'session.idleTimeout': 1_800, mfa: 'optional', 'network.allowedCidrs': null },
      version: 1,
    })
    expect(headers.get('etag')).toBe('"1"')
    expect(body['floors']).toContainEqual({
      field: 'session.idleTimeout',
      value: 3_600,
      because: 'HIPAA mode',
      refuses: true,
    })
  })

  it('is patched by field, and null takes a field away', async () => {
    const { patch, read } = await corner()
    const first = await patch({ session: { idleTimeout: 600, absoluteLifetime: 7_200 }, mfa: 'required' })
    expect(first).toMatchObject({ status: 200, body: { version: 2 } })
    expect(first.headers.get('etag')).toBe('"2"')
    await patch({ session: { idleTimeout: null }, loginMethods: ['password'] })
    expect((await read()).body).toMatchObject({
      written: { session: { absoluteLifetime: 7_200 }, mfa: 'required', loginMethods: ['password'] },
      effective: { 'session.idleTimeout': 1_800 },
    })
    await patch({ session: { absoluteLifetime: null }, mfa: null, loginMethods: null, tokens: null })
    expect((await read()).body['written']).toEqual({})
  })

  it('is replaced whole, and what is the same changes nothing and says nothing', async () => {
    const { call, id } = await corner()
    const whole = { mfa: 'required', signup: 'invite' }
    expect(await call('PUT', whole, '"1"')).toMatchObject({ status: 200, body: { written: whole, version: 2 } })
    expect(await call('PUT', whole, '"2"')).toMatchObject({ status: 200, body: { version: 2 } })
    const events = (await server.audit('policy.updated')).filter((event) => event.organizationId === id)
    expect(events.map(({ details }) => details)).toMatchObject([{ stricter: ['mfa'], looser: ['signup'] }])
  })

  // The log named the fields that got stricter or looser, so nobody could tell from it what the idle limit was in May.
  describe('is recorded with what was written before and after', () => {
    const recorded = async (id: string) =>
      (await server.audit('policy.updated')).filter((one) => one.organizationId === id).map(({ details }) => details)

    it('for each field that changed, null where nothing was written', async () => {
      const { id, patch, call } = await corner()
      const networks = { allowedCidrs: ['192.0.2.0/24', '2001:db8::/32'] }
      await patch({ session: { idleTimeout: 600, maxConcurrent: 3 }, network: networks })
      await call('PUT', { session: { idleTimeout: 900, maxConcurrent: null }, loginMethods: ['password'] }, '"2"')
      expect((await recorded(id)).reverse()).toMatchObject([
        {
          stricter: ['session.idleTimeout', 'session.maxConcurrent', 'network.allowedCidrs'],
          looser: [],
          before: { 'session.idleTimeout': null, 'session.maxConcurrent': null, 'network.allowedCidrs': null },
          after: {
            'session.idleTimeout': 600,
            'session.maxConcurrent': 3,
            'network.allowedCidrs': networks.allowedCidrs,
          },
        },
        {
          stricter: ['loginMethods'],
          before: {
            'session.idleTimeout': 600,
            'session.maxConcurrent': 3,
            loginMethods: null,
            'network.allowedCidrs': networks.allowedCidrs,
          },
          after: {
            'session.idleTimeout': 900,
            'session.maxConcurrent': 'none',
            loginMethods: ['password'],
            'network.allowedCidrs': null,
          },
        },
      ])
    })

    it('also where the same is in effect, and never a field that stayed', async () => {
      const { id, patch } = await corner()
      await patch({ session: { idleTimeout: 1_800 } })
      await patch({ session: { updateAge: 60 } })
      await patch({ session: { idleTimeout: null } })
      const details = (await recorded(id)).reverse()
      expect(details[0]).toEqual({
        stricter: [],
        looser: [],
        before: { 'session.idleTimeout': null },
        after: { 'session.idleTimeout': 1_800 },
      })
      expect(Object.keys(Object(Object(details[1])['after']))).toEqual(['session.updateAge'])
      expect(details[2]).toMatchObject({
        before: { 'session.idleTimeout': 1_800 },
        after: { 'session.idleTimeout': null },
      })
    })

    it('for the largest policy that there may be, in the log and in the export', async () => {
      const { id, patch } = await corner()
      const network = (from: number) => ({
        allowedCidrs: Array.from({ length: 200 }, (_, n) => `2001:db80:1111:2222:3333:4444:${from}:${1_000 + n}/128`),
      })
      for (const from of [1_111, 2_222]) expect((await patch({ network: network(from) })).status).toBe(200)
      const root = await server.tokenOf('root@platform.example')
      const listed = await server.call(root, `/api/audit/logs?name=policy.updated&organization=${id}`)
      expect(listed.body['items']).toMatchObject([
        {
          details: {
            before: { 'network.allowedCidrs': network(1_111).allowedCidrs },
            after: { 'network.allowedCidrs': network(2_222).allowedCidrs },
          },
        },
        {},
      ])
      const file = await server.call(root, `/api/audit/export?format=csv&name=policy.updated&organization=${id}`)
      expect(file.text).toContain(network(1_111).allowedCidrs[199])
      expect((await patch({ network: { allowedCidrs: [...network(1_111).allowedCidrs, '10.0.0.0/8'] } })).status).toBe(
        400,
      )
    })
  })

  it.each(['10.0.0.0/33', '::1', '10.0.0.7', '', 7, null])('says of %j what a network must be', async (range) => {
    const { patch } = await corner()
    expect((await patch({ network: { allowedCidrs: [range] } })).body['errors']).toEqual([
      { path: 'network.allowedCidrs.0', message: expect.stringContaining('such as 10.0.0.0/8') },
    ])
  })

  it.each([
    ['If-Match is missing', undefined, 428, 'version_required'],
    ['it was changed meanwhile', '"7"', 412, 'version_stale'],
  ])('is not changed when %s', async (_name, etag, status, code) => {
    const { call, read } = await corner()
    expect(await call('PATCH', { mfa: 'required' }, etag)).toMatchObject({ status, body: { type: problem(code) } })
    expect(await call('PUT', { mfa: 'required' }, etag)).toMatchObject({ status })
    expect((await read()).body).toMatchObject({ written: {}, version: 1 })
  })

  it('is refused below a floor, which is named, at the limit and one past it', async () => {
    const { call, patch } = await corner()
    expect(await patch({ session: { idleTimeout: 3_600 } })).toMatchObject({ status: 200 })
    const low = { session: { idleTimeout: 3_601 }, audit: { retentionDays: 2_189 } }
    const answer = await patch(low)
    expect(answer).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
    expect(answer.body['errors']).toEqual([
      { path: 'session.idleTimeout', message: 'must be at most 3600 (HIPAA mode)' },
      { path: 'audit.retentionDays', message: 'must be at least 2190 (HIPAA mode)' },
    ])
    expect(await call('PUT', low, '"2"')).toMatchObject({ status: 400 })
    const preview = await call('POST', { policy: low }, undefined, '/preview')
    expect(preview.body['errors']).toContainEqual({
      path: 'policy.session.idleTimeout',
      message: 'must be at most 3600 (HIPAA mode)',
    })
  })

  it.each([
    [{ mfa: 'sometimes' }, 'mfa'],
    [{ surprise: 1 }, 'surprise'],
    [{ session: { surprise: 1 } }, 'session.surprise'],
    [{ session: { idleTimeout: 0 } }, 'session.idleTimeout'],
    [{ network: { allowedCidrs: ['10.0.0.0/33'] } }, 'network.allowedCidrs.0'],
    [{ network: { allowedCidrs: [null] } }, 'network.allowedCidrs.0'],
    [{ loginMethods: [] }, 'loginMethods'],
    ['{"__proto__":{"mfa":"off"}}', ''],
    [[], ''],
  ])('refuses %j', async (body, at) => {
    const { patch, read } = await corner()
    const answer = await patch(body)
    expect(answer.status).toBe(400)
    if (at !== '') expect(answer.body['errors']).toMatchObject([{ path: at }])
    expect((await read()).body['written']).toEqual({})
  })

  it('asks for a step-up', async () => {
    const weak = await server.serviceToken('weak')
    await run("update mlpipes_auth.clients set permissions = '{policy:read,policy:write}' where client_id = 'weak'")
    const answer = await server.call(weak, path, {
      method: 'PATCH',
      body: { mfa: 'required' },
      headers: { 'if-match': '"1"' },
    })
    expect(answer).toMatchObject({ status: 403, body: { type: problem('client_too_weak') } })
  })

  it('acts on sessions that are out from the moment that it is changed, and tells whoever listens', async () => {
    const { id, patch } = await corner()
    await run(
      `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
       values ($1, $1, 'https://hooks.example/', '{policy.updated}', 'x')`,
      [id],
    )
    const [stale, fresh] = [await addSession(id, { age: 700 }), await addSession(id)]
    expect((await patch({ session: { idleTimeout: 600 } })).status).toBe(200)
    expect(await session(stale)).toMatchObject({ over: true })
    expect(await session(fresh)).toMatchObject({ over: false, ended: false })
    const [event] = (await server.audit('policy.updated')).filter((one) => one.organizationId === id)
    expect(event).toMatchObject({
      actorId: server.ids.get('root@platform.example'),
      details: { stricter: ['session.idleTimeout'], looser: [] },
    })
    const deliveries = await run('select body from mlpipes_auth.deliveries where webhook_id = $1', [id])
    expect(deliveries).toEqual([
      { body: { type: 'policy.updated', data: { stricter: ['session.idleTimeout'], looser: [] } } },
    ])
    await patch({ session: { idleTimeout: null } })
    expect(await session(stale), 'looser revives nothing').toMatchObject({ over: true })
  })

  it('ends sessions outside of new networks at once, whatever comes after, says who did it and tells their apps', async () => {
    const { id, patch } = await corner()
    await run(
      `insert into mlpipes_auth.clients (client_id, organization_id, name, metadata)
       values ('told', $1, 'Told', '{"backchannel_logout_uri":"http://localhost:9/logout"}') on conflict do nothing`,
      [id],
    )
    const inside = [await addSession(id), await addSession(id, { ip: '2001:db8::1' })]
    const outside = [
      await addSession(id, { ip: '198.51.100.1' }),
      await addSession(id, { ip: '2001:db9::1' }),
      await addSession(id, { ip: null }),
    ]
    expect(await patch({ network: { allowedCidrs: ['192.0.2.0/24', '2001:db8::/32'] } })).toMatchObject({ status: 200 })
    for (const uid of inside) expect(await session(uid)).toMatchObject({ ended: false })
    for (const uid of outside) expect(await session(uid)).toMatchObject({ over: true })
    await patch({ network: { allowedCidrs: null } })
    for (const uid of inside) expect(await session(uid)).toMatchObject({ over: false })
    for (const uid of outside) expect(await session(uid), 'looser revives nothing').toMatchObject({ over: true })
    await vi.waitFor(async () => {
      await finishTightenings(server.database)
      for (const uid of outside) expect(await session(uid)).toMatchObject({ ended: true, end_reason: 'network' })
    })
    const told = () =>
      run(
        "select body ->> 'cause' as cause from mlpipes_auth.deliveries where kind = 'backchannel_logout' and session_uid = any($1)",
        [[...inside, ...outside]],
      )
    await expect.poll(told, { timeout: 10_000 }).toEqual(outside.map(() => ({ cause: 'network' })))
    const ended = (await server.audit('session.ended')).filter((event) => outside.includes(event.sessionUid ?? ''))
    const by = server.ids.get('root@platform.example')
    expect(ended.map(({ details, actorId }) => ({ ...Object(details), actorId }))).toEqual(
      outside.map(() => ({ reason: 'network', actorId: by })),
    )
    for (const uid of inside) expect(await session(uid)).toMatchObject({ ended: false })
  })

  it('lets one of twenty changes of the same version win', async () => {
    const { call, read } = await corner()
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => call('PATCH', { session: { idleTimeout: 600 + index } }, '"1"')),
    )
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 412)).toHaveLength(19)
    expect((await read()).body['version']).toBe(2)
  })

  it('previews what a change would do, and does nothing', async () => {
    const { id, call, read, patch } = await corner()
    await run(
      "insert into mlpipes_auth.memberships (account_id, organization_id, home) select id, $1, false from mlpipes_auth.accounts where email in ('member@hope.example', 'admin@hope.example')",
      [id],
    )
    await run('delete from mlpipes_auth.totp_credentials where account_id = $1', [
      server.ids.get('member@hope.example'),
    ])
    await addSession(id, { age: 7_300 })
    await addSession(id, { age: 700 })
    await addSession(id, { ip: '198.51.100.1' })
    await addSession(id, { amr: ['magic_link'] })
    await addSession(id, { amr: ['pwd'] })
    const fine = await addSession(id)
    // Used for this organisation, of another one: its limits hold, its networks hold there.
    const guest = await addSession(await newOrganization(server), { ip: '198.51.100.1', age: 650 })
    await run('insert into mlpipes_auth.session_organizations (session_uid, organization_id) values ($1, $2)', [
      guest,
      id,
    ])
    const change = {
      session: { idleTimeout: 600, absoluteLifetime: 7_200 },
      network: { allowedCidrs: ['192.0.2.0/24'] },
      loginMethods: ['password'],
      mfa: 'required',
    }
    const events = (await server.audit()).length
    const preview = await call('POST', { patch: change }, undefined, '/preview')
    expect(preview.status).toBe(200)
    expect(preview.body).toMatchObject({
      sessions: {
        live: 7,
        end: { idle: 2, absolute: 1, network: 1, maxConcurrent: 0, total: 4 },
        stepUp: { mfa: 1, method: 1 },
      },
      people: { active: 2, withoutSecondFactor: 1, askedToSetUp: 1 },
    })
    expect(preview.body['changes']).toContainEqual({
      field: 'mfa',
      before: 'optional',
      after: 'required',
      stricter: true,
      looser: false,
    })
    expect((await call('POST', { policy: change }, undefined, '/preview')).body).toEqual(preview.body)
    expect((await read()).body).toMatchObject({ written: {}, version: 1 })
    expect((await server.audit()).length).toBe(events)
    expect(await session(guest)).toMatchObject({ ended: false, over: false })
    await patch(change)
    const over = await run(
      `select count(*)::integer as over from mlpipes_auth.sessions s where (organization_id = $1 or uid = $2) and not (${isLive})`,
      [id, guest],
    )
    expect(over, 'what was foretold').toEqual([{ over: 4 }])
    expect(await session(fine)).toMatchObject({ ended: false, over: false })
    await vi.waitFor(async () => {
      await finishTightenings(server.database)
      expect(await run('select id from mlpipes_auth.session_tightenings where organization_id = $1', [id])).toEqual([])
    })
    const nothing = await call('POST', { patch: {} }, undefined, '/preview')
    expect(nothing.body).toMatchObject({ changes: [], sessions: { end: { total: 0 } }, people: { askedToSetUp: 0 } })
    for (const body of [{}, { policy: {}, patch: {} }])
      expect(await call('POST', body, undefined, '/preview')).toMatchObject({ status: 400 })
  })

  it('previews for people of its own, whose factors are counted where the operator moved them to', async () => {
    const [here, there] = [await corner(), await corner()]
    const addPerson = async (name: string, disabled = false) => {
      const id = `${name}-${here.id}`
      await run(
        `with added as (insert into mlpipes_auth.accounts (id, email, email_normalized, name, organization_id, disabled_at)
           values ($1, $1, $1, $1, $2, case when $3 then now() end) returning id)
         insert into mlpipes_auth.memberships (account_id, organization_id, home) select id, $2, true from added`,
        [id, here.id, disabled],
      )
      return id
    }
    const addFactor = (id: string, isConfirmed: boolean) =>
      run(
        `insert into mlpipes_auth.totp_credentials (id, account_id, name, sealed_secret, confirmed_at)
         values (gen_random_uuid()::text, $1, 'Phone', 'sealed', case when $2 then now() end)`,
        [id, isConfirmed],
      )
    const [strong, begun, off] = [await addPerson('strong'), await addPerson('begun'), await addPerson('off', true)]
    for (const [id, isConfirmed] of [
      [strong, true],
      [strong, true],
      [begun, false],
      [off, true],
    ] as const)
      await addFactor(id, isConfirmed)
    const peopleIn = async ({ call }: typeof here) =>
      (await call('POST', { patch: { mfa: 'required' } }, undefined, '/preview')).body['people']
    expect(await peopleIn(here)).toEqual({ active: 2, withoutSecondFactor: 1, askedToSetUp: 1 })
    await run('update mlpipes_auth.memberships set organization_id = $2 where account_id = $1', [strong, there.id])
    await run('update mlpipes_auth.accounts set organization_id = $2 where id = $1', [strong, there.id])
    expect(await peopleIn(here)).toEqual({ active: 1, withoutSecondFactor: 1, askedToSetUp: 1 })
    expect(await peopleIn(there)).toEqual({ active: 1, withoutSecondFactor: 0, askedToSetUp: 0 })
  })

  it('ends the oldest of the sessions that are more at once than a change allows, as its preview says, and tells who did it', async () => {
    const { id, call, patch } = await corner()
    const ages = [500, 100, 900, 300]
    const uids: string[] = []
    for (const age of ages) uids.push(await addSession(id, { age }))
    const change = { session: { maxConcurrent: 2 } }
    const { body } = await call('POST', { patch: change }, undefined, '/preview')
    expect(body['sessions']).toMatchObject({ live: 4, end: { maxConcurrent: 2, total: 2 } })
    expect((await patch(change)).status).toBe(200)
    const over = async () => (await Promise.all(uids.map(session))).map((one) => one?.['over'])
    expect(await over()).toEqual([true, false, true, false])
    await patch({ session: { maxConcurrent: null } })
    expect(await over(), 'looser revives nothing').toEqual([true, false, true, false])
    // The server's own housekeeping may be at it, and then goes on.
    await vi.waitFor(async () => {
      await finishTightenings(server.database)
      expect(await run('select id from mlpipes_auth.session_tightenings')).toEqual([])
    })
    for (const [index, ended] of [true, false, true, false].entries())
      expect(await session(uids[index] ?? '')).toMatchObject({ ended, end_reason: ended ? 'max_concurrent' : null })
    const events = (await server.audit('session.ended')).filter((event) => event.organizationId === id)
    expect(events.map(({ actorId, details }) => ({ actorId, details }))).toEqual(
      Array.from({ length: 2 }, () => ({
        actorId: server.ids.get('root@platform.example'),
        details: { reason: 'max_concurrent' },
      })),
    )
  })

  it('previews by the rules that sessions are held to', async () => {
    const { id, call } = await corner()
    const other = await newOrganization(server)
    // Limits end in 50 and ages in 00, so that no second decides; and none is past the limits of now.
    const hundreds = (max: number) => fc.nat({ max }).map((count) => count * 100)
    const session = fc.record({
      isOwn: fc.boolean(),
      idle: hundreds(17),
      usedFor: hundreds(30),
      ip: fc.constantFrom('192.0.2.7', '198.51.100.1', '2001:db8::1', null),
      amr: fc
        .tuple(fc.constantFrom('pwd', 'magic_link'), fc.subarray(['otp', 'backup_code']))
        .map(([first, second]) => [first, ...second]),
    })
    const change = fc.record(
      {
        session: fc.record({
          idleTimeout: fc.constantFrom(650, 1_350),
          absoluteLifetime: fc.constantFrom(1_850, 3_550),
          maxConcurrent: fc.constantFrom(1, 20, null),
        }),
        network: fc.record({ allowedCidrs: fc.subarray(['192.0.2.0/24', '2001:db8::/32'], { minLength: 1 }) }),
        loginMethods: fc.subarray(['password', 'magic_link'] as const, { minLength: 1 }),
        mfa: fc.constant('required' as const),
      },
      { requiredKeys: [] },
    )
    const sessions = fc.sample(session, { numRuns: 60, seed: 11 })
    for (const { isOwn, idle, usedFor, ip, amr } of sessions) {
      const uid = await addSession(isOwn ? id : other, { amr, ip, age: idle + usedFor })
      await run(
        `with aged as (update mlpipes_auth.sessions set last_activity_at = now() - make_interval(secs => $2::integer)
           where uid = $1 returning uid)
         insert into mlpipes_auth.session_organizations (session_uid, organization_id) select uid, $3 from aged where $4`,
        [uid, idle, id, !isOwn],
      )
    }
    const now = new Date()
    const ago = (seconds: number) => new Date(now.getTime() - seconds * 1_000)
    const later = ago(-3_600)
    const verdictOf = (input: PolicyInput) => {
      const policy = effectivePolicy(input, platform)
      return ({ isOwn, idle, usedFor, ip, amr }: (typeof sessions)[number]) => {
        const times = { signedInAt: ago(idle + usedFor), lastActivityAt: ago(idle) }
        const promised = { idleExpiresAt: later, absoluteExpiresAt: later }
        const state = sessionState({ ...times, ...promised }, sessionLimits(policy), now)
        const isPlaceAllowed = !isOwn || isAddressAllowed(policy, ip ?? undefined)
        return state === 'live' ? breachOf({ amr, isPlaceAllowed }, policy) : state
      }
    }
    const ended = new Set<unknown>(['idle', 'absolute', 'network'])
    /** All are one person's: of those that nothing else ended, the last that were begun go on. */
    const makeRoom = (verdicts: readonly unknown[], room: number) => {
      const later = sessions
        .map(({ idle, usedFor }, index) => ({ index, age: idle + usedFor }))
        .filter(({ index }) => !ended.has(verdicts[index]))
        .toSorted((a, b) => a.age - b.age || b.index - a.index)
      const crowded = new Set(later.slice(room).map(({ index }) => index))
      return verdicts.map((verdict, index) => (crowded.has(index) ? 'max_concurrent' : verdict))
    }
    for (const patch of fc.sample(change, { numRuns: 12, seed: 11 })) {
      const { maxConcurrent } = effectivePolicy(patch, platform).session
      const verdicts = makeRoom(sessions.map(verdictOf(patch)), maxConcurrent ?? sessions.length)
      const count = (verdict: string) => verdicts.filter((one) => one === verdict).length
      const { body } = await call('POST', { patch }, undefined, '/preview')
      const end = {
        idle: count('idle'),
        absolute: count('absolute'),
        network: count('network'),
        maxConcurrent: count('max_concurrent'),
      }
      expect(body['sessions'], JSON.stringify(patch)).toEqual({
        live: sessions.length,
        end: { ...end, total: end.idle + end.absolute + end.network + end.maxConcurrent },
        stepUp: { mfa: count('mfa'), method: count('method') },
      })
    }
  })
})
