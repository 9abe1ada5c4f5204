// C11: what is switched off, closed, ended or taken away is refused at the very next request, by whichever door, on the
// other replica too; and what was out there before does not come back with it.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seed as adminSeed, signIn as signInAdmin } from '../admin/support.ts'
import { ApiClient } from '../api/support.ts'
import {
  authorizationUrl,
  Browser,
  introspectBothWays,
  obtainTokens,
  post,
  redeem,
  redirectUri,
} from '../support/client.ts'
import { linkIn } from '../support/mails.ts'
import { type Replicas, startReplicas } from '../support/replicas.ts'
import { password } from '../support/server.ts'

const newPassword = 'Willow-Tractor-52-Fern'

const uses = [
  'sign-in by password',
  'sign-in by link',
  'single sign-on',
  'code exchange',
  'refresh',
  'refresh with offline_access',
  'introspection of an access token',
  'introspection of a refresh token',
  'userinfo',
  'admin API with a token',
  'JSON API with the session',
  '/account with the session',
  'invitation',
  // Last: where it works, it ends everything else.
  'password reset',
] as const
type Use = (typeof uses)[number]

/**
 * `denied`: at once, and what was out there stays dead when the act is undone. `paused`: denied as long as it lasts, and
 * open again afterwards. `stands`: the act is not about it. The last two say why.
 */
type Cell = 'denied' | { readonly paused: string } | { readonly stands: string }

interface Row {
  /** The organisation in which the person acts: at home, or as a guest. */
  readonly within: 'home' | 'guest'
  /** Who invites whom, before the act. */
  readonly invites: { readonly from: 'guest' | 'other' | 'vendor'; readonly whom: 'person' | 'stranger' }
  act(world: World): Promise<void>
  undo(world: World): Promise<void>
  readonly cells: Readonly<Record<Use, Cell>>
}

interface World {
  readonly name: string
  readonly email: string
  readonly accountId: string
  readonly organizations: Readonly<Record<'home' | 'guest' | 'vendor' | 'other', string>>
  readonly client: string
  /** The organisation that the app asks for. */
  readonly slug: string
  /** Where the person is signed in. */
  readonly browser: Browser
}

const anew: Cell = { paused: 'whoever is let in again signs in anew' }
const ofAccount: Cell = { stands: 'it is about the account, which may act' }
const person: Cell = { stands: 'a session is over, its person may begin another' }
const elsewhere: Cell = { stands: 'another organisation offers a place of its own' }
const bound = {
  'code exchange': 'denied',
  refresh: 'denied',
  'introspection of an access token': 'denied',
  'introspection of a refresh token': 'denied',
  userinfo: 'denied',
  'admin API with a token': 'denied',
} as const
const tokens = { ...bound, 'refresh with offline_access': 'denied' } as const
const session = {
  'single sign-on': 'denied',
  'JSON API with the session': 'denied',
  '/account with the session': 'denied',
} as const
const whole = {
  ...tokens,
  ...session,
  'sign-in by password': anew,
  'sign-in by link': 'denied',
  'password reset': 'denied',
} as const
const ofApp = {
  ...tokens,
  'sign-in by password': anew,
  'sign-in by link': {
    paused: 'it proves the person, who goes on with whatever app asked; one that is let in again may',
  },
  'single sign-on': { paused: 'the session goes on without the app, and with it once that is let in again' },
  'JSON API with the session': { stands: 'the session is the person’s, not the app’s' },
  '/account with the session': { stands: 'the session is the person’s, not the app’s' },
  'password reset': ofAccount,
} as const
const ofSession = {
  ...bound,
  ...session,
  'sign-in by password': person,
  'sign-in by link': person,
  'password reset': person,
  invitation: elsewhere,
} as const
const ofGuest = {
  ...whole,
  'password reset': ofAccount,
} as const

