// What refused input is told: what it must be, in words. It read "Invalid input", or the text of a regular expression.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mainDatabase } from '../support/server.ts'
import { type AdminServer, problem, startAdmin } from './support.ts'

describe.each(mainDatabase)('words for what is refused on %s', (kind) => {
  let server: AdminServer
  let admin: string
  beforeAll(async () => {
    server = await startAdmin(kind)
    admin = await server.tokenOf('admin@mercy.example')
  })
  afterAll(() => server.close())

  it.each([
    ['ip', '1.2.3', 'must be a whole address, such as 192.0.2.7'],
    ['ip', '10.0.0.0/8', 'must be a whole address'],
    ['name', 'foo', 'must be the name of an event, such as login.failed'],
    ['accountId', 'a'.repeat(129), 'must be an id: 1 to 128 of the characters'],
    ['clientId', 'a b', 'must be an id'],
    ['sessionUid', '', 'must be an id'],
  ])('a filter %s that is %j', async (member, value, words) => {
    for (const path of ['/api/audit/logs', '/api/audit/export']) {
      const answer = await server.call(admin, `${path}?${new URLSearchParams({ [member]: value })}`)
      expect(answer).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
      expect(answer.body['errors']).toEqual([{ path: member, message: expect.stringContaining(words) }])
    }
  })

  it('more names of events than may be asked for at once', async () => {
    const names = (count: number) => Array.from({ length: count }, () => 'name=login.failed').join('&')
    expect((await server.call(admin, `/api/audit/logs?${names(10)}`)).status).toBe(200)
    const answer = await server.call(admin, `/api/audit/logs?${names(11)}`)
    expect(answer.body['errors']).toEqual([{ path: 'name', message: expect.stringContaining('at most 10 of them') }])
  })

  it.each([
    ['a form', 'application/x-www-form-urlencoded', 'name=x'],
    ['no type at all', undefined, undefined],
    ['text', 'text/plain', '{}'],
  ])('a body that is %s', async (_name, type, body) => {
    const id = server.ids.get('victim@mercy.example')
    for (const path of ['/api/admin/users', `/api/admin/users/${id}/disable`]) {
      const answer = await fetch(new URL(path, server.issuer), {
        method: 'POST',
        headers: { authorization: `Bearer ${admin}`, ...(type === undefined ? {} : { 'content-type': type }) },
        ...(body === undefined ? {} : { body }),
      })
      expect(answer.status).toBe(415)
      const { detail } = Object(await answer.json())
      expect(detail).toContain('Content-Type: application/json')
      expect(detail).toContain('{}')
      expect(detail).not.toContain('form')
    }
  })
})
