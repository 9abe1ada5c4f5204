// Domains: claimed, shown to be one's own by a record of a real name server, and what follows for who may sign up where.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { maxDomains } from '../../src/admin/domains.ts'
import { ApiClient, good } from '../api/support.ts'
import { authorizationUrl, Browser, redirectUri } from '../support/client.ts'
import { linkIn, mailTo } from '../support/mails.ts'
import { type NameServer, startNameServer } from '../support/name-server.ts'
import { mainDatabase } from '../support/server.ts'
import { newOrganization } from './organization-rows.ts'
import { type AdminServer, type ApiAnswer, problem, seed, startAdmin } from './support.ts'

const path = '/api/admin/domains'
const open = { signup: 'open' as const }
const file = {
  ...seed,
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: open },
    { slug: 'hope', name: 'Hope Clinic', policy: open },
    { slug: 'platform', name: 'Platform' },
  ],
  clients: [
    ...(seed.clients ?? []),
    {
      client_id: 'ward',
      client_name: 'Ward',
      organization: 'mercy',
      redirect_uris: [redirectUri],
      token_endpoint_auth_method: 'none' as const,
      grant_types: ['authorization_code' as const],
      scope: 'openid',
    },
  ],
}

describe.each(mainDatabase)('domains on %s', (kind) => {
  let server: AdminServer
  let names: NameServer
  beforeAll(async () => {
    names = await startNameServer()
    server = await startAdmin(kind, file, { environment: { ENABLE_SIGNUP: 'true' }, nameServers: [names.address] })
  })
  afterAll(async () => {
    await server.close()
    await names.close()
  })

  const as = async (slug: 'mercy' | 'hope', suffix = '', sent: { method?: string; body?: unknown } = {}) =>
    server.call(await server.tokenOf(`admin@${slug}.example`), `${path}${suffix}`, sent)
  const claim = (slug: 'mercy' | 'hope', domain: string) => as(slug, '', { body: { domain } })
  const verify = (slug: 'mercy' | 'hope', id: unknown) => as(slug, `/${String(id)}/verify`, { body: {} })
  /** Puts the record of a claim into DNS, beside one of somebody else, in two chunks as long records come. */
  function publish({ body }: ApiAnswer) {
    const { name, value } = { name: '', value: '', ...Object(body['record']) }
    names.records.set(String(name), [['v=spf1 -all'], [String(value).slice(0, 20), String(value).slice(20)]])
  }
  const prove = async (slug: 'mercy' | 'hope', domain: string) => {
    const claimed = await claim(slug, domain)
    publish(claimed)
    return verify(slug, claimed.body['id'])
  }
  const signUp = (email: string, organization: string, client = new ApiClient(server)) =>
    client.post('/signup', { email, password: good, name: 'Nia New', organization })

  it('are claimed, verified by their record, listed and given up', async () => {
    const claimed = await claim('mercy', ' Staff.Mercy.Example. ')
    expect(claimed).toMatchObject({
      status: 201,
      body: {
        domain: 'staff.mercy.example',
        verifiedAt: null,
        record: { type: 'TXT', name: '_mlpipes-auth.staff.mercy.example' },
      },
    })
    expect(Object(claimed.body['record']).value).toMatch(/^mlpipes-auth-verification=[\w-]{43}$/)
    const id = String(claimed.body['id'])
    expect(claimed.headers.get('location')).toBe(`${path}/${id}`)
    const early = await verify('mercy', id)
    expect(early).toMatchObject({ status: 409, body: { type: problem('not_possible') } })
    expect(JSON.stringify(early.body['errors'])).toContain('_mlpipes-auth.staff.mercy.example')
    publish(claimed)
    const done = await verify('mercy', id)
    expect(done).toMatchObject({ status: 200, body: { id, domain: 'staff.mercy.example' } })
    expect(done.body['verifiedAt']).not.toBeNull()
    names.records.clear()
    expect(await verify('mercy', id), 'what is verified is not asked for again').toMatchObject({ body: done.body })
    expect((await as('mercy')).body).toMatchObject({ items: [{ id }], next: null })
    expect((await as('hope')).body).toMatchObject({ items: [] })
    expect(await as('mercy', `/${id}`, { method: 'DELETE' })).toMatchObject({ status: 204 })
    expect(await as('mercy', `/${id}`, { method: 'DELETE' })).toMatchObject({ status: 404 })
    const facts = async (name: string) => (await server.audit(name)).map(({ details }) => details)
    for (const name of ['domain.added', 'domain.verified', 'domain.removed'])
      expect(await facts(name)).toEqual([{ domain: 'staff.mercy.example' }])
  })

  it.each([
    ['MÜNCHEN-Klinik.example', 'xn--mnchen-klinik-wob.example'],
    ['ｆｕｌｌ.example', 'full.example'],
    ['a.b.c.d.example', 'a.b.c.d.example'],
  ])('are kept in one spelling: %s', async (written, domain) => {
    expect(await claim('hope', written)).toMatchObject({ status: 201, body: { domain } })
    expect(await claim('hope', domain), 'and claimed once').toMatchObject({ status: 409 })
  })

  it.each([
    'com',
    'mercy',
    '192.0.2.1',
    '*.mercy.example',
    'a..example',
    '-a.example',
    'user@mercy.example',
    'x y.example',
  ])('are not %s', async (domain) => {
    expect(await claim('hope', domain)).toMatchObject({ status: 400, body: { errors: [{ path: 'domain' }] } })
  })

  it('takes no other record for the right one, and tells what is missing from who does not answer', async () => {
    const claimed = await claim('mercy', 'records.example')
    const id = claimed.body['id']
    const name = '_mlpipes-auth.records.example'
    const { value } = { value: '', ...Object(claimed.body['record']) }
    const wrong = [[], [[`${value}x`]], [[value.slice(0, -1)]], [[value.toUpperCase()]], [[` ${value}`]]]
    for (const records of wrong) {
      names.records.set(name, records)
      expect((await verify('mercy', id)).status).toBe(409)
    }
    names.records.set('records.example', [[value]])
    names.records.delete(name)
    expect((await verify('mercy', id)).status, 'at the domain itself is somewhere else').toBe(409)
    names.records.set(name, [[value]])
    for (const mood of ['broken', 'mute'] as const) {
      names.mood = mood
      const answer = await verify('mercy', id)
      names.mood = 'well'
      expect(answer.status).toBe(409)
      expect(JSON.stringify(answer.body['errors'])).toContain('gave no answer')
    }
    expect((await verify('mercy', id)).status).toBe(200)
    await as('mercy', `/${String(id)}`, { method: 'DELETE' })
  })

  it('have one owner: of twenty that verify the same at once, one is it', async () => {
    const root = await server.tokenOf('root@platform.example')
    const claims = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const organization = await newOrganization(server)
        const at = (suffix = '') => `${path}${suffix}?organization=${organization}`
        const { body } = await server.call(root, at(), { body: { domain: 'contested.example' } })
        return { id: String(body['id']), value: String(Object(body['record']).value), at }
      }),
    )
    names.records.set(
      '_mlpipes-auth.contested.example',
      claims.map(({ value }) => [value]),
    )
    const answers = await Promise.all(claims.map(({ id, at }) => server.call(root, at(`/${id}/verify`), { body: {} })))
    expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array.from({ length: 19 }, () => 409)])
    const refused = answers.find(({ status }) => status === 409)
    expect(refused?.body['type']).toBe(problem('already_exists'))
    const rows = await server.database.run(
      "select count(*)::integer as owners from mlpipes_auth.organization_domains where domain = 'contested.example' and verified_at is not null",
      [],
    )
    expect(rows).toEqual([{ owners: 1 }])
  })

  it('are at most so many, however many are claimed at once', async () => {
    const organization = await newOrganization(server)
    const root = await server.tokenOf('root@platform.example')
    const add = (n: number) =>
      server.call(root, `${path}?organization=${organization}`, { body: { domain: `d${n}.example` } })
    await server.database.run(
      `insert into mlpipes_auth.organization_domains (id, organization_id, domain, challenge)
       select $1 || n, $1, 'filler' || n || '.example', 'x' from generate_series(1, $2::integer) as n`,
      [organization, maxDomains - 2],
    )
    const answers = await Promise.all(Array.from({ length: 6 }, (_, n) => add(n)))
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(2)
    expect(answers.filter(({ status }) => status === 409)).toHaveLength(4)
    const page = await server.call(root, `${path}?organization=${organization}&limit=30`)
    const rest = await server.call(root, `${path}?organization=${organization}&limit=30&cursor=${page.body['next']}`)
    expect([page.body['items'], rest.body['items']].map((items) => [items].flat().length)).toEqual([30, 20])
  })

  it('decide who signs up: only addresses of one’s own, and nobody with an address of another', async () => {
    expect((await signUp('any@where.example', 'mercy')).status, 'anybody before').toBe(202)
    const early = new ApiClient(server)
    expect((await signUp('early@where.example', 'mercy', early)).status).toBe(202)
    await prove('mercy', 'mercy-staff.example')
    const refused = await signUp('any@where.example', 'mercy')
    expect(refused).toMatchObject({ status: 400, body: { errors: [{ path: 'email' }] } })
    expect((await signUp('x@sub.mercy-staff.example', 'mercy')).status, 'it stands for itself alone').toBe(400)
    expect((await signUp('nia@MERCY-staff.example', 'mercy')).status).toBe(202)
    expect((await mailTo(server, 'nia@MERCY-staff.example')).text).toContain('/confirm?')
    // Elsewhere nobody comes with an address that is theirs, verified domain there or not.
    expect((await signUp('nia@mercy-staff.example', 'hope')).status).toBe(400)
    expect((await signUp('nia@other.example', 'hope')).status).toBe(202)
    // A link that was mailed before is asked again when it is used.
    const page = await early.browser.follow(
      await early.browser.request(linkIn(await mailTo(server, 'early@where.example'))),
    )
    const code = /class="shown-code"[^>]*>([A-Z0-9-]+)</.exec(page.text)?.[1] ?? ''
    expect(code).not.toBe('')
    expect((await early.post('/signup/confirm', { code })).status).toBe(401)
    const made = await server.database.run(
      "select count(*)::integer as made from mlpipes_auth.accounts where email_normalized = 'early@where.example'",
      [],
    )
    expect(made).toEqual([{ made: 0 }])
  })

  // A verified domain kept people out at sign-up alone: the administrator of any other organisation made an account with an
  // address of it, at home there, and so did whoever accepted an invitation of theirs.
  describe('keep accounts with their addresses at home', () => {
    const at = 'mercy-home.example'
    beforeAll(async () => {
      expect((await prove('mercy', at)).status).toBe(200)
    })
    const ask = async (slug: 'mercy' | 'hope', what: 'users' | 'invitations', email: string) =>
      server.call(await server.tokenOf(`admin@${slug}.example`), `/api/admin/${what}`, {
        body: { email, ...(what === 'users' ? { name: 'N' } : {}) },
      })
    const refused = {
      status: 400,
      body: { errors: [{ path: 'email', message: expect.stringContaining('another organisation') }] },
    }
    const homeOf = async (email: string) =>
      (
        await server.database.run(
          `select o.slug from mlpipes_auth.accounts a join mlpipes_auth.organizations o on o.id = a.organization_id
            where a.email_normalized = $1`,
          [email],
        )
      ).map((row) => row['slug'])
    const accept = async (link: string, form: Record<string, string>) => {
      const browser = new Browser(server)
      return browser.submit(await browser.follow(await browser.request(link)), '/invite', form)
    }

    it.each(['users', 'invitations'] as const)('whoever asks for %s, and is not told whose they are', async (what) => {
      for (const email of [`ceo@${at}`, `CEO@${at.toUpperCase()}`]) {
        const answer = await ask('hope', what, email)
        expect(answer).toMatchObject(refused)
        expect(answer.text.replaceAll(at, '')).not.toMatch(/mercy/i)
      }
      expect(await homeOf(`ceo@${at}`)).toEqual([])
      expect((await ask('hope', what, `ceo@sub.${at}`)).status, 'it stands for itself alone').toBe(201)
    })

    it('and binds nobody at home, who also takes others in', async () => {
      for (const email of [`cto@${at}`, 'contractor@where.example']) {
        expect((await ask('mercy', 'users', email)).status).toBe(201)
        expect(await homeOf(email)).toEqual(['mercy'])
        expect((await ask('mercy', 'invitations', `invited.${email}`)).status).toBe(201)
      }
    })

    it('and keeps nobody with an account from being a guest elsewhere', async () => {
      const email = `guest@${at}`
      expect((await ask('mercy', 'users', email)).status).toBe(201)
      expect(await ask('hope', 'users', email), 'as for an address without an account').toMatchObject(refused)
      expect((await ask('hope', 'invitations', email)).status).toBe(201)
      expect((await accept(linkIn(await mailTo(server, email, 2)), {})).text).toContain('Welcome')
      expect(await homeOf(email)).toEqual(['mercy'])
    })

    it('and is asked again when an invitation of before is accepted', async () => {
      const email = 'early@late-home.example'
      expect((await ask('hope', 'invitations', email)).status).toBe(201)
      const link = linkIn(await mailTo(server, email))
      expect((await prove('mercy', 'late-home.example')).status).toBe(200)
      expect((await accept(link, { name: 'Early', password: good })).status).toBe(410)
      expect(await homeOf(email)).toEqual([])
      const [refusal] = await server.audit('link.refused')
      expect(refusal?.details).toEqual({ kind: 'invite', reason: 'address_elsewhere', attempts: 1 })
    })
  })

  it('leave addresses in another spelling no way round', async () => {
    await prove('hope', 'bücher.example')
    expect((await signUp('a@bücher.example', 'hope')).status).toBe(202)
    expect((await signUp('b@xn--bcher-kva.example', 'hope')).status).toBe(202)
    expect((await signUp('c@BÜCHER.example', 'mercy')).status).toBe(400)
    expect((await signUp('d@xn--bcher-kva.example', 'mercy')).status).toBe(400)
  })

  it('are said on the page too', async () => {
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'ward', { scope: 'openid' }).url))
    const form = await browser.request(`${new URL(page.url).pathname}/sign-up`)
    const answer = await browser.submit(form, '/sign-up', { name: 'N', email: 'x@bücher.example', password: good })
    expect(answer.status).toBe(400)
    expect(answer.text).toContain('does not take that address')
  })
})