const rows: Readonly<Record<string, Row>> = {
  nothing: {
    within: 'home',
    invites: { from: 'other', whom: 'person' },
    act: async () => undefined,
    undo: async () => undefined,
    cells: everything({ stands: 'nothing was done, so that a door that is shut anyway is found' }),
  },
  'the person is disabled': {
    within: 'home',
    invites: { from: 'other', whom: 'person' },
    act: (world) => change(world, 'home', `users/${world.accountId}/disable`, `users/${world.accountId}`),
    undo: (world) => change(world, 'home', `users/${world.accountId}/enable`, `users/${world.accountId}`),
    cells: { ...whole, invitation: { paused: 'the offer of another organisation, which did not take it back' } },
  },
  'the home organisation is closed': {
    within: 'home',
    invites: { from: 'other', whom: 'person' },
    act: (world) => change(world, undefined, `organizations/${world.organizations.home}/close`),
    undo: (world) => change(world, undefined, `organizations/${world.organizations.home}/reopen`),
    cells: { ...whole, invitation: { paused: 'the offer of another organisation, which did not take it back' } },
  },
  'the guest organisation is closed': {
    within: 'guest',
    invites: { from: 'guest', whom: 'stranger' },
    act: (world) => change(world, undefined, `organizations/${world.organizations.guest}/close`),
    undo: (world) => change(world, undefined, `organizations/${world.organizations.guest}/reopen`),
    cells: { ...ofGuest, invitation: 'denied' },
  },
  'the organisation of the app is closed': {
    within: 'home',
    invites: { from: 'vendor', whom: 'stranger' },
    act: (world) => change(world, undefined, `organizations/${world.organizations.vendor}/close`),
    undo: (world) => change(world, undefined, `organizations/${world.organizations.vendor}/reopen`),
    cells: { ...ofApp, invitation: 'denied' },
  },
  'the client is disabled': {
    within: 'home',
    invites: { from: 'other', whom: 'person' },
    act: (world) => change(world, 'vendor', `clients/${world.client}/disable`, `clients/${world.client}`),
    undo: (world) => change(world, 'vendor', `clients/${world.client}/enable`, `clients/${world.client}`),
    cells: { ...ofApp, invitation: elsewhere },
  },
  'the membership is ended': {
    within: 'guest',
    invites: { from: 'guest', whom: 'person' },
    act: (world) => change(world, 'guest', `guests/${world.accountId}`, `guests/${world.accountId}`, 'DELETE'),
    undo: inviteAgain,
    cells: {
      ...ofGuest,
      'sign-in by link': { paused: 'it proves the person, who then has whatever place was given anew' },
      invitation: 'denied',
    },
  },
  'the session is ended by an administrator': {
    within: 'home',
    invites: { from: 'other', whom: 'person' },
    act: endSession,
    undo: signInElsewhere,
    cells: { ...ofSession, 'refresh with offline_access': 'denied' },
  },
  'the person signs out': {
    within: 'home',
    invites: { from: 'other', whom: 'person' },
    act: async ({ browser }) => expect((await new ApiClient(here(), browser).post('/signout')).status).toBe(204),
    undo: signInElsewhere,
    cells: {
      ...ofSession,
      'refresh with offline_access': { stands: 'the person allowed the app to go on without them' },
    },
  },
  'the consent is withdrawn': {
    within: 'home',
    invites: { from: 'other', whom: 'person' },
    act: async ({ browser, client }) => {
      const page = await browser.request('/account/apps')
      expect((await browser.submit(page, '/account/apps/remove', { clientId: client })).text).toContain(
        'No app has access',
      )
    },
    undo: signInElsewhere,
    cells: {
      ...tokens,
      'sign-in by password': { paused: 'the app asks for consent anew, and goes on with what it gets' },
      'sign-in by link': { paused: 'the app asks for consent anew, and goes on with what it gets' },
      'single sign-on': { paused: 'the app asks for consent anew, and goes on with what it gets' },
      'JSON API with the session': { stands: 'the session is the person’s, not the app’s' },
      '/account with the session': { stands: 'the session is the person’s, not the app’s' },
      invitation: elsewhere,
      'password reset': ofAccount,
    },
  },
}

function everything(cell: Cell): Row['cells'] {
  return Object.fromEntries(uses.map((use) => [use, cell])) as Row['cells']
}

