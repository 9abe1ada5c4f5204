// The table of endings, carried out: every cause against every kind of token, asked for as a resource server and as the app.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { transact } from '../../src/db/transaction.ts'
import { type EndingCause, endingCauses, endingRule } from '../../src/sessions/causes.ts'
import { endOrganizationAccess, finishClosing } from '../../src/sessions/closing.ts'
import { endAccess, endSession } from '../../src/sessions/ending.ts'
import { endExpiredSessions } from '../../src/sessions/expiry.ts'
import { endClientAccess, endConsent, endMembershipAccess } from '../../src/sessions/parting.ts'
import { authorizationUrl, Browser, introspectBothWays, obtainTokens, post } from '../support/client.ts'
import { databaseKinds, password, startServer, type TestServer } from '../support/server.ts'

interface Person {
  readonly browser: Browser
  readonly accountId: string
  readonly organizationId: string
  readonly uid: string
}

/** How each cause comes about, in the words of whoever brings it about. */
function bring(server: TestServer, person: Person, cause: EndingCause): Promise<unknown> {
  const { accountId, organizationId, uid } = person
  const db = server.database.kysely
  const by = { organizationId, actor: { type: 'system' as const }, origin: {} }
  const pass = (limit: 'idle_expires_at' | 'absolute_expires_at') =>
    db
      .updateTable('sessions')
      .set({ [limit]: new Date(Date.now() - 1_000) })
      .where('uid', '=', uid)
      .execute()
      .then(() => endExpiredSessions(server.database))
  switch (cause) {
    case 'idle':
      return pass('idle_expires_at')
    case 'absolute':
      return pass('absolute_expires_at')
    case 'sign_out':
    case 'signed_in_anew':
    case 'max_concurrent':
    case 'network':
      return transact(db, (tx) => endSession(tx, { ...by, accountId, uid, cause }))
    case 'consent_withdrawn':
      return transact(db, async (tx) => {
        for (const clientId of ['first', 'ehr']) await endConsent(tx, { accountId, clientId })
      })
    case 'client_disabled':
      return transact(db, async (tx) => {
        for (const clientId of ['first', 'ehr']) await endClientAccess(tx, { ...by, clientId })
      })
    case 'membership_ended':
      return transact(db, (tx) => endMembershipAccess(tx, { ...by, accountId }))
    case 'organization_closed':
      return transact(db, (tx) => endOrganizationAccess(tx, by)).then(() =>
        finishClosing(server.database, organizationId),
      )
    default:
      return transact(db, (tx) => endAccess(tx, { ...by, accountId, cause }))
  }
}

describe.each(databaseKinds)('the table of endings on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(() => server.close())

  async function open(email: string) {
    await server.apply({ accounts: [{ email, name: 'Pat', organization: 'mercy', password, emailVerified: true }] })
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    await browser.submit(page, '/password', { email, password })
    const bound = await obtainTokens(server, 'first', { scope: 'openid' }, browser)
    const offline = await obtainTokens(server, 'ehr', { scope: 'openid offline_access', prompt: 'consent' }, browser)
    const session = await server.database.kysely
      .selectFrom('sessions as s')
      .innerJoin('accounts as a', 'a.id', 's.account_id')
      .select(['s.uid', 'a.id', 'a.organization_id'])
      .where('a.email_normalized', '=', email)
      .executeTakeFirstOrThrow()
    return {
      bound,
      offline,
      person: { browser, accountId: session.id, organizationId: session.organization_id, uid: session.uid },
    }
  }
  const refreshes = async (clientId: string, token = '') =>
    (await post(server, '/oauth/token', clientId, { grant_type: 'refresh_token', refresh_token: token })).status === 200

  it.each(endingCauses.map((cause) => [cause]))('%s', async (cause) => {
    const rule = endingRule(cause)
    const { bound, offline, person } = await open(`${cause.replaceAll('_', '-')}@mercy.example`)
    const active = async (token: string) => (await introspectBothWays(server, token))['active']
    expect([await active(bound.access_token), await active(offline.access_token)], 'before').toEqual([true, true])
    await bring(server, person, cause)
    const after = {
      session: !(await person.browser.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)).headers
        .get('location')
        ?.includes('error=login_required'),
      boundAccess: await active(bound.access_token),
      boundRefresh: await refreshes('first', bound.refresh_token),
      offlineAccess: await active(offline.access_token),
      offlineRefresh: await refreshes('ehr', offline.refresh_token),
      consent:
        (
          await server.database.run('select 1 from mlpipes_auth.consents where account_id = $1 and client_id = $2', [
            person.accountId,
            'ehr',
          ])
        ).length === 1,
    }
    expect(after).toEqual({
      session: rule.sessions === 'none',
      boundAccess: !rule.boundTokens,
      boundRefresh: !rule.boundTokens,
      offlineAccess: !rule.offlineTokens,
      offlineRefresh: !rule.offlineTokens,
      consent: !rule.consents,
    })
    const reasons = (await server.audit())
      .filter((event) => event.sessionUid === person.uid && /^session\.(ended|expired)$/.test(event.name))
      .map((event) => event.details)
    expect(reasons).toEqual(rule.sessions === 'none' ? [] : [{ reason: cause }])
  })
})
