// Somebody of several organisations, walked in Chromium from the demo app: which one, why the last session is over, and
// why sign-in is not allowed from here.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyInput } from '../../src/apply/apply.ts'
import type { WatchedPage } from '../support/browser.ts'
import {
  accountsOf,
  arrive,
  button,
  enterPassword,
  finish,
  type Harbor,
  heading,
  look,
  reachApp,
  runs,
  startHarbor,
} from '../support/harbor.ts'

const organizations = [
  { slug: 'mercy', name: 'Mercy Hospital' },
  { slug: 'vale', name: 'Vale Hospice' },
  { slug: 'hope', name: 'Hope Clinic and Rehabilitation Centre of the Northern Counties' },
  { slug: 'gate', name: 'Gate House', policy: { network: { allowedCidrs: ['192.0.2.0/24'] } } },
]
const seed: ApplyInput = {
  organizations,
  accounts: [
    ...accountsOf('greta', { organization: 'vale' }),
    ...accountsOf('gus', { organization: 'gate' }),
    ...accountsOf('ida'),
  ],
}

let harbor: Harbor
beforeAll(async () => {
  harbor = await startHarbor(seed)
  await harbor.server.database.run(
    `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
      select a.id, o.id, false, '{visitor}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
      where a.email like 'greta-%' and o.slug = 'hope'`,
    [],
  )
})
afterAll(() => harbor.close())

describe.each(runs)('with JavaScript $javaScriptEnabled', ({ javaScriptEnabled, who }) => {
  const visit = () => harbor.visit({ javaScriptEnabled })
  // Axe-core is a script itself.
  const seen = async (watched: WatchedPage, name: string) => {
    if (javaScriptEnabled) await look(watched, name)
  }

  it('chooses an organisation by name', async () => {
    const watched = await visit()
    await arrive(harbor, watched)
    await enterPassword(watched, `greta-${who}@mercy.example`)
    await heading(watched, 'Choose your organisation')
    await seen(watched, 'choose-organization')
    await button(watched, 'Vale Hospice').click()
    await button(watched, 'Allow').click()
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:password')
    await finish(watched)
  })

  it('is told that sign-in is not allowed from this network, and goes back to the app', async () => {
    const watched = await visit()
    await arrive(harbor, watched)
    await enterPassword(watched, `gus-${who}@mercy.example`)
    await heading(watched, 'Sign-in is not allowed from here')
    await seen(watched, 'wrong-network')
    await button(watched, 'Return to Harbor EHR').click()
    await watched.page.waitForURL(`${harbor.url}/**`)
  })

  it('reads why the last session is over', async () => {
    const watched = await visit()
    await arrive(harbor, watched)
    await enterPassword(watched, `ida-${who}@mercy.example`)
    await button(watched, 'Allow').click()
    await reachApp(watched)
    await harbor.server.database.run(
      `update mlpipes_auth.sessions set idle_expires_at = now() where account_id =
        (select id from mlpipes_auth.accounts where email = $1)`,
      [`ida-${who}@mercy.example`],
    )
    await arrive(harbor, watched)
    expect(await watched.page.getByRole('status').innerText()).toContain('nothing was done for a while')
    await seen(watched, 'sign-in-after-idle')
  })
})
