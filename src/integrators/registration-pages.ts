// The form that registers an app, and the page that shows its secret this once. A form that comes again, because its page
// was reloaded or its button pressed twice, registers nothing.
import { z } from 'zod'
import type { PersonCaller } from '../admin/caller.ts'
import type { Desk } from '../admin/desk.ts'
import { parseInput } from '../api/endpoints.ts'
import { Refusal } from '../errors.ts'
import type { Door, Visit } from '../self-service/door.ts'
import { addressOf, paths } from '../self-service/places.ts'
import { type App, appsByName, newestOf } from './apps.ts'
import { choices } from './choices.ts'
import { allowedTo, integratorOf, operations, orWrong } from './desk.ts'
import { type RegisterForm, registerForm, registrationOf } from './forms.ts'
import { legible } from './legible.ts'
import type { InTurn } from './turns.ts'
import { type Wrong, wrongWithKind } from './wrongs.ts'

type Shown = Omit<RegisterForm, 'csrf'>
const blank: Omit<Shown, 'newest'> = {
  name: '',
  kind: '',
  redirectUris: '',
  signOutUris: '',
  scope: ['openid', 'profile', 'email'],
  authentication: 'secret',
  jwksUri: '',
  profile: 'standard',
  introspection: 'none',
}

/** @param inTurn holds back a registration while another of the same organisation is under way */
export function addRegistration(door: Door, desk: Desk, inTurn: InTurn): void {
  const page = (visit: Visit, form: Shown, wrongs: readonly Wrong[] = [], twin?: App) =>
    door.page(visit, 'register', 'register', 'Register an app', {
      form,
      wrongs,
      twin: twin && { name: legible(twin.client_name), href: addressOf('ownApp', twin.client_id) },
      choices,
      organizationName: visit.session.account.organization.name,
    })
  door.show(paths.register, 'register', 'session', async (visit) => {
    const caller = await integratorOf(desk, visit)
    if (!allowedTo(caller).register) throw new Refusal('not_found')
    return page(visit, { ...blank, newest: newestOf(await appsSeen(desk, visit, caller)) })
  })
  door.act(paths.register, { place: 'register', need: 'session', form: registerForm }, async (visit, form) => {
    const caller = await integratorOf(desk, visit)
    const refused = (wrongs: readonly Wrong[]) => {
      visit.reply.code(400)
      return page(visit, form, wrongs)
    }
    const ofKind = allowedTo(caller).register ? await wrongOfKind(form) : []
    if (ofKind.length > 0) return refused(ofKind)
    return inTurn(caller.organization.id, async () => {
      const apps = await appsSeen(desk, visit, caller)
      const twin = twinOf(apps, form)
      if (twin) {
        visit.reply.code(409)
        return page(visit, { ...form, newest: newestOf(apps) }, [], twin)
      }
      const body = registrationOf(form)
      const made = await orWrong(body, () => desk.ask(operations.create, { caller, request: visit.request, body }))
      return made.ok ? registered(door, visit, made.value.body) : refused(made.wrongs)
    })
  })
}

/** All apps; none to whoever may register but not look, whose second form therefore is one more registration. */
async function appsSeen(desk: Desk, { request }: Visit, caller: PersonCaller): Promise<App[]> {
  return caller.permissions.has('client:read') ? appsByName(desk, { caller, request }) : []
}

/** An app that came after the form was shown, and has its name or its addresses: most likely the form was sent before. */
function twinOf(apps: readonly App[], form: RegisterForm): App | undefined {
  const { client_name: name, redirect_uris: uris } = registrationOf(form)
  const typed = JSON.stringify(uris)
  return apps.find(
    (app) =>
      app.createdAt > form.newest &&
      (app.client_name === name || (app.redirect_uris.length > 0 && JSON.stringify(app.redirect_uris) === typed)),
  )
}

/** What is wrong with the kind, and with what is beside it in the form. */
async function wrongOfKind(form: RegisterForm): Promise<Wrong[]> {
  const wrongs = wrongWithKind(form)
  if (wrongs.length === 0) return []
  const body = registrationOf(form)
  const shape = await orWrong(body, async () => parseInput(operations.create.body ?? z.never(), body))
  return [...wrongs, ...(shape.ok ? [] : shape.wrongs)]
}

interface Made {
  readonly client_id: string
  readonly client_name: string
  readonly client_secret: string | null
}

function registered(door: Door, visit: Visit, { client_id: clientId, client_name: name, client_secret: secret }: Made) {
  visit.reply.code(201)
  const href = addressOf('ownApp', clientId)
  return door.page(visit, 'register', 'registered', `${name} is registered`, { name, clientId, secret, href })
}
