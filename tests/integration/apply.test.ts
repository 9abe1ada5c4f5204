// `apply`: idempotent, one transaction, all problems at once, each change audited.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyError } from '../../src/apply/apply.ts'
import { databaseKinds, people, startServer, type TestServer } from '../support/server.ts'

describe.each(databaseKinds)('apply on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(() => server.close())

  const problemsOf = (file: object) =>
    server.apply(file).then(
      () => [],
      (error: ApplyError) => error.problems.map((problem) => problem.path),
    )

  it('changes nothing when the database says so already, and writes no audit row', async () => {
    const before = (await server.audit()).length
    await server.apply(people)
    expect((await server.audit()).length).toBe(before)
  })

  it('audits what it changes, by field', async () => {
    await server.apply({
      accounts: [
        {
          email: 'ada@mercy.example',
          name: 'Ada M. Moreno',
          organization: 'mercy',
          roles: ['auditor'],
          emailVerified: true,
        },
      ],
    })
    const [event] = await server.audit('account.updated')
    expect(event).toMatchObject({ actorType: 'operator', details: { changed: ['name', 'roles'] } })
  })

  it('lists every problem and changes nothing', async () => {
    const file = {
      organizations: [
        { slug: 'new', name: 'New', policy: { session: { idleTimeout: 3_601 }, audit: { retentionDays: 2_189 } } },
      ],
      accounts: [
        { email: 'x@new.example', name: 'X', organization: 'nowhere' },
        { email: 'X@new.example', name: 'X', organization: 'new' },
      ],
    }
    expect(await problemsOf(file)).toEqual([
      'organizations.0.policy',
      'organizations.0.policy',
      'accounts.0.organization',
      'accounts.1',
    ])
    expect(
      await server.database.kysely.selectFrom('organizations').select('id').where('slug', '=', 'new').execute(),
    ).toEqual([])
  })

  it.each([
    [{ organizations: [{ slug: 'Bad Slug', name: 'x' }] }, 'organizations.0.slug'],
    [{ accounts: [{ email: 'a@b.example', name: 'x', organization: 'mercy', surprise: 1 }] }, 'accounts.0'],
    [{ accounts: [{ email: 'no', name: 'x', organization: 'mercy' }] }, 'accounts.0.email'],
    [
      { accounts: [{ email: 'a@b.example', name: 'x', organization: 'mercy', password: 'seven77' }] },
      'accounts.0.password',
    ],
    [
      {
        clients: [{ client_id: 'c', client_name: 'c', organization: 'mercy', redirect_uris: ['http://evil.example/'] }],
      },
      'clients.0.redirect_uris.0',
    ],
    [
      {
        accounts: [
          {
            email: 'a@b.example',
            name: 'x',
            organization: 'mercy',
            password: '$argon2i$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaA',
          },
        ],
      },
      'accounts.0.password',
    ],
    [{ unknown: [] }, '(file)'],
    [[], '(file)'],
  ])('refuses %o', async (file, path) => {
    expect(await problemsOf(file)).toContain(path)
  })

  it('policies that stand at their floor are taken', async () => {
    expect(
      await problemsOf({
        organizations: [
          {
            slug: 'edge',
            name: 'Edge',
            policy: { session: { idleTimeout: 3_600, absoluteLifetime: 86_400 }, audit: { retentionDays: 2_190 } },
          },
        ],
      }),
    ).toEqual([])
  })
})
