// The sign-in under any order of requests: whatever a browser sends, in two tabs and with kept forms, a code is issued
// only to somebody who proved every factor that the account, its organisation and the app ask for (C5, F23, F66).
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { authorizationUrl, Browser, redeem } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { password, people, startServer, type TestServer } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const runs = 60
const mostSteps = 14

const accounts = {
  plain: { email: 'plain@mercy.example', organization: 'mercy', hasFactor: false },
  factor: { email: 'factor@mercy.example', organization: 'mercy', hasFactor: true },
  strict: { email: 'strict@strict.example', organization: 'strict', hasFactor: false },
  strictFactor: { email: 'strictfactor@strict.example', organization: 'strict', hasFactor: true },
} as const
type Who = keyof typeof accounts
const isMfaDue = (who: Who) => accounts[who].hasFactor || accounts[who].organization === 'strict'

let server: TestServer
beforeAll(async () => {
  server = await startServer('pglite', {
    environment: { ENABLE_MAGIC_LINKS: 'true' },
    seed: {
      ...people,
      organizations: [
        { slug: 'mercy', name: 'Mercy Hospital' },
        { slug: 'hope', name: 'Hope Clinic' },
        { slug: 'strict', name: 'Strict Clinic', policy: { mfa: 'required' as const } },
      ],
      accounts: [
        ...(people.accounts ?? []),
        ...Object.values(accounts).map(({ email, organization, hasFactor }) => ({
          email,
          name: 'A Person',
          organization,
          password,
          emailVerified: true,
          ...(hasFactor ? { totpSecret: seededSecret } : {}),
        })),
      ],
    },
  })
})
afterAll(() => server.close())

type Action =
  | { readonly kind: 'password'; readonly who: Who; readonly right: boolean }
  | { readonly kind: 'totp'; readonly right: boolean }
  | { readonly kind: 'set-up'; readonly right: boolean }
  | {
      readonly kind:
        | 'backup-code'
        | 'codes-kept'
        | 'renew-codes'
        | 'begin-set-up'
        | 'new-password'
        | 'resume'
        | 'reload'
    }
  | { readonly kind: 'link'; readonly who: Who }
  | { readonly kind: 'link/continue' | 'link/code' }

const who = fc.constantFrom<Who>('plain', 'factor', 'strict', 'strictFactor')
// Mostly right, or few walks would arrive anywhere.
const right = fc.constantFrom(true, true, true, false)
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('password' as const), who, right }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('totp' as const), right }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('set-up' as const), right }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('link' as const), who }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'backup-code' as const,
        'codes-kept' as const,
        'renew-codes' as const,
        'begin-set-up' as const,
        'new-password' as const,
        'resume' as const,
        'reload' as const,
        'link/continue' as const,
        'link/code' as const,
      ),
    }),
  },
)

/** What somebody watching over the person's shoulder knows they proved in this sign-in. */
interface Model {
  who: Who | undefined
  first: boolean
  second: boolean
}

it('issues a code only when all that is due was proven', async () => {
  let codes = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(action, { minLength: 1, maxLength: mostSteps }),
      fc.constantFrom(undefined, 'urn:mlpipes:acr:mfa'),
      async (actions, acr) => {
        const walk = await begin(acr)
        for (const step of actions) {
          const code = await take(walk, step)
          if (code === undefined) continue
          codes += 1
          await check(walk, code, acr)
          return
        }
      },
    ),
    { numRuns: runs, endOnFailure: true },
  )
  expect(codes, 'some of the walks arrive, or nothing was tested').toBeGreaterThan(2)
}, 180_000)

interface Walk {
  readonly browser: Browser
  readonly path: string
  readonly csrf: string
  readonly verifier: string
  readonly model: Model
  linkWho: Who | undefined
}

async function begin(acr: string | undefined): Promise<Walk> {
  const kysely = server.database.kysely
  // Each walk begins rested: throttling is proven elsewhere, and set-ups of earlier walks are gone.
  await kysely.deleteFrom('sign_in_attempts').execute()
  await kysely.updateTable('totp_credentials').set({ last_step: '0' }).execute()
  await kysely
    .deleteFrom('totp_credentials')
    .where('account_id', 'in', (eb) =>
      eb.selectFrom('accounts').select('id').where('email', 'in', [accounts.plain.email, accounts.strict.email]),
    )
    .execute()
  const browser = new Browser(server)
  const { url, verifier } = authorizationUrl(server, 'first', { acr_values: acr })
  const page = await browser.follow(await browser.request(url))
  const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
  const model = { who: undefined, first: false, second: false }
  return { browser, path: new URL(page.url).pathname, csrf, verifier, model, linkWho: undefined }
}

