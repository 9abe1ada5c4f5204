// An invitation waits for up to 72 hours, and gave the roles that were fixed at sending whatever had become of whoever sent
// it: an administrator who was switched off or demoted went on giving what they held. It counts while its inviter could
// still send it, and is spent when they could not.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { administrationKey } from '../../src/admin/rules.ts'
import { runIn } from '../../src/db/database.ts'
import { Browser } from '../support/client.ts'
import { linkIn, mailTo } from '../support/mails.ts'
import { databaseKinds } from '../support/server.ts'
import { organizationId } from './matrix-rows.ts'
import { type AdminServer, signIn, startAdmin } from './support.ts'

const good = 'Willow-Tractor-52-Fern'
const inviter = 'second@mercy.example'

describe.each(databaseKinds)('an invitation on %s', (kind) => {
  let server: AdminServer
  let mercy: string
  beforeAll(async () => {
    server = await startAdmin(kind)
    mercy = await organizationId(server, 'mercy')
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  const idOf = (email: string) => server.ids.get(email) ?? ''
  const setRoles = (email: string, roles: readonly string[]) =>
    run('update mlpipes_auth.memberships set roles = $2 where account_id = $1 and home', [idOf(email), [...roles]])
  const setDisabled = (email: string, disabled: boolean) =>
    run('update mlpipes_auth.accounts set disabled_at = case when $2 then now() end where id = $1', [
      idOf(email),
      disabled,
    ])
  const define = (permissions: readonly string[]) =>
    run(
      `insert into mlpipes_auth.organization_roles (organization_id, name, permissions) values ($1, 'desk', $2)
        on conflict (organization_id, name) do update set permissions = $2`,
      [mercy, [...permissions]],
    )
  const setClient = (permissions: readonly string[], disabled = false) =>
    run(
      `update mlpipes_auth.clients set permissions = $1, disabled_at = case when $2 then now() end where client_id = 'strong'`,
      [[...permissions], disabled],
    )
  const setGuest = (roles: readonly string[] | undefined) =>
    roles === undefined
      ? run('delete from mlpipes_auth.memberships where account_id = $1 and not home', [idOf('member@hope.example')])
      : run(
          `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, $3)
            on conflict (account_id, organization_id) do update set roles = $3`,
          [idOf('member@hope.example'), mercy, [...roles]],
        )

  /** Everybody as they are when they invite. */
  beforeEach(async () => {
    await define([])
    await setDisabled(inviter, false)
    await setRoles(inviter, ['org_admin'])
    await setRoles('root@platform.example', ['platform_admin'])
    await setClient(['user:create', 'membership:write', ...supported])
    await setGuest(['org_admin'])
  })
  const supported = [
    'user:read',
    'session:read',
    'session:revoke',
    'user:reset-password',
    'user:reset-mfa',
    'role:read',
  ]

  let count = 0
  async function invite(token: string, roles: readonly string[], query = '') {
    count += 1
    const email = `invited${count}@new.example`
    const made = await server.call(token, `/api/admin/invitations${query}`, { body: { email, roles } })
    expect(made.status, made.text).toBe(201)
    return { email, id: made.body['id'], link: linkIn(await mailTo(server, email)) }
  }
  async function accept(link: string) {
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    if (page.status !== 200) return page
    return browser.submit(page, '/invite', page.text.includes('name="name"') ? { name: 'New', password: good } : {})
  }
  const rolesOf = async (email: string) =>
    (
      await run(
        `select m.roles from mlpipes_auth.memberships m join mlpipes_auth.accounts a on a.id = m.account_id
          where a.email_normalized = $1 and m.organization_id = $2`,
        [email, mercy],
      )
    ).map((row) => row['roles'])
  const refusals = async () => (await server.audit('link.refused')).map(({ details }) => details)

  const senders = {
    'a person': () => server.tokenOf(inviter),
    'a guest': () => server.tokenOf('member@hope.example', { organization: 'mercy' }),
    'a service client': () => server.serviceToken('strong'),
    'somebody of the platform': () => server.tokenOf('root@platform.example'),
  } as const
  type Sender = keyof typeof senders
  const send = async (sender: Sender, roles: readonly string[]) =>
    invite(await senders[sender](), roles, sender === 'somebody of the platform' ? `?organization=${mercy}` : '')

  it.each(Object.keys(senders) as Sender[])('of %s who is as they were gives what it offers', async (sender) => {
    const { email, link } = await send(sender, ['support', 'nurse'])
    expect((await accept(link)).text).toContain('Welcome')
    expect(await rolesOf(email)).toEqual([['support', 'nurse']])
    expect((await accept(link)).status).toBe(410)
  })

  const ends: readonly (readonly [string, Sender, string[], string, () => Promise<unknown>])[] = [
    ['a person who was switched off', 'a person', ['nurse'], 'inviter_gone', () => setDisabled(inviter, true)],
    ['a person who lost a role', 'a person', ['support'], 'inviter_lacks', () => setRoles(inviter, ['auditor'])],
    ['a person who may invite no more', 'a person', ['nurse'], 'inviter_lacks', () => setRoles(inviter, ['support'])],
    ['a person who offered a role that permits more now', 'a person', ['desk'], 'inviter_lacks', offerMore],
    ['a guest who was let go', 'a guest', ['support'], 'inviter_gone', () => setGuest(undefined)],
    ['a guest who was demoted', 'a guest', ['support'], 'inviter_lacks', () => setGuest(['member'])],
    [
      'a service client that was switched off',
      'a service client',
      ['nurse'],
      'inviter_gone',
      () => setClient(['user:create'], true),
    ],
    [
      'a service client that holds less',
      'a service client',
      ['support'],
      'inviter_lacks',
      () => setClient(['user:create', 'membership:write']),
    ],
    [
      'somebody who left the platform',
      'somebody of the platform',
      ['nurse'],
      'inviter_lacks',
      () => setRoles('root@platform.example', ['org_admin']),
    ],
  ]
  async function offerMore() {
    await define(['policy:write'])
    await run(
      `insert into mlpipes_auth.organization_roles (organization_id, name, permissions) values ($1, 'inviting', $2)
        on conflict (organization_id, name) do nothing`,
      [mercy, ['user:create', 'membership:write']],
    )
    await setRoles(inviter, ['inviting'])
  }

  it.each(ends)('of %s is refused, says so, and is spent', async (_name, sender, roles, reason, end) => {
    const { email, id, link } = await send(sender, roles)
    await end()
    const before = (await refusals()).length
    const answer = await accept(link)
    expect(answer.status).toBe(410)
    expect(answer.text).toContain('This link no longer works')
    expect(answer.text).toContain('ask for a new one')
    expect(await run('select id from mlpipes_auth.accounts where email_normalized = $1', [email])).toEqual([])
    expect((await refusals()).length).toBe(before + 1)
    expect(await refusals()).toContainEqual({ kind: 'invite', reason, attempts: 1 })
    const listed = await server.call(await server.tokenOf('admin@mercy.example'), '/api/admin/invitations')
    expect(listed.text).not.toContain(String(id))
  })

  it('stays spent when its inviter is switched on again', async () => {
    const { link, email } = await send('a person', ['nurse'])
    await setDisabled(inviter, true)
    expect((await accept(link)).status).toBe(410)
    await setDisabled(inviter, false)
    expect((await accept(link)).status).toBe(410)
    expect(await rolesOf(email)).toEqual([])
  })

  it('takes nothing from somebody with an account when it is refused', async () => {
    const { link } = await inviteSomebodyKnown()
    await setDisabled(inviter, true)
    expect((await accept(link)).status).toBe(410)
    expect(await rolesOf('admin@hope.example')).toEqual([])
    expect((await server.audit('link.refused')).map(({ accountId }) => accountId)).toContain(idOf('admin@hope.example'))
  })
  async function inviteSomebodyKnown() {
    const body = { email: 'admin@hope.example', roles: ['nurse'] }
    const made = await server.call(await server.tokenOf(inviter), '/api/admin/invitations', { body })
    expect(made.status, made.text).toBe(201)
    return { link: linkIn(await mailTo(server, body.email)) }
  }

  it('tells the webhooks of the organisation of the new place, and of none that was there', async () => {
    await run(
      `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
        values ('wh_joined', $1, 'https://127.0.0.1:9', '{membership.created}', 'sealed') on conflict do nothing`,
      [mercy],
    )
    const told = () => run(`select body from mlpipes_auth.deliveries where webhook_id = 'wh_joined' order by id`)
    const { email, link } = await send('a person', ['nurse'])
    await accept(link)
    const [row] = await run('select id from mlpipes_auth.accounts where email_normalized = $1', [email])
    const data = { accountId: row?.['id'], roles: ['nurse'] }
    expect(await told()).toMatchObject([{ body: { type: 'membership.created', data } }])
    const again = await server.call(await server.tokenOf(inviter), '/api/admin/invitations', { body: { email } })
    expect(again.status).toBe(201)
    expect((await accept(linkIn(await mailTo(server, email, 2)))).text).toContain('Welcome')
    expect(await told()).toHaveLength(1)
    await run(`delete from mlpipes_auth.webhooks where id = 'wh_joined'`)
  })

  it('asks for no password where the organisation takes none', async () => {
    const setPolicy = (policy: object) =>
      run('update mlpipes_auth.organizations set policy = $2::jsonb where id = $1', [mercy, JSON.stringify(policy)])
    const { email, link } = await send('a person', [])
    await setPolicy({ loginMethods: ['magic_link'] })
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    const accepted = await browser.submit(page, '/invite', { name: 'New' })
    await setPolicy({})
    expect(page.text).toContain('You need no password here')
    expect(page.text).not.toContain('type="password"')
    expect(accepted.status).toBe(200)
    expect(await rolesOf(email)).toEqual([[]])
    const held = `select count(*)::integer as passwords from mlpipes_auth.password_credentials c
      join mlpipes_auth.accounts a on a.id = c.account_id where a.email_normalized = $1`
    expect(await run(held, [email])).toEqual([{ passwords: 0 }])
  })

  it('of an administrator is spent once by 20 at the same moment', async () => {
    const { email, link } = await send('a person', ['support'])
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    const form = { csrf: /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? '', name: 'Race', password: good }
    const answers = await Promise.all(Array.from({ length: 20 }, () => browser.request('/invite', { form })))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(answers.filter(({ status }) => status >= 500)).toEqual([])
    expect(await rolesOf(email)).toEqual([['support']])
  })

  it('of an inviter who has gone is refused once by 20 at the same moment', async () => {
    const { email, link } = await send('a person', ['support'])
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    await setDisabled(inviter, true)
    const before = (await refusals()).length
    const form = { csrf: /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? '', name: 'Race', password: good }
    const answers = await Promise.all(Array.from({ length: 20 }, () => browser.request('/invite', { form })))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([410]))
    expect((await refusals()).length).toBe(before + 1)
    expect(await rolesOf(email)).toEqual([])
  })

  // The embedded database has one connection: nothing happens there meanwhile.
  it.runIf(kind === 'postgres').each([
    ['demoted', 'update mlpipes_auth.memberships set roles = $2 where account_id = $1 and home', () => [['auditor']]],
    ['switched off', 'update mlpipes_auth.accounts set disabled_at = now() where id = $1', () => []],
    [
      'left behind by the role they offer',
      `with held as (select pg_advisory_xact_lock(${administrationKey.replace('$1', '$2')}) where $1::text is not null)
        update mlpipes_auth.organization_roles set permissions = '{policy:write}'
        where organization_id = $2 and name = 'desk' and exists (select from held)`,
      () => [mercy],
    ],
  ])('waits for what is happening to its inviter, who is %s', async (_name, statement, values) => {
    await setRoles(inviter, ['inviting'])
    await run(
      `insert into mlpipes_auth.organization_roles (organization_id, name, permissions) values ($1, 'inviting', $2)
        on conflict (organization_id, name) do nothing`,
      [mercy, ['user:create', 'membership:write']],
    )
    server.forgetTokens()
    const { email, link } = await invite(await signIn(server, inviter), ['desk'])
    let accepted: ReturnType<typeof accept> | undefined
    await server.database.kysely.transaction().execute(async (tx) => {
      await runIn(tx, statement, [idOf(inviter), ...values()])
      accepted = accept(link)
      const first = await Promise.race([accepted, new Promise((resolve) => setTimeout(resolve, 700, 'waits'))])
      expect(first).toBe('waits')
    })
    expect((await accepted)?.status).toBe(410)
    expect(await rolesOf(email)).toEqual([])
  })
})
