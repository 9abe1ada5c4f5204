// What an administrator does to people, followed to its end: mails, sign-ins, tokens, sessions, audit.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Browser } from '../support/client.ts'
import { linkIn, mailTo } from '../support/mails.ts'
import { databaseKinds, password } from '../support/server.ts'
import { newFactor, newGuest, newPerson, newSession, organizationId } from './matrix-rows.ts'
import { type AdminServer, problem, signIn, startAdmin } from './support.ts'

const chosen = 'Lavender-Kayak-93-Moss'

describe.each(databaseKinds)('people over the admin API on %s', (kind) => {
  let server: AdminServer
  let admin: string
  beforeAll(async () => {
    server = await startAdmin(kind)
    admin = await server.tokenOf('admin@mercy.example')
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[]) => server.database.run(statement, values)
  const users = '/api/admin/users'
  const act = (id: string, what: string, body: unknown = {}) => server.call(admin, `${users}/${id}/${what}`, { body })
  const events = async (accountId: string) =>
    (await server.audit()).filter((event) => event.accountId === accountId).map(({ name }) => name)
  /** A colleague with a token of their own. */
  async function colleague(name: string) {
    const email = `${name}@mercy.example`
    await server.apply({
      accounts: [{ email, name, password, organization: 'mercy', roles: ['auditor'], emailVerified: true }],
    })
    const [row] = await run('select id from mlpipes_auth.accounts where email = $1', [email])
    return { email, id: String(row?.['id']), token: await signIn(server, email) }
  }

  it('creates somebody without a password, who chooses one by a mailed link (ASVS 6.4.1)', async () => {
    const body = {
      email: ' New.Doctor@Mercy.example ',
      name: 'New Doctor',
      roles: ['physician'],
      metadata: { ward: 'B4' },
    }
    const made = await server.call(admin, users, { body })
    expect(made).toMatchObject({
      status: 201,
      body: { email: 'New.Doctor@Mercy.example', emailVerified: false, hasPassword: false, roles: ['physician'] },
    })
    const id = String(made.body['id'])
    expect(made.headers.get('location')).toBe(`${users}/${id}`)
    expect(await server.call(admin, users, { body: { ...body, email: 'new.doctor@mercy.EXAMPLE' } })).toMatchObject({
      status: 409,
      body: { type: problem('already_exists') },
    })
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(linkIn(await mailTo(server, 'New.Doctor@Mercy.example'))))
    const done = await browser.submit(page, '/recover', { password: chosen, code: '' })
    expect(done.status, done.text.slice(0, 400)).toBe(200)
    expect((await server.call(admin, `${users}/${id}`)).body).toMatchObject({ hasPassword: true, emailVerified: true })
    expect(await events(id)).toEqual(expect.arrayContaining(['account.created', 'membership.created', 'link.sent']))
  })

  it('switches an account off: nothing of it works at the next request; and on again, with nothing revived', async () => {
    const { id, email, token } = await colleague('off')
    expect((await server.call(token, users)).status).toBe(200)
    expect((await act(id, 'disable')).body).toMatchObject({ disabledAt: expect.any(String) })
    expect((await server.call(token, users)).status).toBe(401)
    await expect(signIn(server, email)).rejects.toThrow()
    const names = await events(id)
    expect(names).toEqual(expect.arrayContaining(['account.disabled', 'session.ended', 'access.ended']))
    expect((await act(id, 'disable')).status, 'a second time changes nothing').toBe(200)
    expect((await events(id)).filter((name) => name === 'account.disabled')).toHaveLength(1)
    expect((await act(id, 'enable')).body).toMatchObject({ disabledAt: null })
    expect((await server.call(token, users)).status).toBe(401)
    expect((await server.call(await signIn(server, email), users)).status).toBe(200)
  })

  it('ends sessions, all or one, and shows those of the organisation', async () => {
    const { id, email, token } = await colleague('sessions')
    const elsewhere = await newSession(server, id, 'hope')
    const shown = await server.call(admin, `${users}/${id}/sessions`)
    const [session, ...others] = shown.body['items'] as { id: string }[]
    expect(others).toEqual([])
    expect(shown.text).not.toContain(elsewhere)
    const path = `${users}/${id}/sessions/${session?.id}`
    expect((await server.call(admin, path, { method: 'DELETE' })).status).toBe(204)
    expect((await server.call(admin, path, { method: 'DELETE' })).status).toBe(404)
    expect((await server.call(token, users)).status).toBe(401)
    const again = await signIn(server, email)
    expect((await act(id, 'end-sessions')).body).toMatchObject({ sessions: 2 })
    expect((await server.call(again, users)).status).toBe(401)
  })

  it('mails a link to a new password, and ends nothing unless told to', async () => {
    const { id, email, token } = await colleague('reset')
    expect((await act(id, 'reset-password')).status).toBe(202)
    expect(linkIn(await mailTo(server, email))).toContain('/recover?token=')
    expect((await server.call(token, users)).status).toBe(200)
    expect((await act(id, 'reset-password', { endSessions: true })).status).toBe(202)
    expect((await server.call(token, users)).status).toBe(401)
    await act(id, 'disable')
    expect(await act(id, 'reset-password')).toMatchObject({ status: 409, body: { type: problem('not_possible') } })
  })

  it('has a password changed at the next sign-in', async () => {
    const { id, email } = await colleague('change')
    expect((await act(id, 'require-password-change')).body).toMatchObject({ passwordMustChange: true })
    await expect(signIn(server, email)).rejects.toThrow(/Choose a new password/)
    const bare = await newPerson(server, 'mercy')
    await run('delete from mlpipes_auth.password_credentials where account_id = $1', [bare])
    expect(await act(bare, 'require-password-change')).toMatchObject({ status: 409 })
  })

  it('lets a lost second factor be replaced within a day, ends access and tells the owner', async () => {
    const [email, id] = ['auditor@mercy.example', server.ids.get('auditor@mercy.example') ?? '']
    const token = await server.tokenOf(email)
    expect((await act(id, 'reset-mfa')).body).toMatchObject({ secondFactors: 0, factorResetUntil: expect.any(String) })
    expect((await server.call(token, users)).status).toBe(401)
    expect(await events(id)).toEqual(expect.arrayContaining(['totp.removed', 'factor.reset', 'access.ended']))
    expect((await mailTo(server, email)).subject).toMatch(/\S/)
    expect(await act(id, 'reset-password'), 'a mailbox is not enough meanwhile').toMatchObject({ status: 409 })
  })

  it('resets no second factor where there is none: it would lock out whoever needs none', async () => {
    const id = await newPerson(server, 'mercy')
    const refused = await act(id, 'reset-mfa')
    expect(refused).toMatchObject({ status: 409, body: { type: problem('not_possible') } })
    expect(refused.body['errors']).toEqual([{ path: '', message: 'has no second factor; nothing to reset' }])
    expect((await server.call(admin, `${users}/${id}`)).body).toMatchObject({ factorResetUntil: null })
    expect(await events(id)).toEqual([])
    // Half a set-up is none; a whole one is.
    await newFactor(server, id)
    await run('update mlpipes_auth.totp_credentials set confirmed_at = null where account_id = $1', [id])
    expect((await act(id, 'reset-mfa')).status).toBe(409)
    await run('update mlpipes_auth.totp_credentials set confirmed_at = now() where account_id = $1', [id])
    expect((await act(id, 'reset-mfa')).status).toBe(200)
    expect((await act(id, 'reset-mfa')).status, 'while it is open').toBe(200)
    await run("update mlpipes_auth.accounts set factor_reset_until = now() - interval '1 hour' where id = $1", [id])
    expect((await act(id, 'reset-mfa')).status, 'after it has lapsed: nothing else lets them in').toBe(200)
  })

  it('changes a name and details, and nothing else', async () => {
    const id = await newPerson(server, 'mercy')
    const patch = (body: unknown, tag: string) =>
      server.call(admin, `${users}/${id}`, { method: 'PATCH', body, headers: { 'if-match': tag } })
    expect((await patch({ metadata: { npi: '1234567893' } }, '"1.1"')).body).toMatchObject({ name: 'New Person' })
    for (const member of ['email', 'roles', 'organizationId', 'disabledAt', 'id'])
      expect((await patch({ [member]: 'x' }, '"2.1"')).status, member).toBe(400)
    expect((await patch({ metadata: { npi: '1234567890' } }, '"2.1"')).status).toBe(400)
  })

  it('invites, lists and withdraws; an accepted invitation of somebody else makes a guest', async () => {
    const body = { email: 'member@hope.example', roles: ['auditor'] }
    const made = await server.call(admin, '/api/admin/invitations', { body })
    expect(made).toMatchObject({ status: 201, body: { email: body.email, roles: ['auditor'] } })
    const listed = await server.call(admin, '/api/admin/invitations')
    expect(listed.body['items']).toContainEqual(expect.objectContaining({ id: made.body['id'], email: body.email }))
    const browser = new Browser(server)
    const link = linkIn(await mailTo(server, body.email))
    const page = await browser.follow(await browser.request(link))
    const joined = await browser.submit(page, '/invite', {})
    expect(joined.status, joined.text.slice(0, 400)).toBe(200)
    const guests = await server.call(admin, '/api/admin/guests?q=member%40hope')
    expect(guests.body['items']).toMatchObject([{ email: body.email, roles: ['auditor'] }])
    const withdrawn = await server.call(admin, '/api/admin/invitations', { body: { email: 'gone@new.example' } })
    const path = `/api/admin/invitations/${withdrawn.body['id']}`
    expect((await server.call(admin, path, { method: 'DELETE' })).status).toBe(204)
    expect((await server.call(admin, path, { method: 'DELETE' })).status).toBe(404)
    const dead = await new Browser(server).request(linkIn(await mailTo(server, 'gone@new.example')))
    const landing = await browser.follow(dead)
    expect(landing.text).not.toContain('name="password"')
  })

  it('lets a guest go: no token of the organisation works, their home goes on', async () => {
    const id = server.ids.get('member@hope.example') ?? ''
    const mercy = await organizationId(server, 'mercy')
    await run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, '{auditor}')
       on conflict (account_id, organization_id) do update set roles = '{auditor}'`,
      [id, mercy],
    )
    const here = await signIn(server, 'member@hope.example', { organization: 'mercy' })
    const home = await signIn(server, 'member@hope.example', { organization: 'hope' })
    expect((await server.call(here, '/api/admin/me')).body).toMatchObject({ organization: { slug: 'mercy' } })
    expect((await server.call(here, users)).status).toBe(200)
    const path = `/api/admin/guests/${id}`
    const etag = (await server.call(admin, path)).headers.get('etag') ?? ''
    expect((await server.call(admin, path, { method: 'DELETE', headers: { 'if-match': etag } })).status).toBe(204)
    expect((await server.call(here, users)).status).toBe(401)
    expect((await server.call(home, '/api/admin/me')).body).toMatchObject({ organization: { slug: 'hope' } })
    expect((await server.call(admin, path)).status).toBe(404)
  })

  it('knows guests from people of its own', async () => {
    const guest = await newGuest(server, 'mercy')
    const own = await newPerson(server, 'mercy')
    expect((await server.call(admin, `${users}/${guest}`)).status).toBe(404)
    expect((await server.call(admin, `/api/admin/guests/${own}`)).status).toBe(404)
    expect((await act(guest, 'disable')).status).toBe(404)
  })
})