let replicas: Replicas
const here = () => replicas.here
const database = () => here().database
const worldsPerRow = ['at once', 'afterwards'] as const
const names = Object.keys(rows).flatMap((_row, index) => worldsPerRow.map((_phase, phase) => `w${index}${phase}`))

beforeAll(async () => {
  replicas = await startReplicas({ environment: { ENABLE_MAGIC_LINKS: 'true' }, seed: adminSeed })
  await here().apply({
    organizations: names.flatMap((name) =>
      ['home', 'guest', 'vendor', 'other'].map((kind) => ({ slug: `${kind}-${name}`, name: `${kind} ${name}` })),
    ),
    accounts: names.map((name) => ({
      email: `person@${name}.example`,
      name: `Person ${name}`,
      password,
      organization: `home-${name}`,
      emailVerified: true,
    })),
    clients: names.flatMap((name) => [
      {
        client_id: `app-${name}`,
        client_secret: `app-${name}-secret-0123456789`,
        client_name: `App ${name}`,
        organization: `vendor-${name}`,
        redirect_uris: [redirectUri],
        grant_types: ['authorization_code' as const, 'refresh_token' as const],
        scope: 'openid profile offline_access admin:read',
        introspection: 'own' as const,
      },
      {
        client_id: `rs-${name}`,
        client_secret: `rs-${name}-secret-0123456789`,
        client_name: `Service ${name}`,
        organization: `vendor-${name}`,
        grant_types: ['client_credentials' as const],
        scope: 'openid',
        introspection: 'organization' as const,
      },
    ]),
  })
  await database().run(
    `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
      select a.id, g.id, false, '{member}' from mlpipes_auth.accounts a join mlpipes_auth.organizations h on h.id = a.organization_id
        join mlpipes_auth.organizations g on g.slug = replace(h.slug, 'home-', 'guest-') where h.slug like 'home-%'`,
    [],
  )
})
afterAll(() => replicas.close())