/** Carries out one action, tells the model what it proved, and returns the code if the browser got one. */
async function take(walk: Walk, step: Action): Promise<string | undefined> {
  const { browser, path, csrf, model } = walk
  const post = async (name: string, form: Record<string, string>) => {
    const answer = await browser.request(`${path}/${name}`, { form: { csrf, ...form } })
    expect(answer.status, `${name}: ${answer.text.slice(0, 200)}`).toBeLessThan(500)
    return answer
  }
  const isMoved = (status: number) => status === 303
  switch (step.kind) {
    case 'password': {
      const secret = step.right ? password : 'Wrong-Horse-9-Battery'
      const answer = await post('password', { email: accounts[step.who].email, password: secret })
      if (step.right && isMoved(answer.status)) proveFirst(model, step.who)
      return codeFrom(walk, answer.headers.get('location'))
    }
    case 'totp': {
      const answer = await post('totp', { code: step.right ? await codeFor(server) : '000000' })
      if (step.right && isMoved(answer.status)) model.second = true
      return codeFrom(walk, answer.headers.get('location'))
    }
    case 'set-up': {
      const page = await browser.request(path)
      const secret = /secret=([A-Z2-7]+)/.exec(page.text)?.[1]
      const code = step.right && secret !== undefined ? await codeFor(server, secret) : '000000'
      const answer = await post('set-up', { code })
      if (answer.status === 200 && answer.text.includes('I have saved them')) model.second = true
      return codeFrom(walk, answer.headers.get('location'))
    }
    case 'link': {
      const { email } = accounts[step.who]
      const before = mailsTo(server, email).length
      const answer = await post('link', { email })
      if (!answer.headers.get('location')?.endsWith('/link/sent')) return undefined
      await browser.request(linkIn(await mailTo(server, email, before + 1)))
      walk.linkWho = step.who
      return undefined
    }
    case 'link/continue': {
      const answer = await post('link/continue', {})
      if (isMoved(answer.status) && walk.linkWho) proveFirst(model, walk.linkWho)
      return codeFrom(walk, answer.headers.get('location'))
    }
    case 'resume': {
      const answer = await browser.request(`/oauth/authorize/${path.split('/').at(-1)}`)
      return codeIn(answer.headers.get('location'))
    }
    case 'reload':
      await browser.request(path)
      return undefined
    default: {
      const form = step.kind === 'new-password' ? { password: 'Willow-Tractor-52-Fern' } : formOf(step.kind)
      const answer = await post(step.kind, form)
      return codeFrom(walk, answer.headers.get('location'))
    }
  }
}

/** Another person than before begins with nothing. */
function proveFirst(model: Model, person: Who): void {
  if (model.who !== person) Object.assign(model, { who: person, second: false })
  model.first = true
}

const formOf = (kind: string): Record<string, string> =>
  kind === 'backup-code' || kind === 'link/code' ? { code: 'AAAA-AAAA-AAAA-AAAA-AAAA-AAAA' } : {}

const codeIn = (location: string | null) =>
  location === null ? undefined : (new URL(location, server.issuer).searchParams.get('code') ?? undefined)

/** Follows where a step led; what comes out may be the app with a code. */
async function codeFrom({ browser }: Walk, location: string | null): Promise<string | undefined> {
  if (location === null) return undefined
  const landing = await browser.follow(await browser.request(location))
  return codeIn(landing.url)
}

async function check(walk: Walk, code: string, acr: string | undefined): Promise<void> {
  const { model } = walk
  expect(model.first, 'nobody gets in without a first factor').toBe(true)
  expect(model.who).toBeDefined()
  if (model.who && (isMfaDue(model.who) || acr !== undefined))
    expect(model.second, `${model.who} with ${acr}`).toBe(true)
  const tokens = await redeem(server, 'first', code, walk.verifier)
  const claims = JSON.parse(Buffer.from(String(tokens.body['id_token']).split('.')[1] ?? '', 'base64url').toString())
  if (acr !== undefined) expect(claims.acr).toBe(acr)
}
