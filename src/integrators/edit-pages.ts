// The form that changes an app. A change of what somebody else changed meanwhile is not made: its page says what is different.
import type { Desk } from '../admin/desk.ts'
import { Refusal } from '../errors.ts'
import type { Door, Visit } from '../self-service/door.ts'
import { addressOf, confirmedAt, paths } from '../self-service/places.ts'
import { appOf } from './apps.ts'
import { choices } from './choices.ts'
import { allowedTo, appIdOf, integratorOf, operations, orWrong } from './desk.ts'
import { changeOf, differencesOf, type EditForm, editForm, formOf } from './forms.ts'
import type { Wrong } from './wrongs.ts'

export function addChange(door: Door, desk: Desk): void {
  type Shown = Omit<EditForm, 'csrf'>
  const page = (visit: Visit, clientId: string, form: Shown, wrongs: readonly Wrong[] = []) =>
    door.page(visit, 'ownAppEdit', 'edit', 'Change the app', {
      form,
      wrongs,
      choices,
      href: addressOf('ownApp', clientId),
    })
  const stale = async (visit: Visit, form: EditForm) => {
    const { app } = await appOf(desk, visit)
    visit.reply.code(409)
    return door.page(visit, 'ownAppEdit', 'stale', 'The app was changed meanwhile', {
      name: app.client_name,
      differences: differencesOf(form, formOf(app)),
      href: addressOf('ownApp', app.client_id),
    })
  }
  door.show(paths.ownAppEdit, 'ownAppEdit', 'session', async (visit) => {
    const { caller, app, version } = await appOf(desk, visit)
    if (!allowedTo(caller).update) throw new Refusal('not_found')
    return page(visit, app.client_id, { ...formOf(app), version })
  })
  const to = { place: 'ownAppEdit', need: 'session', form: editForm } as const
  door.act(paths.ownAppEdit, to, async (visit, form) => {
    const caller = await integratorOf(desk, visit)
    const clientId = appIdOf(visit)
    const { version } = form
    const body = changeOf(form)
    const changed = await orWrong(body, () =>
      desk.ask(operations.update, { caller, request: visit.request, params: { clientId }, body, version }),
    )
    if (changed.ok)
      return visit.reply
        .header('cache-control', 'no-store')
        .redirect(confirmedAt('ownApp', 'app_changed', clientId), 303)
    if (changed.code === 'version_stale') return stale(visit, form)
    visit.reply.code(400)
    return page(visit, clientId, form, changed.wrongs)
  })
}
