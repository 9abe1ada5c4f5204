// Live sessions over the admin API: who is signed in for an organisation, guests among them, and ending that.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sessionsPerBatch } from '../../src/sessions/ending-all.ts'
import { authorizationUrl, Browser, introspect, obtainTokens, post, redirectUri } from '../support/client.ts'
import { password } from '../support/server.ts'
import { newPerson, newSession, organizationId } from './matrix-rows.ts'
import { type AdminServer, type ApiAnswer, problem, seed, startAdmin } from './support.ts'

const path = '/api/admin/sessions'
const app = (client_id: string, organization: string) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: `App ${client_id}`,
  organization,
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid profile offline_access',
  first_party: true,
  introspection: 'organization' as const,
})
const plain = (name: string, organization: string) => ({
  email: `${name}@${organization}.example`,
  name: `Plain ${name}`,
  password,
  organization,
  emailVerified: true,
})
const file = {
  ...seed,
  accounts: [...(seed.accounts ?? []), plain('nurse', 'mercy'), plain('guest', 'hope'), plain('other', 'hope')],
  clients: [...(seed.clients ?? []), app('ehr', 'mercy'), app('lab', 'mercy'), app('clinic', 'hope')],
}

let server: AdminServer
let mercy: string
let admin: string
beforeAll(async () => {
  server = await startAdmin('postgres', file)
  mercy = await organizationId(server, 'mercy')
  await server.database.run(
    "insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, '{member}')",
    [server.ids.get('guest@hope.example'), mercy],
  )
  admin = await server.tokenOf('admin@mercy.example')
})
afterAll(() => server.close())

interface Item {
  readonly id: string
  readonly account: { readonly email: string }
  readonly organizations: readonly { readonly slug: string }[]
  readonly apps: readonly { readonly clientId: string }[]
}
const itemsOf = (answer: ApiAnswer) => answer.body['items'] as Item[]
const list = (query = '', token = admin) => server.call(token, `${path}?${query}`)
const end = (id: string, token = admin) => server.call(token, `${path}/${id}`, { method: 'DELETE' })
const endAll = (token: string) => server.call(token, `${path}/end-all`, { method: 'POST', body: {} })
const idOf = (email: string) => server.ids.get(email) ?? ''
const newest = async (email: string) => itemsOf(await list(`accountId=${idOf(email)}&limit=1`))[0]?.id ?? ''

/** Signs somebody in, in a browser of their own, and gives the app offline access too. */
async function open(email: string, client: string, scope = 'openid profile', extra: Record<string, string> = {}) {
  const browser = new Browser(server)
  let page = await browser.follow(await browser.request(authorizationUrl(server, client, { scope, ...extra }).url))
  if (page.text.includes('/password"')) page = await browser.submit(page, '/password', { email, password })
  return { browser, tokens: await obtainTokens(server, client, { scope, ...extra }, browser) }
}
const isActive = async (token: string, caller: string) => (await introspect(server, token, caller))['active']

describe('live sessions', () => {
  it('say who, from where, since when, until when, how, and for which apps', async () => {
    const { browser } = await open('nurse@mercy.example', 'ehr')
    await obtainTokens(server, 'lab', { scope: 'openid' }, browser)
    const answer = await list(`accountId=${idOf('nurse@mercy.example')}`)
    expect(itemsOf(answer)).toMatchObject([
      {
        account: { id: idOf('nurse@mercy.example'), name: 'Plain nurse', email: 'nurse@mercy.example' },
        home: true,
        begunHere: true,
        ip: '127.0.0.1',
        acr: 'urn:mlpipes:acr:password',
        amr: ['pwd'],
        organizations: [{ slug: 'mercy' }],
        apps: [{ clientId: 'ehr' }, { clientId: 'lab' }],
      },
    ])
    const one = await server.call(admin, `${path}/${itemsOf(answer)[0]?.id}`)
    expect(one.body).toEqual(itemsOf(answer)[0])
    // What a browser or a token carries is not in it.
    const cookie = browser.cookies.find(({ name }) => name === 'mlpipes_session')?.value ?? 'none'
    expect(answer.text).not.toContain(cookie)
    const stored = await server.database.run('select id_hash, payload from mlpipes_auth.sessions', [])
    for (const row of stored) {
      expect(answer.text).not.toContain(String(row['id_hash']))
      for (const [, grantId] of JSON.stringify(row['payload']).matchAll(/"grantId":"([^"]+)"/g))
        expect(answer.text).not.toContain(grantId)
    }
  })

  it('are found by app, of the organisation’s own alone', async () => {
    expect(itemsOf(await list('clientId=lab')).map(({ account }) => account.email)).toEqual(['nurse@mercy.example'])
    await open('guest@hope.example', 'clinic', 'openid', { organization: 'hope' })
    expect(itemsOf(await list('clientId=clinic'))).toEqual([])
    expect(itemsOf(await list('clientId=console'))).toEqual([])
    expect((await list('clientId=%27')).status).toBe(400)
  })

  it('come newest first, page by page, each once', async () => {
    const person = await newPerson(server, 'mercy')
    for (let n = 0; n < 7; n += 1) await newSession(server, person, 'mercy')
    // Signed in at the same moment: then the id decides.
    await server.database.run(
      "update mlpipes_auth.sessions set signed_in_at = date_trunc('hour', now()) where account_id = $1",
      [person],
    )
    const walked: string[] = []
    let cursor = ''
    do {
      const { body } = await list(`accountId=${person}&limit=2${cursor}`)
      walked.push(...(body['items'] as Item[]).map(({ id }) => id))
      cursor = body['next'] === null ? '' : `&cursor=${body['next']}`
    } while (cursor !== '')
    expect(walked).toHaveLength(7)
    expect(walked).toEqual([...new Set(walked)].sort().reverse())
    const times = (await list()).body['items'] as { signedInAt: string }[]
    expect(times.map(({ signedInAt }) => signedInAt)).toEqual(
      times
        .map(({ signedInAt }) => signedInAt)
        .sort()
        .reverse(),
    )
  })

  it('are none any more once they are over', async () => {
    const person = await newPerson(server, 'mercy')
    const uid = await newSession(server, person, 'mercy')
    await server.database.run('update mlpipes_auth.sessions set idle_expires_at = now() where uid = $1', [uid])
    expect(itemsOf(await list(`accountId=${person}`))).toEqual([])
    expect((await server.call(admin, `${path}/${uid}`)).status).toBe(404)
    expect((await end(uid)).status).toBe(404)
  })
})

