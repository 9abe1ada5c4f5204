// What administrators have mailed to people. An account that one made greeted its owner with "Somebody asked for a new
// password … your password stays as it is", and led to a dead link where the policy knows no passwords; and nothing limited
// how many invitations and reset mails they sent: twelve requests filled one mailbox with twelve mails.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { throttleLimits } from '../../src/credentials/throttle.ts'
import { createSecrets, sha256 } from '../../src/crypto/secrets.ts'
import { maxOpenInvitations } from '../../src/invitations/open.ts'
import { Browser } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { databaseKinds, mainDatabase, testSecret } from '../support/server.ts'
import { newPerson, organizationId } from './matrix-rows.ts'
import { newOrganization } from './organization-rows.ts'
import { type AdminServer, type ApiAnswer, problem, startAdmin } from './support.ts'

const users = '/api/admin/users'
const invitations = '/api/admin/invitations'
const environment = { ENABLE_MAGIC_LINKS: 'true' }
const chosen = 'Lavender-Kayak-93-Moss'
const { tries } = throttleLimits.mailsPerAccount

describe.each(databaseKinds)('mails that administrators send on %s', (kind) => {
  let server: AdminServer
  let admin: string
  beforeAll(async () => {
    server = await startAdmin(kind, undefined, { environment })
    admin = await server.tokenOf('admin@mercy.example')
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  const create = (email: string, query = '', token = admin) =>
    server.call(token, `${users}${query}`, { body: { email, name: 'Nia New' } })
  const invite = (email: string, query = '', token = admin) =>
    server.call(token, `${invitations}${query}`, { body: { email } })
  const follow = async (browser: Browser, path: string) => browser.follow(await browser.request(path))
  const emailOf = async (id: string) =>
    String((await run('select email from mlpipes_auth.accounts where id = $1', [id]))[0]?.['email'])

  describe('to somebody new', () => {
    it('say who made the account and what to do, and nothing of a password that never was', async () => {
      const email = 'welcome@mercy.example'
      expect((await create(email)).status).toBe(201)
      const mail = await mailTo(server, email)
      expect(mail.subject).toBe('Your account at Mercy Hospital')
      for (const part of [mail.text, mail.html]) {
        expect(part).toContain('An administrator of Mercy Hospital made an account for you')
        expect(part).toMatch(/[Cc]hoose your password/)
        expect(part).toContain('for 30 minutes')
        expect(part).not.toMatch(/Somebody asked|stays as it is|new password/)
      }
      const browser = new Browser(server)
      const done = await browser.submit(await follow(browser, linkIn(mail)), '/recover', { password: chosen, code: '' })
      expect(done.status, done.text.slice(0, 300)).toBe(200)
      const sent = (await server.audit('link.sent')).map(({ details }) => details)
      expect(sent).toContainEqual({ kind: 'reset' })
    })

    it('lead to a link for signing in where the policy allows no passwords', async () => {
      const organization = await newOrganization(server)
      await run(`update mlpipes_auth.organizations set policy = '{"loginMethods":["magic_link"]}' where id = $1`, [
        organization,
      ])
      const root = await server.tokenOf('root@platform.example')
      const email = 'linked@new.example'
      const made = await create(email, `?organization=${organization}`, root)
      expect(made.status, made.text).toBe(201)
      const mail = await mailTo(server, email)
      expect(mail.text).toContain('You need no password')
      expect(mail.text, 'no link that dies').not.toContain('token=')
      expect(mail.text.split(/\s/)).toContain(`${server.issuer}/account`)
      const about = (await server.audit()).filter(({ accountId }) => accountId === made.body['id'])
      expect(about.map(({ name }) => name)).not.toContain('link.sent')
      const browser = new Browser(server)
      const page = await follow(browser, '/account')
      const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
      const at = `${new URL(page.url).pathname}/link`
      await browser.follow(await browser.request(at, { form: { csrf, email, password: '' } }))
      const landing = await follow(browser, linkIn(await mailTo(server, email, 2)))
      const inside = await browser.submit(landing, '/link/continue', {})
      expect(new URL(inside.url).pathname, inside.text.slice(0, 300)).toBe('/account')
      expect((await server.call(root, `${users}/${made.body['id']}?organization=${organization}`)).body).toMatchObject({
        emailVerified: true,
        hasPassword: false,
      })
    })
  })

  describe('are at most so many to one address (F56)', () => {
    const limited = (answer: ApiAnswer) => {
      expect(answer).toMatchObject({ status: 429, body: { type: problem('throttled') } })
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
      expect(Number(answer.headers.get('retry-after'))).toBeLessThanOrEqual(900)
      expect(answer.text).toContain('at most 3 mails of this kind in 15 minutes')
    }

    it('when they are reset mails, with those that the owner asked for; others get theirs', async () => {
      const [one, other] = [await newPerson(server, 'mercy'), await newPerson(server, 'mercy')]
      const reset = (id: string) => server.call(admin, `${users}/${id}/reset-password`, { body: {} })
      const answers = []
      for (let sent = 0; sent < tries; sent += 1) answers.push((await reset(one)).status)
      expect(answers).toEqual(Array.from({ length: tries }, () => 202))
      limited(await reset(one))
      expect((await reset(other)).status).toBe(202)
      expect(mailsTo(server, await emailOf(one)).length).toBeLessThanOrEqual(tries)
      expect((await run(`select id_hash from mlpipes_auth.mail_links where account_id = $1`, [one])).length).toBe(tries)
      await mailTo(server, await emailOf(one), tries)
    })

    it('when twelve are asked for at once', async () => {
      const id = await newPerson(server, 'mercy')
      const answers = await Promise.all(
        Array.from({ length: 12 }, () => server.call(admin, `${users}/${id}/reset-password`, { body: {} })),
      )
      expect(answers.filter(({ status }) => status === 202)).toHaveLength(tries)
      for (const answer of answers.filter(({ status }) => status !== 202)) limited(answer)
    })

    it('and somebody of another organisation is on nobody’s budget', async () => {
      const id = await newPerson(server, 'mercy')
      const hope = await server.tokenOf('admin@hope.example')
      for (let tried = 0; tried <= tries; tried += 1)
        expect((await server.call(hope, `${users}/${id}/reset-password`, { body: {} })).status).toBe(404)
      expect((await server.call(admin, `${users}/${id}/reset-password`, { body: {} })).status).toBe(202)
    })

    it('when they are invitations, in whatever spelling, for each organisation by itself', async () => {
      const hope = await server.tokenOf('admin@hope.example')
      for (const email of ['many@new.example', ' Many@new.example', 'MANY@NEW.example'])
        expect((await invite(email)).status).toBe(201)
      limited(await invite('many@new.example'))
      expect((await invite('many@new.example', '', hope)).status).toBe(201)
      expect((await invite('few@new.example')).status).toBe(201)
    })

    it('of which what is refused is none, nor what was answered before', async () => {
      const body = { email: 'counted@new.example', roles: ['platform_admin'] }
      for (let tried = 0; tried <= tries; tried += 1)
        expect((await server.call(admin, invitations, { body })).status).toBe(403)
      const headers = { 'idempotency-key': 'invited once' }
      const counted = { body: { email: body.email }, headers }
      for (let sent = 0; sent <= tries + 1; sent += 1)
        expect((await server.call(admin, invitations, counted)).status).toBe(201)
      for (let sent = 1; sent < tries; sent += 1) expect((await invite(body.email)).status).toBe(201)
      limited(await invite(body.email))
    })

    it('and on no budget that others share', async () => {
      const counters = async () =>
        Number((await run('select coalesce(sum(failures), 0) as n from mlpipes_auth.sign_in_attempts'))[0]?.['n'])
      const before = await counters()
      await invite('alone@new.example')
      expect((await counters()) - before).toBe(1)
    })

    it('but one administrator writes to many people from one place', async () => {
      const many = throttleLimits.mailsPerAddress.tries + 1
      for (let sent = 0; sent < many; sent += 1) expect((await invite(`one${sent}@many.example`)).status).toBe(201)
    })
  })

  describe('that invite', () => {
    it('end the older ones of the same organisation to the same address', async () => {
      const email = 'again@new.example'
      const [first, other] = [await invite(email), await invite('beside@new.example')]
      const links = [linkIn(await mailTo(server, email))]
      const before = (await server.audit('invitation.withdrawn')).length
      const second = await invite('Again@New.example')
      expect(second.status).toBe(201)
      links.push(linkIn(await mailTo(server, 'Again@New.example')))
      const hope = await server.tokenOf('admin@hope.example')
      expect((await invite(email, '', hope)).status, 'another organisation’s is another').toBe(201)
      const ended = (await server.audit('invitation.withdrawn')).slice(0, -before || undefined)
      expect(ended).toMatchObject([
        { organizationId: await organizationId(server, 'mercy'), actorId: server.ids.get('admin@mercy.example') },
      ])
      const listed = await server.call(admin, `${invitations}?limit=100`)
      expect(listed.text).not.toContain(String(first.body['id']))
      for (const open of [second, other]) expect(listed.text).toContain(String(open.body['id']))
      expect((await follow(new Browser(server), links[0] ?? '')).status).toBe(410)
      expect((await follow(new Browser(server), links[1] ?? '')).status).toBe(200)
    })

    it('leave one open of several at once', async () => {
      const answers = await Promise.all(Array.from({ length: tries }, () => invite('atonce@new.example')))
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 201))
      const listed = await server.call(admin, `${invitations}?limit=100`)
      expect(listed.text.match(/atonce@new\.example/g)).toHaveLength(1)
    })
  })
})

