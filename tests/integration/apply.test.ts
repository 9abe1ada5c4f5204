// `apply`: idempotent, one transaction, all problems at once, each change audited.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyError } from '../../src/apply/apply.ts'
import { replaceClientSecret, usualOverlapSeconds } from '../../src/clients/secret.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { basic, post } from '../support/client.ts'
import { databaseKinds, people, startServer, type TestServer, testSecret } from '../support/server.ts'

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

  it.each(['https://10.0.0.5/logout', 'https://[fd00::1]/logout', 'http://127.0.0.2/logout', 'http://c.example/'])(
    'refuses sign-outs to %s',
    async (backchannel_logout_uri) => {
      const client = { client_id: 'told', client_secret: 'told-secret-0', client_name: 'Told', organization: 'mercy' }
      const redirect_uris = ['https://c.example/']
      const path = 'clients.0.backchannel_logout_uri'
      expect(await problemsOf({ clients: [{ ...client, redirect_uris, backchannel_logout_uri }] })).toEqual([path])
    },
  )

  it.each([
    'https://c.example/logout',
    'https://8.8.8.8/',
    'http://127.0.0.1/',
    'http://[::1]:8080/',
    'https://localhost/',
  ])('takes sign-outs to %s', async (backchannel_logout_uri) => {
    const client = { client_id: 'told', client_secret: 'told-secret-0', client_name: 'Told', organization: 'mercy' }
    const redirect_uris = ['https://c.example/']
    expect(await problemsOf({ clients: [{ ...client, redirect_uris, backchannel_logout_uri }] })).toEqual([])
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

  describe('a secret that is changed', () => {
    const app = (secret: string | undefined, extra: object = {}) => ({
      clients: [
        {
          client_id: 'rotated',
          client_secret: secret,
          client_name: 'Rotated',
          organization: 'mercy',
          grant_types: ['client_credentials' as const],
          scope: 'openid',
          ...extra,
        },
      ],
    })
    const [first, second, third] = ['first-secret-0', 'second-secret-0', 'third-secret-0'] as const
    const works = async (...wanted: string[]) => {
      const statuses = wanted.map(async (secret) => {
        const form = { grant_type: 'client_credentials' }
        return (await post(server, '/oauth/token', 'rotated', form, { authorization: basic('rotated', secret) })).status
      })
      return (await Promise.all(statuses)).map((status) => status === 200)
    }
    const stored = async () => {
      const [row] = await server.database.run(
        `select previous_secret_digest, previous_secret_until, extract(epoch from previous_secret_until - now()) as left
         from mlpipes_auth.clients where client_id = 'rotated'`,
        [],
      )
      return row
    }

    it('leaves the one of before working for a day, and then no more', async () => {
      await server.apply(app(first))
      expect(await stored()).toMatchObject({ previous_secret_digest: null, previous_secret_until: null })
      await server.apply(app(second))
      expect(await works(first, second)).toEqual([true, true])
      const seconds = Number((await stored())?.['left'])
      expect(seconds).toBeGreaterThan(usualOverlapSeconds - 60)
      expect(seconds).toBeLessThanOrEqual(usualOverlapSeconds)
      await server.database.run(
        "update mlpipes_auth.clients set previous_secret_until = now() where client_id = 'rotated'",
        [],
      )
      expect(await works(first, second)).toEqual([false, true])
    })

    it('is not rotated again by the same file, nor by one that changes something else', async () => {
      await server.apply(app(first))
      const before = await stored()
      const audited = (await server.audit('client.updated')).length
      await server.apply(app(first))
      expect((await server.audit('client.updated')).length).toBe(audited)
      await server.apply(app(first, { client_name: 'Rotated Twice' }))
      const { previous_secret_digest, previous_secret_until } = before ?? {}
      expect(await stored()).toMatchObject({ previous_secret_digest, previous_secret_until })
      expect(await works(first, second)).toEqual([true, true])
    })

    it('is one of two: a third ends the first', async () => {
      await server.apply(app(third))
      expect(await works(first, second, third)).toEqual([true, false, true])
    })

    // An administrator replaced the secret on the page, and the file still says the old one.
    it('ends at once no secret that somebody replaced elsewhere', async () => {
      const [row] = await server.database.run(
        "select organization_id from mlpipes_auth.clients where client_id = 'rotated'",
        [],
      )
      const { secret } = await server.database.kysely.transaction().execute(async (tx) => {
        const replaced = await replaceClientSecret(tx, createSecrets(testSecret), {
          clientId: 'rotated',
          organizationId: String(row?.['organization_id']),
          overlapSeconds: 0,
          actor: { type: 'operator' },
          origin: {},
        })
        return replaced ?? { secret: '' }
      })
      expect(await works(third, secret)).toEqual([false, true])
      await server.apply(app(third))
      expect(await works(third, secret)).toEqual([true, true])
    })

    it('leaves none to an app that proves itself in another way', async () => {
      const none = { token_endpoint_auth_method: 'none', grant_types: ['authorization_code'] }
      const redirect_uris = ['http://localhost:9/callback']
      await server.apply(app(undefined, { ...none, redirect_uris }))
      expect(await stored()).toMatchObject({ previous_secret_digest: null, previous_secret_until: null })
      await server.apply(app(first))
      expect(await stored()).toMatchObject({ previous_secret_digest: null, previous_secret_until: null })
      expect(await works(first, third)).toEqual([true, false])
    })
  })
})
