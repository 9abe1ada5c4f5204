// The form that replaces an app's secret, and the page that shows the new one this once. It is for the app as it was when
// the form was shown: sent again, it would end the secret that works beside the new one, and so it does nothing.
import type { Desk } from '../admin/desk.ts'
import { Refusal } from '../errors.ts'
import type { Door, Visit } from '../self-service/door.ts'
import { addressOf, paths } from '../self-service/places.ts'
import { type App, appOf, twoSecretsUntil } from './apps.ts'
import { overlaps } from './choices.ts'
import { allowedTo, operations, orWrong } from './desk.ts'
import { secretForm } from './forms.ts'

interface Problem {
  readonly text: string
  readonly link?: { readonly href: string; readonly label: string }
}

// Whoever has no second factor cannot prove one, so the form would be of no use.
const factorMissing: Problem = {
  text: 'This asks for a sign-in of the last five minutes with the second factor. Set one up under “Second factor”.',
  link: { href: paths.factors, label: 'Second factor' },
}
const sentBefore = (clientId: string): Problem => ({
  text: 'It was replaced already, or the app was changed after this page was opened. Nothing was changed now. A new secret is shown once: if you did not keep it, replace it once more.',
  link: { href: addressOf('ownAppSecret', clientId), label: 'Replace it once more' },
})

export function addSecret(door: Door, desk: Desk): void {
  const page = (visit: Visit, app: App, version: number, problem?: Problem) =>
    door.page(visit, 'ownAppSecret', 'secret', 'Replace the secret', {
      name: app.client_name,
      version,
      twoUntil: twoSecretsUntil(app),
      overlaps,
      href: addressOf('ownApp', app.client_id),
      problem: visit.account.totpIds.length === 0 ? factorMissing : problem,
    })
  const refused = (visit: Visit, app: App, problem: Problem) => {
    visit.reply.code(409)
    return page(visit, app, 0, problem)
  }
  door.show(paths.ownAppSecret, 'ownAppSecret', 'fresh', async (visit) => {
    const { caller, app, version } = await appOf(desk, visit)
    if (!allowedTo(caller).update || !app.hasSecret) throw new Refusal('not_found')
    return page(visit, app, version)
  })
  const to = { place: 'ownAppSecret', need: 'fresh', form: secretForm } as const
  door.act(paths.ownAppSecret, to, async (visit, form) => {
    const chosen = overlaps.find(({ value }) => value === form.overlap)
    if (!chosen) throw new Refusal('form_unreadable')
    const { caller, params, app } = await appOf(desk, visit)
    // A form that is sent twice was meant for the version that its first copy has changed.
    const body = { overlapSeconds: chosen.seconds, version: form.version }
    const asked = { caller, request: visit.request, params, body }
    const replaced = await orWrong(body, () => desk.ask(operations.replaceSecret, asked))
    if (!replaced.ok) {
      const isStale = replaced.code === 'version_stale'
      const problem = isStale ? sentBefore(app.client_id) : { text: replaced.wrongs.map(({ text }) => text).join(' ') }
      return refused(visit, app, problem)
    }
    return door.page(visit, 'ownAppSecret', 'new-secret', 'The new secret', {
      name: app.client_name,
      secret: replaced.value.body.client_secret,
      overlap: chosen.seconds === 0 ? undefined : chosen.title.toLowerCase().replace(' more', ''),
      href: addressOf('ownApp', app.client_id),
    })
  })
}