describe.each(mainDatabase)('open invitations on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind)
  })
  afterAll(() => server.close())

  it('are at most so many in an organisation, however many are sent at once', async () => {
    const organization = await newOrganization(server)
    const root = await server.tokenOf('root@platform.example')
    const invite = (email: string) =>
      server.call(root, `${invitations}?organization=${organization}`, { body: { email } })
    const secrets = createSecrets(testSecret)
    const rows = Array.from({ length: maxOpenInvitations - 1 }, (_, n) => {
      const idHash = sha256(`seeded ${n}`)
      const payload = { email: `seeded${n}@new.example`, roles: [], by: { type: 'operator' } }
      return { idHash, sealed: secrets.seal(JSON.stringify(payload), `mail-link:${idHash}`) }
    })
    await server.database.run(
      `insert into mlpipes_auth.mail_links (id_hash, kind, organization_id, sealed, expires_at)
        select id_hash, 'invite', $3, sealed, now() + interval '1 hour' from unnest($1::text[], $2::text[]) as s (id_hash, sealed)`,
      [rows.map(({ idHash }) => idHash), rows.map(({ sealed }) => sealed), organization],
    )
    const answers = await Promise.all(Array.from({ length: 4 }, (_, n) => invite(`last${n}@new.example`)))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409, 409])
    const refused = answers.find(({ status }) => status === 409)
    expect(refused?.body).toMatchObject({ type: problem('not_possible') })
    expect(refused?.text).toContain(`at most ${maxOpenInvitations} open invitations`)
    expect((await invite('seeded7@new.example')).status, 'a newer one takes the place of the older').toBe(201)
    expect((await invite('past@new.example')).status).toBe(409)
    const open = `select count(*)::integer as open from mlpipes_auth.mail_links
      where organization_id = $1 and used_at is null`
    expect(await server.database.run(open, [organization])).toEqual([{ open: maxOpenInvitations }])
  })
})