/** A call of the platform's administrator, whose sign-in is fresh. */
async function admin(path: string, sent: { method?: string; body?: unknown; headers?: Record<string, string> } = {}) {
  // Each code counts once, and nobody waits for the next one.
  token ??= signInAdmin(here(), 'root@platform.example')
  const answer = await fetch(`${here().issuer}/api/admin/${path}`, {
    method: sent.method ?? (sent.body === undefined ? 'GET' : 'POST'),
    headers: {
      authorization: `Bearer ${await token}`,
      ...(sent.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...sent.headers,
    },
    ...(sent.body === undefined ? {} : { body: JSON.stringify(sent.body) }),
  })
  const text = await answer.text()
  expect(answer.ok, `${path}: ${answer.status} ${text}`).toBe(true)
  return { etag: answer.headers.get('etag'), body: text === '' ? {} : JSON.parse(text) }
}
let token: Promise<string> | undefined

type OrganizationName = keyof World['organizations']

async function change(
  world: World,
  within: OrganizationName | undefined,
  path: string,
  versioned?: string,
  method = 'POST',
): Promise<void> {
  const query = within === undefined ? '' : `?organization=${world.organizations[within]}`
  const etag = versioned === undefined ? null : (await admin(`${versioned}${query}`)).etag
  await admin(`${path}${query}`, {
    method,
    ...(method === 'POST' ? { body: {} } : {}),
    headers: etag === null ? {} : { 'if-match': etag },
  })
}

async function endSession(world: World): Promise<void> {
  const within = `organization=${world.organizations.home}`
  const { body } = await admin(`sessions?accountId=${world.accountId}&${within}`)
  expect(body.items).toHaveLength(1)
  await admin(`sessions/${body.items[0].id}?${within}`, { method: 'DELETE' })
}

async function signInElsewhere(world: World): Promise<void> {
  await obtain(world, 'openid profile offline_access admin:read', new Browser(here()), { prompt: 'consent' })
}

async function inviteAgain(world: World): Promise<void> {
  const link = await invite(world, 'guest', world.email)
  expect(await accept(link), 'invited anew').toBe(true)
}

const seen = new Set<string>()
/** The link of a mail that nobody has looked at, whichever replica sent it. */
async function linkMailed(address: string, path: RegExp): Promise<string> {
  for (let left = 250; left > 0; left -= 1) {
    const mails = [...here().server.mails(), ...replicas.there.server.mails()].filter((mail) => mail.to === address)
    const link = mails
      .filter((mail) => mail.text.includes('?token='))
      .map(linkIn)
      .find((one) => path.test(one) && !seen.has(one))
    if (link !== undefined) {
      seen.add(link)
      return link
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error(`no mail to ${address} with a link to ${path}`)
}

async function invite(world: World, from: OrganizationName, email: string): Promise<string> {
  await admin(`invitations?organization=${world.organizations[from]}`, { body: { email } })
  return linkMailed(email, /^\/invite/)
}

async function accept(link: string): Promise<boolean> {
  const browser = new Browser(here())
  const page = await browser.follow(await browser.request(link))
  if (!page.text.includes('/invite"')) return false
  const isNew = page.text.includes('type="password"')
  const done = await browser.submit(page, '/invite', isNew ? { name: 'A Stranger', password: newPassword } : {})
  expect(done.status).toBeLessThan(500)
  return done.status === 200
}

const authorize = (world: World, extra: Record<string, string> = {}) =>
  authorizationUrl(here(), world.client, { organization: world.slug, scope: 'openid profile', ...extra })

const obtain = (world: World, scope: string, browser: Browser, extra: Record<string, string> = {}) =>
  signInAs(world, browser).then(() =>
    obtainTokens(here(), world.client, { organization: world.slug, scope, ...extra }, browser),
  )

async function signInAs(world: World, browser: Browser): Promise<void> {
  const page = await browser.follow(await browser.request(authorize(world).url))
  if (page.text.includes('/password"')) await browser.submit(page, '/password', { email: world.email, password })
}

const hasCode = ({ url }: { readonly url: string }) => new URL(url).searchParams.has('code')

/** Everything that is out there before the act, as ways to use it. */
async function equip(world: World, { invites }: Row): Promise<Readonly<Record<Use, () => Promise<boolean>>>> {
  const { browser, client, email } = world
  await database().run('delete from mlpipes_auth.sign_in_attempts', [])
  const offline = await obtain(world, 'openid profile offline_access admin:read', browser, { prompt: 'consent' })
  const [spent, looked, administers] = [
    await obtain(world, 'openid profile', browser),
    await obtain(world, 'openid profile', browser),
    await obtain(world, 'openid admin:read', browser),
  ]
  const atLink = new Browser(here())
  const linkPage = await atLink.follow(await atLink.request(authorize(world).url))
  const path = new URL(linkPage.url).pathname
  const csrf = /name="csrf" value="([^"]+)"/.exec(linkPage.text)?.[1] ?? ''
  await atLink.request(`${path}/link`, { form: { csrf, email, password: '' } })
  const signInLink = await linkMailed(email, /\/link\?/)
  const lost = new Browser(here())
  const lostPage = await lost.follow(await lost.request(authorize(world).url))
  await lost.submit(await lost.request(`${new URL(lostPage.url).pathname}/forgot`), '/forgot', { email })
  const resetLink = await linkMailed(email, /^\/recover/)
  const whom = invites.whom === 'person' ? email : `stranger@${world.name}.example`
  const invitation = await invite(world, invites.from, whom)
  const waiting = authorize(world)
  const code = new URL((await browser.follow(await browser.request(waiting.url))).url).searchParams.get('code') ?? ''
  const refresh = async (refresh_token = '') =>
    (await post(here(), '/oauth/token', client, { grant_type: 'refresh_token', refresh_token })).status === 200
  const isActive = async (value = '', caller = `rs-${world.name}`) =>
    (await introspectBothWays(here(), value, caller))['active'] === true
  const takes = async (address: string, value: string) =>
    (await fetch(new URL(address, here().issuer), { headers: { authorization: `Bearer ${value}` } })).status === 200

  return {
    async 'sign-in by password'() {
      const fresh = new Browser(here())
      const page = await fresh.follow(await fresh.request(authorize(world).url))
      return page.text.includes('/password"') && hasCode(await fresh.submit(page, '/password', { email, password }))
    },
    async 'sign-in by link'() {
      const page = await atLink.follow(await atLink.request(signInLink))
      return page.text.includes('/link/continue"') && hasCode(await atLink.submit(page, '/link/continue', {}))
    },
    'single sign-on': async () =>
      hasCode(await browser.follow(await browser.request(authorize(world, { prompt: 'none' }).url))),
    'code exchange': async () => (await redeem(here(), client, code, waiting.verifier)).status === 200,
    refresh: () => refresh(spent.refresh_token),
    'refresh with offline_access': () => refresh(offline.refresh_token),
    'introspection of an access token': () => isActive(looked.access_token),
    'introspection of a refresh token': () => isActive(looked.refresh_token, client),
    userinfo: () => takes('/oauth/userinfo', looked.access_token),
    'admin API with a token': () => takes('/api/admin/me', administers.access_token),
    'JSON API with the session': async () => (await new ApiClient(here(), browser).call('/session')).status === 200,
    '/account with the session': async () => (await browser.request('/account')).status === 200,
    invitation: () => accept(invitation),
    async 'password reset'() {
      const reader = new Browser(here())
      const page = await reader.follow(await reader.request(resetLink))
      if (!page.text.includes('/recover"')) return false
      return (await reader.submit(page, '/recover', { password: newPassword })).status === 200
    },
  }
}

async function worldOf(name: string, { within }: Row): Promise<World> {
  const found = await database().run(
    `select o.slug, o.id from mlpipes_auth.organizations o where o.slug like '%-' || $1 order by o.slug`,
    [name],
  )
  const email = `person@${name}.example`
  const [account] = await database().run('select id from mlpipes_auth.accounts where email = $1', [email])
  const idOf = (kind: string) => String(found.find((row) => row['slug'] === `${kind}-${name}`)?.['id'])
  return {
    name,
    email,
    accountId: String(account?.['id']),
    organizations: { home: idOf('home'), guest: idOf('guest'), vendor: idOf('vendor'), other: idOf('other') },
    client: `app-${name}`,
    slug: `${within}-${name}`,
    browser: new Browser(here()),
  }
}

const kindOf = (cell: Cell) => (cell === 'denied' ? cell : 'paused' in cell ? 'paused' : 'stands')

describe('C11: the very next request, on the other replica', () => {
  it('every cell says what is to happen, and why where it is not a refusal', () => {
    for (const [name, { cells }] of Object.entries(rows)) {
      expect(Object.keys(cells).sort(), name).toEqual([...uses].sort())
      for (const cell of Object.values(cells))
        if (cell !== 'denied') expect(Object.values(cell).join().length, name).toBeGreaterThan(20)
    }
  })

  describe.each(Object.keys(rows).map((name, index) => ({ name, index })))('$name', ({ name, index }) => {
    const row = rows[name]
    if (!row) throw new Error(name)
    it.each(worldsPerRow.map((phase, at) => ({ phase, at })))('$phase', async ({ phase, at }) => {
      const world = await worldOf(`w${index}${at}`, row)
      replicas.ask('here')
      token = undefined
      const equipped = await equip(world, row)
      await admin('me')
      await row.act(world)
      if (phase === 'afterwards') await row.undo(world)
      replicas.ask('there')
      const answers: Record<string, string> = {}
      for (const use of uses) answers[use] = (await equipped[use]()) ? 'works' : 'denied'
      replicas.ask('here')
      const open = phase === 'at once' ? ['stands'] : ['stands', 'paused']
      const expected = uses.map((use) => [use, open.includes(kindOf(row.cells[use])) ? 'works' : 'denied'])
      expect(answers).toEqual(Object.fromEntries(expected))
      const failures = [...here().logs, ...replicas.there.logs].filter((line) => line.includes('"level":50'))
      expect(failures, 'no server failed').toEqual([])
    })
  })
})
