// How changes are asked for: versions, idempotency, pages, search and bodies. Held on people, and the same for everything.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newPerson } from './matrix-rows.ts'
import { type AdminServer, problem, startAdmin } from './support.ts'

const users = '/api/admin/users'

describe('changes over the admin API', () => {
  let server: AdminServer
  let admin: string
  beforeAll(async () => {
    server = await startAdmin('postgres')
    admin = await server.tokenOf('admin@mercy.example')
  })
  afterAll(() => server.close())

  const patch = (id: string, body: unknown, headers: Record<string, string> = {}) =>
    server.call(admin, `${users}/${id}`, { method: 'PATCH', body, headers })
  const create = (body: unknown, headers: Record<string, string> = {}, token = admin) =>
    server.call(token, users, { body, headers })
  const countOf = async (email: string) =>
    Number(
      (await server.database.run('select count(*) as n from mlpipes_auth.accounts where email = $1', [email]))[0]?.[
        'n'
      ],
    )
  const pathsOf = (answer: { readonly body: Record<string, unknown> }) =>
    (answer.body['errors'] as { path: string }[]).map(({ path }) => path)

  describe('versions', () => {
    it('are shown as ETag, asked for as If-Match, and new after each change', async () => {
      const id = await newPerson(server, 'mercy')
      const read = await server.call(admin, `${users}/${id}`)
      const etag = read.headers.get('etag') ?? ''
      expect(etag).toBe('"1.1"')
      const changed = await patch(id, { name: 'Second Name' }, { 'if-match': etag })
      expect(changed).toMatchObject({ status: 200, body: { name: 'Second Name' } })
      expect(changed.headers.get('etag')).toBe('"2.1"')
      expect(await patch(id, { name: 'Third Name' }, { 'if-match': etag })).toMatchObject({
        status: 412,
        body: { type: problem('version_stale') },
      })
      expect((await server.call(admin, `${users}/${id}`)).body['name']).toBe('Second Name')
    })

    it.each([
      ['none', {}, 428],
      ['a star, which would be whatever it is', { 'if-match': '*' }, 428],
      ['a weak tag', { 'if-match': 'W/"1.1"' }, 412],
      ['a tag without quotes', { 'if-match': '1.1' }, 412],
      ['half a version', { 'if-match': '"1"' }, 412],
      ['a number that no version reaches', { 'if-match': '"9999999999.1"' }, 412],
      ['a list of others', { 'if-match': '"9.9", "1.2"' }, 412],
      ['a list in which it is weak', { 'if-match': '"9.9", W/"1.1"' }, 412],
      ['a star in a list', { 'if-match': '"9.9", *' }, 412],
      ['a list without end', { 'if-match': Array.from({ length: 11 }, () => '"1.1"').join(', ') }, 400],
      ['another version of the place', { 'if-match': '"1.2"' }, 412],
    ])('%s changes nothing', async (_name, headers, status) => {
      const id = await newPerson(server, 'mercy')
      expect((await patch(id, { name: 'Changed' }, headers as Record<string, string>)).status).toBe(status)
      expect((await server.call(admin, `${users}/${id}`)).body['name']).toBe('New Person')
    })

    it.each([
      '"1.1", "9.9"',
      '"9.9" , "1.1"',
      '"9.9","1","1.1",',
      'W/"9.9", "other, tag", "1.1"',
      `${Array.from({ length: 9 }, (_, n) => `"${n + 2}.1"`).join(', ')}, "1.1"`,
    ])('are any of a list (RFC 9110 §13.1.1): %s', async (tags) => {
      const id = await newPerson(server, 'mercy')
      const changed = await patch(id, { name: 'Changed' }, { 'if-match': tags })
      expect(changed).toMatchObject({ status: 200, body: { name: 'Changed' } })
      expect(changed.headers.get('etag')).toBe('"2.1"')
      const events = (await server.audit('account.updated')).filter((event) => event.accountId === id)
      expect(events, 'once').toHaveLength(1)
    })

    it('stay as they are when nothing is changed, and are asked for all the same', async () => {
      const id = await newPerson(server, 'mercy')
      const same = await patch(id, {}, { 'if-match': '"1.1"' })
      expect(same).toMatchObject({ status: 200, body: { name: 'New Person' } })
      expect(same.headers.get('etag')).toBe('"1.1"')
      expect((await patch(id, {}, { 'if-match': '"2.1"' })).status).toBe(412)
      expect((await patch(id, {})).status).toBe(428)
      const events = (await server.audit('account.updated')).filter((event) => event.accountId === id)
      expect(events, 'no change, no row').toEqual([])

      const organization = (tag: string) =>
        server.call(admin, '/api/admin/organization', { method: 'PATCH', body: {}, headers: { 'if-match': tag } })
      const etag = (await server.call(admin, '/api/admin/organization')).headers.get('etag') ?? ''
      const kept = await organization(etag)
      expect([kept.status, kept.headers.get('etag')]).toEqual([200, etag])
      expect((await organization('"999"')).status).toBe(412)
      expect((await organization(`"999", ${etag}`)).status).toBe(200)
      expect(await server.audit('organization.updated')).toEqual([])
    })

    it.each([
      ['role', '/api/admin/roles', { name: 'unchanged', description: 'Reads.', permissions: ['user:read'] }, 'name'],
      ['webhook', '/api/admin/webhooks', { url: 'https://receiver.example/', events: ['account.disabled'] }, 'id'],
    ])('of a %s stay too, without an audit row', async (name, path, body, key) => {
      const made = await server.call(admin, path, { method: 'POST', body })
      expect(made.status).toBe(201)
      const etag = made.headers.get('etag') ?? ''
      const empty = (tag: string) =>
        server.call(admin, `${path}/${String(made.body[key])}`, {
          method: 'PATCH',
          body: {},
          headers: { 'if-match': tag },
        })
      const kept = await empty(etag)
      expect([kept.status, kept.headers.get('etag')]).toEqual([200, etag])
      expect((await empty('"999"')).status).toBe(412)
      expect(await server.audit(`${name}.updated`)).toEqual([])
    })

    it('let one of twenty changes at once win', async () => {
      const id = await newPerson(server, 'mercy')
      const answers = await Promise.all(
        Array.from({ length: 20 }, (_, n) => patch(id, { name: `Name ${n}` }, { 'if-match': '"1.1"' })),
      )
      expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array.from({ length: 19 }, () => 412)])
    })
  })

  describe('Idempotency-Key', () => {
    it('makes twenty creations at once one', async () => {
      const body = { email: 'once@new.example', name: 'Once Only' }
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => create(body, { 'idempotency-key': 'key of twenty' })),
      )
      for (const { status } of answers) expect([201, 409]).toContain(status)
      expect(await countOf(body.email)).toBe(1)
      const again = await create(body, { 'idempotency-key': 'key of twenty' })
      expect(again.status).toBe(201)
      expect(again.headers.get('idempotency-replayed')).toBe('true')
      const first = answers.find((one) => one.status === 201 && !one.headers.has('idempotency-replayed'))
      expect(again.text).toBe(first?.text)
      for (const name of ['etag', 'location']) expect(again.headers.get(name)).toBe(first?.headers.get(name))
      const mails = server.server.mails().filter(({ to }) => to === body.email)
      expect(mails.length).toBeLessThanOrEqual(1)
    })

    it('is refused for another request, and is somebody else’s for another caller', async () => {
      const headers = { 'idempotency-key': 'mine' }
      expect((await create({ email: 'mine@new.example', name: 'Mine' }, headers)).status).toBe(201)
      expect(await create({ email: 'other@new.example', name: 'Mine' }, headers)).toMatchObject({
        status: 422,
        body: { type: problem('idempotency_key_reused') },
      })
      const second = await server.tokenOf('second@mercy.example')
      const answer = await create({ email: 'theirs@new.example', name: 'Theirs' }, headers, second)
      expect(answer.status).toBe(201)
      expect(answer.headers.has('idempotency-replayed')).toBe(false)
    })

    it('keeps nothing readable, nothing that was refused, and nothing past its day', async () => {
      const headers = { 'idempotency-key': 'kept' }
      expect((await create({ email: 'no address', name: 'Kept' }, headers)).status).toBe(400)
      expect((await create({ email: 'kept@new.example', name: 'Kept' }, headers)).status).toBe(201)
      const rows = await server.database.run('select key_hash, sealed_answer from mlpipes_auth.idempotency_keys', [])
      expect(JSON.stringify(rows)).not.toContain('kept')
      await server.database.run("update mlpipes_auth.idempotency_keys set expires_at = now() - interval '1 second'", [])
      expect((await create({ email: 'later@new.example', name: 'Kept' }, headers)).status).toBe(201)
    })

    it.each([
      ['empty', ''],
      ['256 characters', 'x'.repeat(256)],
      ['beyond ASCII', 'clé'],
    ])('is refused when it is %s', async (_name, key) => {
      const answer = await create({ email: 'key@new.example', name: 'Key' }, { 'idempotency-key': key })
      expect(answer).toMatchObject({ status: 400 })
      expect(pathsOf(answer)).toEqual(['Idempotency-Key'])
      expect(await countOf('key@new.example')).toBe(0)
    })

    it('may have 255 characters', async () => {
      const headers = { 'idempotency-key': 'x'.repeat(255) }
      expect((await create({ email: 'longest@new.example', name: 'Key' }, headers)).status).toBe(201)
    })
  })

  describe('F75: pages', () => {
    const list = (query: string, token = admin) => server.call(token, `${users}?${query}`)
    const emailsOf = ({ body }: { readonly body: Record<string, unknown> }) =>
      (body['items'] as { email: string }[]).map(({ email }) => email)

    it('hold everybody once, in order', async () => {
      for (let n = 0; n < 5; n += 1) await newPerson(server, 'mercy')
      const all = emailsOf(await list('limit=100'))
      const found: string[] = []
      let cursor = ''
      for (;;) {
        const page = await list(`limit=3${cursor}`)
        expect(emailsOf(page).length).toBeLessThanOrEqual(3)
        found.push(...emailsOf(page))
        if (page.body['next'] === null) break
        cursor = `&cursor=${encodeURIComponent(String(page.body['next']))}`
      }
      expect(found).toEqual(all)
      expect(found.some((email) => email.endsWith('@hope.example'))).toBe(false)
    })

    it.each(['0', '101', '-1', '1e9', 'NaN', '1.5', '', '050', '1000000000'])('refuse limit=%s', async (limit) => {
      const answer = await list(`limit=${limit}`)
      expect(answer.status).toBe(400)
      expect(pathsOf(answer)).toEqual(['limit'])
    })

    it.each(['1', '100'])('take limit=%s', async (limit) => {
      expect((await list(`limit=${limit}`)).status).toBe(200)
    })

    it('refuse a cursor that is made up, changed, or of another filter, list or organisation', async () => {
      const { body } = await list('limit=1')
      const next = String(body['next'])
      const [key = '', mac = ''] = next.split('.')
      const elsewhere = await server.tokenOf('admin@hope.example')
      const refused = [
        await list(`cursor=x`),
        await list(`cursor=${key}`),
        await list(`cursor=${key}.${mac}.x`),
        await list(`cursor=${Buffer.from('["zz"]').toString('base64url')}.${mac}`),
        await list(`cursor=${key}.${'A'.repeat(43)}`),
        await list(`role=member&cursor=${next}`),
        await list(`cursor=${next}`, elsewhere),
        await server.call(admin, `/api/admin/guests?cursor=${next}`),
        await list(`cursor=${'x'.repeat(1_025)}`),
      ]
      for (const answer of refused) {
        expect(answer.status, answer.text).toBe(400)
        expect(pathsOf(answer)).toEqual(['cursor'])
      }
      expect((await list(`limit=50&cursor=${next}`)).status).toBe(200)
    })
  })

  describe('F74: search', () => {
    const find = async (q: string) => {
      const answer = await server.call(admin, `${users}?q=${encodeURIComponent(q)}`)
      return answer.status === 200
        ? (answer.body['items'] as { name: string }[]).map(({ name }) => name)
        : answer.status
    }

    it('finds a text as it stands', async () => {
      const named = async (name: string) => {
        const id = await newPerson(server, 'mercy')
        await server.database.run('update mlpipes_auth.accounts set name = $2 where id = $1', [id, name])
      }
      for (const name of ['100% Sure', "O'Neil", 'Under_Score', 'Back\\Slash', 'Zoë Ünal']) await named(name)
      expect(await find('%')).toEqual(['100% Sure'])
      expect(await find('_')).toEqual(['Under_Score'])
      expect(await find('\\')).toEqual(['Back\\Slash'])
      expect(await find("o'n")).toEqual(["O'Neil"])
      expect(await find('Ünal')).toEqual(['Zoë Ünal'])
      expect(await find('a%n')).toEqual([])
      expect(await find('x'.repeat(100))).toEqual([])
    })

    it('refuses what is too long, empty or no text', async () => {
      expect(await find('x'.repeat(101))).toBe(400)
      expect(await find('')).toBe(400)
      expect((await server.call(admin, `${users}?q=a%00b`)).status).toBe(400)
      expect((await server.call(admin, `${users}?q=%ED%A0%80`)).status).toBeLessThan(500)
    })
  })

  describe('bodies', () => {
    const good = { email: 'body@new.example', name: 'Body' }
    it.each(['text/plain', 'application/x-www-form-urlencoded', 'application/jsonx', 'application/json\t; a=b'])(
      'C2: are JSON and not %s',
      async (type) => {
        const sent = { body: JSON.stringify(good), headers: { 'content-type': type } }
        expect(await server.call(admin, users, sent)).toMatchObject({ status: 415 })
        expect(await countOf(good.email)).toBe(0)
      },
    )

    it.each([
      ['roots that are no object', '"text"', ['']],
      ['a list', '[]', ['']],
      ['null', 'null', ['']],
      ['broken JSON', '{', ['']],
      ['an id', JSON.stringify({ ...good, id: 'acc_mine' }), ['id']],
      [
        'an organisation',
        JSON.stringify({ ...good, organization_id: 'x', organization: 'hope' }),
        ['organization_id', 'organization'],
      ],
      ['a password', JSON.stringify({ ...good, password: 'Chosen-By-Admin-1' }), ['password']],
      ['a member called constructor', JSON.stringify({ ...good, constructor: { prototype: { admin: true } } }), ['']],
      ['__proto__', `{"email":"${good.email}","name":"x","__proto__":{"admin":true}}`, ['']],
      ['a role that can be none', JSON.stringify({ ...good, roles: ['Org Admin'] }), ['roles.0']],
      ['a role twice', JSON.stringify({ ...good, roles: ['nurse', 'nurse'] }), ['roles']],
      ['33 roles', JSON.stringify({ ...good, roles: Array.from({ length: 33 }, (_, n) => `r${n}`) }), ['roles']],
      ['NUL', JSON.stringify({ ...good, name: 'a\0b' }), ['name']],
      ['half a surrogate pair', '{"email":"body@new.example","name":"\\ud800"}', ['name']],
      ['direction marks', JSON.stringify({ ...good, name: 'abc\u202e' }), ['name']],
      ['a number for a name', JSON.stringify({ ...good, name: 7 }), ['name']],
      ['17 levels', JSON.stringify({ ...good, x: JSON.parse('['.repeat(17) + ']'.repeat(17)) }), ['']],
      ['20,000 levels (F91)', `{"x":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, ['']],
    ])('F72: refuse %s by name', async (_name, body, paths) => {
      const answer = await server.call(admin, users, { body })
      expect(answer, answer.text).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
      for (const path of paths) expect(pathsOf(answer)).toContain(path)
      expect(await countOf(good.email)).toBe(0)
    })

    it('end at 64 KiB', async () => {
      const body = (length: number) => JSON.stringify({ x: 'x'.repeat(length - 8) })
      expect((await server.call(admin, users, { body: body(65_536) })).status).toBe(400)
      expect((await server.call(admin, users, { body: body(65_537) })).status).toBe(413)
    })

    it('are not taken by GET and DELETE', async () => {
      const id = await newPerson(server, 'mercy')
      const path = `${users}/${id}/sessions/some`
      expect((await server.call(admin, path, { method: 'DELETE', body: {} })).status).toBe(400)
    })
  })
})
