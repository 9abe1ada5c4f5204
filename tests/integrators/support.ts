// Two hospitals with people of every degree of power over apps, and their browsers on the pages of apps.
import { csrfOf } from '../self-service/support.ts'
import { type Answer, type Browser, basic } from '../support/client.ts'
import { password, people, startServer, type TestServer } from '../support/server.ts'
import { seededSecret } from '../support/totp.ts'

export const manage = '/account/apps/manage'
export const register = '/account/apps/register'
const person = (name: string, organization: string, roles: string[], extra: object = {}) => ({
  email: `${name}@${organization}.example`,
  name,
  password,
  organization,
  roles,
  emailVerified: true,
  ...extra,
})

export function startIntegrators(): Promise<TestServer> {
  const accounts = [
    person('ida', 'mercy', ['org_admin'], { totpSecret: seededSecret }),
    person('aud', 'mercy', ['auditor']),
    person('hope', 'hope', ['org_admin']),
  ]
  return startServer('postgres', { seed: { ...people, accounts: [...(people.accounts ?? []), ...accounts] } })
}

export const webApp = {
  name: 'Ward Round',
  kind: 'web',
  redirectUris: 'https://ward.example/callback\nhttp://localhost:9/callback',
  signOutUris: '',
  scope: ['openid', 'profile', 'offline_access'],
  authentication: 'secret',
  jwksUri: '',
  profile: 'standard',
  introspection: 'own',
}

type Form = Readonly<Record<string, string | readonly string[]>>

/** What the form of a page for `action` sends besides what is typed. */
function hiddenOf(page: Answer, action: string): [string, string][] {
  const form = page.text.split('<form ').find((text) => text.includes(` action="${action}"`)) ?? ''
  const hidden = form.split('</form>')[0]?.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)">/g) ?? []
  return [...hidden].map(([, name = '', value = '']) => [name, tidy(value)])
}

/** Whether the secret of an app works, asked where every app with a secret may ask. */
export async function provesItself(server: TestServer, clientId: string, secret: string): Promise<boolean> {
  const answer = await fetch(`${server.issuer}/oauth/introspect`, {
    method: 'POST',
    headers: { authorization: basic(clientId, secret) },
    body: new URLSearchParams({ token: 'x' }),
  })
  return answer.status === 200
}

/** Sends a form of a page as a browser would, boxes that are ticked among it. */
export async function send(browser: Browser, page: Answer, action: string, form: Form): Promise<Answer> {
  const body = new URLSearchParams({ ...Object.fromEntries(hiddenOf(page, action)), csrf: csrfOf(page) })
  for (const name of Object.keys(form)) body.delete(name)
  for (const [name, value] of Object.entries(form)) for (const each of [value].flat()) body.append(name, each)
  return browser.request(action, {
    method: 'POST',
    form: body as unknown as Record<string, string>,
  })
}

export const tidy = (text: string) =>
  text
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&gt;', '>')
    .replaceAll('&lt;', '<')
    .replaceAll('&amp;', '&')

/** What is wrong with each field, as the page says beside it. */
export const wrongsOf = (page: Answer) =>
  Object.fromEntries(
    [...page.text.matchAll(/<div class="wrong" id="(\w+)-wrong">([\s\S]*?)<\/div>/g)].map(([, field, text = '']) => [
      field,
      tidy(text.replace(/<[^>]+>/g, '').trim()),
    ]),
  )

/** What stands in the alert above a form. */
export const alertOf = (page: Answer) =>
  tidy(/<div class="alert"[^>]*>([\s\S]*?)<\/div>/.exec(page.text)?.[1]?.replace(/<[^>]+>/g, ' ') ?? '')
    .replace(/\s+/g, ' ')
    .trim()

export const clientIdOf = (page: Answer) => /client_[\w-]{22}/.exec(page.text)?.[0] ?? ''
export const secretOn = (page: Answer) => /aria-label="Client secret">([^<]+)</.exec(page.text)?.[1]

/** An app that is registered with the form. */
export async function registered(browser: Browser, form: Form = webApp) {
  const answer = await send(browser, await browser.request(register), register, form)
  if (answer.status !== 201) throw new Error(`${answer.status}: ${JSON.stringify(wrongsOf(answer))} ${answer.text}`)
  return { answer, clientId: clientIdOf(answer), secret: secretOn(answer) ?? '' }
}
