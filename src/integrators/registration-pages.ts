// The form that registers an app, and the page that shows its secret this once. A form that comes again, because its page
// was reloaded or its button pressed twice, registers nothing.
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { Desk } from '../admin/desk.ts'
import { parseInput } from '../api/endpoints.ts'
import type { ApiProblemCode } from '../api/problems.ts'
import { Refusal } from '../errors.ts'
import type { Door, Visit } from '../self-service/door.ts'
import { addressOf, paths } from '../self-service/places.ts'
import { choices } from './choices.ts'
import { allowedTo, integratorOf, operations, orWrong } from './desk.ts'
import { type RegisterForm, registerForm, registrationOf } from './forms.ts'
import { legible } from './legible.ts'
import { type Wrong, wrongWithKind } from './wrongs.ts'

type Shown = Omit<RegisterForm, 'csrf'>
const blank: Omit<Shown, 'key'> = {
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

const newKey = () => randomBytes(16).toString('base64url')

export function addRegistration(door: Door, desk: Desk): void {
  const page = (visit: Visit, form: Shown, wrongs: readonly Wrong[] = [], sentBefore?: SentBefore) =>
    door.page(visit, 'register', 'register', 'Register an app', {
      form,
      wrongs,
      sentBefore,
      choices,
      organizationName: visit.session.account.organization.name,
    })
  /** The form as it was filled in, to be sent again by whoever means another app. */
  const done = (visit: Visit, form: Shown, sentBefore: SentBefore) => {
    visit.reply.code(409)
    return page(visit, { ...form, key: newKey() }, [], sentBefore)
  }
  door.show(paths.register, 'register', 'session', async (visit) => {
    const caller = await integratorOf(desk, visit)
    if (!allowedTo(caller).register) throw new Refusal('not_found')
    return page(visit, { ...blank, key: newKey() })
  })
  door.act(paths.register, { place: 'register', need: 'session', form: registerForm }, async (visit, form) => {
    const caller = await integratorOf(desk, visit)
    const refused = (wrongs: readonly Wrong[]) => {
      visit.reply.code(400)
      return page(visit, form, wrongs)
    }
    const ofKind = allowedTo(caller).register ? await wrongOfKind(form) : []
    if (ofKind.length > 0) return refused(ofKind)
    const body = registrationOf(form)
    const asked = { caller, request: visit.request, body, key: form.key }
    const made = await orWrong(body, () => desk.ask(operations.create, asked))
    if (!made.ok) return spent.has(made.code) ? done(visit, form, { href: paths.ownApps }) : refused(made.wrongs)
    const { body: app, isReplay } = made.value
    if (!isReplay) return registered(door, visit, app)
    return done(visit, form, { name: legible(app.client_name), href: addressOf('ownApp', app.client_id) })
  })
}

/** The form was sent before, with other words in it, or its first copy is under way. */
const spent: ReadonlySet<ApiProblemCode> = new Set(['idempotency_key_reused', 'idempotency_in_progress'])

interface SentBefore {
  /** Of the app that it registered, where that is known. */
  readonly name?: string
  readonly href: string
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