describe('a guest', () => {
  it('is seen by an organisation where they are one, without what they do elsewhere', async () => {
    const email = 'guest@hope.example'
    const here = await open(email, 'ehr', 'openid profile', { organization: 'mercy' })
    await obtainTokens(server, 'clinic', { scope: 'openid', organization: 'hope' }, here.browser)
    const seen = await list(`accountId=${idOf(email)}`)
    expect(itemsOf(seen)).toMatchObject([
      { home: false, organizations: [{ slug: 'mercy' }], apps: [{ clientId: 'ehr' }] },
    ])
    expect(seen.text).not.toMatch(/clinic|Hope/)
    const root = await server.tokenOf('root@platform.example')
    const all = await server.call(root, `${path}/${itemsOf(seen)[0]?.id}?organization=${mercy}`)
    expect((all.body['organizations'] as { slug: string }[]).map(({ slug }) => slug)).toEqual(['hope', 'mercy'])
  })

  it('is seen by every organisation that the session was used for, wherever it was begun', async () => {
    const email = 'guest@hope.example'
    const begun = await open(email, 'clinic', 'openid', { organization: 'hope' })
    const used = await obtainTokens(server, 'ehr', { scope: 'openid', organization: 'mercy' }, begun.browser)
    const [item] = itemsOf(await list(`accountId=${idOf(email)}`))
    expect(item).toMatchObject({ begunHere: false, organizations: [{ slug: 'mercy' }], apps: [{ clientId: 'ehr' }] })
    expect((await end(item?.id ?? '')).status).toBe(204)
    expect(await isActive(used.access_token, 'ehr')).toBe(false)
    // Each sees in its own log that it is over and by whom: that which let the guest in, and that whose administrator it was.
    const logOf = async (admin: string) => {
      const token = await server.tokenOf(admin)
      const names = 'name=session.created&name=session.ended&name=access.ended'
      const answer = await server.call(token, `/api/audit/logs?sessionUid=${item?.id}&${names}`)
      const events = answer.body['items'] as { name: string; actorId: string | null }[]
      return events.map(({ name, actorId }) => ({ name, actorId }))
    }
    const actorId = idOf('admin@mercy.example')
    expect(await logOf('admin@mercy.example')).toEqual([{ name: 'access.ended', actorId }])
    const created = { name: 'session.created', actorId: idOf(email) }
    expect(await logOf('admin@hope.example')).toEqual([{ name: 'session.ended', actorId }, created])
  })

  it('is signed out by it, everywhere that this session was used, and of no other session', async () => {
    const email = 'guest@hope.example'
    const elsewhere = await open(email, 'clinic', 'openid', { organization: 'hope' })
    const here = await open(email, 'ehr', 'openid profile', { organization: 'mercy' })
    const there = await obtainTokens(server, 'clinic', { scope: 'openid', organization: 'hope' }, here.browser)
    expect((await end(await newest(email))).status).toBe(204)
    expect(await isActive(here.tokens.access_token, 'ehr')).toBe(false)
    expect(await isActive(there.access_token, 'clinic')).toBe(false)
    expect(await isActive(elsewhere.tokens.access_token, 'clinic')).toBe(true)
  })

  it('of another organisation is nobody here', async () => {
    const { tokens } = await open('other@hope.example', 'clinic')
    const hope = await server.tokenOf('admin@hope.example')
    const [session] = itemsOf(await list(`accountId=${idOf('other@hope.example')}`, hope))
    expect(itemsOf(await list(`accountId=${idOf('other@hope.example')}`))).toEqual([])
    expect((await end(session?.id ?? '')).status).toBe(404)
    expect(await isActive(tokens.access_token, 'clinic')).toBe(true)
  })
})

