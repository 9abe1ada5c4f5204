// A person in a browser on the pages of /account, and what is known of them in the database.
import { type Answer, Browser, introspect } from '../support/client.ts'
import { password, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'

/** Opens a page of /account in a browser, signing in where it asks. */
export async function visit(
  server: TestServer,
  path: string,
  email = 'lee@mercy.example',
  browser = new Browser(server),
  secret = password,
): Promise<{ browser: Browser; page: Answer }> {
  let page = await browser.follow(await browser.request(path))
  if (page.text.includes('/password"') && page.url.includes('/interaction/'))
    page = await browser.submit(page, '/password', { email, password: secret })
  if (page.text.includes('/totp"')) page = await browser.submit(page, '/totp', { code: await codeFor(server) })
  return { browser, page }
}

/** Makes the session of a browser as old as a stolen one would be: its sign-in lies so many seconds back. */
export async function ageSignIn(server: TestServer, email: string, seconds: number): Promise<void> {
  await server.database.run(
    `update mlpipes_auth.sessions set payload = jsonb_set(payload, '{loginTs}', to_jsonb((payload ->> 'loginTs')::bigint - $2::integer))
      where ended_at is null and account_id = (select id from mlpipes_auth.accounts where email_normalized = $1)`,
    [email, seconds],
  )
}

/** What a form on the page would send besides what is typed. */
export function csrfOf(page: Answer): string {
  const token = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1]
  if (token === undefined) throw new Error(`no form on ${page.url}: ${page.text.slice(0, 300)}`)
  return token
}

export async function accountId(server: TestServer, email: string): Promise<string> {
  const [row] = await server.database.run('select id from mlpipes_auth.accounts where email_normalized = $1', [email])
  return String(row?.['id'])
}

/** The live sessions of an account, oldest first. */
export async function liveSessions(server: TestServer, email: string): Promise<string[]> {
  const rows = await server.database.run(
    `select uid from mlpipes_auth.sessions where ended_at is null and signed_in_at is not null
      and account_id = $1 order by created_at`,
    [await accountId(server, email)],
  )
  return rows.map((row) => String(row['uid']))
}

export async function isActive(server: TestServer, token: string): Promise<boolean> {
  return (await introspect(server, token))['active'] === true
}