describe('ending one', () => {
  it('ends its tokens, offline ones too, once, and says by whom', async () => {
    const email = 'nurse@mercy.example'
    const { tokens } = await open(email, 'ehr', 'openid profile offline_access', { prompt: 'consent' })
    const other = await open(email, 'ehr')
    const uid = itemsOf(await list(`accountId=${idOf(email)}`))[1]?.id ?? ''
    const answers = await Promise.all(Array.from({ length: 20 }, () => end(uid)))
    expect(answers.map(({ status }) => status).sort()).toEqual([204, ...Array(19).fill(404)])
    expect(await isActive(tokens.access_token, 'ehr')).toBe(false)
    const form = { grant_type: 'refresh_token', refresh_token: tokens.refresh_token ?? '' }
    expect((await post(server, '/oauth/token', 'ehr', form)).body['error']).toBe('invalid_grant')
    expect(await isActive(other.tokens.access_token, 'ehr')).toBe(true)
    const ended = (await server.audit('session.ended')).filter(({ sessionUid }) => sessionUid === uid)
    expect(ended).toMatchObject([
      { details: { reason: 'ended_by_administrator' }, actorId: idOf('admin@mercy.example'), organizationId: mercy },
    ])
  })

  it('of an administrator is not for who holds less', async () => {
    const support = await server.tokenOf('support@mercy.example')
    const uid = await newSession(server, await newPerson(server, 'mercy', ['org_admin']), 'mercy')
    expect(await end(uid, support)).toMatchObject({ status: 403, body: { type: problem('forbidden') } })
    const member = await newSession(server, await newPerson(server, 'mercy'), 'mercy')
    expect((await end(member, support)).status).toBe(204)
  })
})

describe('ending all', () => {
  it('asks for a step-up, and for all that those who are signed out may hold', async () => {
    server.clock.now = new Date(Date.now() + 600_000)
    expect(await endAll(admin)).toMatchObject({ status: 401, body: { type: problem('step_up_required') } })
    server.clock.now = undefined
    const support = await server.tokenOf('support@mercy.example')
    expect(await endAll(support)).toMatchObject({ status: 403, body: { type: problem('forbidden') } })
  })

  it('ends every session of the organisation and nobody else’s, in batches, each once', async () => {
    const nurse = await open('nurse@mercy.example', 'ehr', 'openid profile offline_access', { prompt: 'consent' })
    const guest = await open('guest@hope.example', 'ehr', 'openid', { organization: 'mercy' })
    const other = await open('other@hope.example', 'clinic')
    // A refresh token that has outlived its session.
    const left = await open('nurse@mercy.example', 'lab', 'openid offline_access', { prompt: 'consent' })
    await server.database.run('update mlpipes_auth.sessions set ended_at = now() where uid = $1', [
      await newest('nurse@mercy.example'),
    ])
    const person = await newPerson(server, 'mercy')
    await server.database.run(
      `insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, signed_in_at, idle_expires_at, absolute_expires_at)
       select 'bulk' || n, 'bulk' || n, '{}', $1, $2, now(), now() + interval '1 hour', now() + interval '1 hour'
       from generate_series(1, $3::integer) as n`,
      [person, mercy, sessionsPerBatch * 2],
    )
    const live = `select count(*)::integer as n from mlpipes_auth.sessions s where ended_at is null and account_id is not null
      and (organization_id = $1 or exists (select from mlpipes_auth.session_organizations x
        where x.session_uid = s.uid and x.organization_id = $1))`
    const before = Number((await server.database.run(live, [mercy]))[0]?.['n'])
    const answers = await Promise.all(Array.from({ length: 20 }, () => endAll(admin)))
    for (const answer of answers) expect(answer.status).toBe(200)
    const ended = answers.reduce((sum, { body }) => sum + Number(body['sessions']), 0)
    expect(ended, 'all but the one in which it was asked').toBe(before - 1)
    expect(itemsOf(await list()).map(({ account }) => account.email)).toEqual(['admin@mercy.example'])
    expect(await isActive(nurse.tokens.access_token, 'ehr')).toBe(false)
    expect(await isActive(guest.tokens.access_token, 'ehr')).toBe(false)
    expect(await isActive(other.tokens.access_token, 'clinic')).toBe(true)
    for (const [client, token] of [
      ['ehr', nurse.tokens.refresh_token],
      ['lab', left.tokens.refresh_token],
    ] as const) {
      const form = { grant_type: 'refresh_token', refresh_token: token ?? '' }
      expect((await post(server, '/oauth/token', client, form)).body['error']).toBe('invalid_grant')
    }
    const logged = await server.database.run(
      "select count(*)::integer as n from mlpipes_auth.audit_events where name = 'session.ended' and session_uid like 'bulk%'",
      [],
    )
    expect(logged[0]?.['n']).toBe(sessionsPerBatch * 2)
  })
})
