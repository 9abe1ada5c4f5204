// Pages for the people who connect apps to their organisation: its apps, a new one, and each with its settings, secret,
// recent errors and snippets. What may be registered and who may change what is the admin API's to say (admin/desk.ts).
import type { FastifyInstance, FastifyReply } from 'fastify'
import { z } from 'zod'
import type { Desk } from '../admin/desk.ts'
import { parseInput } from '../api/endpoints.ts'
import { wordsFor } from '../clients/fault-words.ts'
import type { Faults } from '../clients/faults.ts'
import { Refusal } from '../errors.ts'
import { createDoor, type Door, type DoorParts, type Visit } from '../self-service/door.ts'
import { addressOf, confirmedAt, paths } from '../self-service/places.ts'
import { whenInWords } from '../self-service/words.ts'
import { authentications, introspections, kindOf, kinds, overlaps, profiles, scopeChoices } from './choices.ts'
import { allowedTo, appIdOf, integratorOf, operations, orNothing, orWrong } from './desk.ts'
import {
  changeOf,
  type EditForm,
  editForm,
  emptyForm,
  type RegisterForm,
  registerForm,
  registrationOf,
  secretForm,
  type Wrong,
  wrongWithKind,
} from './forms.ts'
import { snippetsFor, tryCommand } from './snippets.ts'

export interface IntegratorRouteParts extends DoorParts {
  readonly desk: Desk
  readonly faults: Pick<Faults, 'recent'>
}

export function addIntegratorRoutes(app: FastifyInstance, parts: IntegratorRouteParts): void {
  const door = createDoor(app, parts, 'integrators')
  const { desk } = parts
  addList(door, desk)
  addRegistration(door, desk)
  addApp(door, parts)
  addChange(door, desk)
  addSecret(door, desk)
  addConfirmed(door, desk)
}

const listQuery = z.object({
  q: z.string().max(100).catch(''),
  cursor: z.string().max(1_024).optional().catch(undefined),
})
const appsPerPage = '50'

function addList(door: Door, desk: Desk): void {
  door.show(paths.ownApps, 'ownApps', 'session', async (visit) => {
    const caller = await integratorOf(desk, visit)
    const { q, cursor } = listQuery.parse(visit.request.query)
    const filter = q === '' ? {} : { q }
    const query = { ...filter, limit: appsPerPage, ...(cursor === undefined ? {} : { cursor }) }
    const listed = await orWrong({}, () => desk.ask(operations.list, { caller, request: visit.request, query }))
    // A cursor that is none of ours shows the beginning.
    if (!listed.ok) return visit.reply.redirect(paths.ownApps, 303)
    const { items, next } = listed.value.body
    return door.page(visit, 'ownApps', 'list', `Apps of ${caller.organization.name}`, {
      organizationName: caller.organization.name,
      may: allowedTo(caller),
      q,
      isFiltered: q !== '' || cursor !== undefined,
      apps: items.map((item) => ({
        name: item.client_name,
        clientId: item.client_id,
        kind: kindOf(item)?.title,
        isOff: item.disabledAt !== null,
        href: addressOf('ownApp', item.client_id),
      })),
      nextUrl: next === null ? undefined : `${paths.ownApps}?${new URLSearchParams({ ...filter, cursor: next })}`,
    })
  })
}

const blank: Omit<RegisterForm, 'csrf'> = {
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
const choices = { kinds, authentications, profiles, introspections, scopes: scopeChoices }

function addRegistration(door: Door, desk: Desk): void {
  const page = (visit: Visit, form: Omit<RegisterForm, 'csrf'>, wrongs: readonly Wrong[] = []) =>
    door.page(visit, 'register', 'register', 'Register an app', {
      form,
      wrongs,
      choices,
      organizationName: visit.session.account.organization.name,
    })
  door.show(paths.register, 'register', 'session', async (visit) => {
    if (!allowedTo(await integratorOf(desk, visit)).register) throw new Refusal('not_found')
    return page(visit, blank)
  })
  door.act(paths.register, { place: 'register', need: 'session', form: registerForm }, async (visit, form) => {
    const caller = await integratorOf(desk, visit)
    const body = registrationOf(form)
    const refused = (wrongs: readonly Wrong[]) => {
      visit.reply.code(400)
      return page(visit, form, wrongs)
    }
    const ofKind = allowedTo(caller).register ? wrongWithKind(form) : []
    if (ofKind.length > 0) {
      const shape = await orWrong(body, async () => parseInput(operations.create.body ?? z.never(), body))
      return refused([...ofKind, ...(shape.ok ? [] : shape.wrongs)])
    }
    const made = await orWrong(body, () => desk.ask(operations.create, { caller, request: visit.request, body }))
    if (!made.ok) return refused(made.wrongs)
    const { client_id: clientId, client_name: name, client_secret: secret } = made.value.body
    visit.reply.code(201)
    return door.page(visit, 'register', 'registered', `${name} is registered`, {
      name,
      clientId,
      secret,
      href: addressOf('ownApp', clientId),
    })
  })
}

/** The app of a page, with its version. */
async function appOf(desk: Desk, visit: Visit) {
  const caller = await integratorOf(desk, visit)
  const params = { clientId: appIdOf(visit) }
  const { body, version } = await orNothing(() => desk.ask(operations.get, { caller, request: visit.request, params }))
  return { caller, params, app: body, version: version ?? 0 }
}

function addApp(door: Door, parts: IntegratorRouteParts): void {
  const { desk, faults, issuer } = parts
  const page = async (visit: Visit, problem?: string) => {
    const { caller, app } = await appOf(desk, visit)
    const facts = {
      issuer,
      clientId: app.client_id,
      grantTypes: app.grant_types,
      method: app.token_endpoint_auth_method,
      redirectUris: app.redirect_uris,
      scope: app.scope,
      isFapi: app.profile === 'fapi2',
      idTokenAlg: app.id_token_signed_response_alg ?? undefined,
    }
    const recent = await faults.recent(caller.organization.id, app.client_id)
    return door.page(visit, 'ownApp', 'app', app.client_name, {
      app: shown(app),
      hasSecret: app.hasSecret,
      snippets: snippetsFor(facts),
      tryCommand: tryCommand(facts),
      faults: recent.map((fault) => ({
        ...wordsFor(fault, app),
        error: fault.error,
        count: fault.count,
        at: whenInWords(fault.at),
      })),
      may: allowedTo(caller),
      href: addressOf('ownApp', app.client_id),
      error: problem === undefined ? undefined : { title: 'That was not done', text: problem },
    })
  }
  door.show(paths.ownApp, 'ownApp', 'session', (visit) => page(visit))
  const to = { place: 'ownApp', need: 'session', form: emptyForm } as const
  for (const [name, operation, confirmation] of [
    ['disable', operations.disable, 'app_off'],
    ['enable', operations.enable, 'app_on'],
  ] as const)
    door.act(`${paths.ownApp}/${name}`, to, async (visit) => {
      const caller = await integratorOf(desk, visit)
      const params = { clientId: appIdOf(visit) }
      const done = await orWrong({}, () => desk.ask(operation, { caller, request: visit.request, params, body: {} }))
      if (done.ok) return back(visit, confirmedAt('ownApp', confirmation, params.clientId))
      visit.reply.code(409)
      return page(visit, done.wrongs.map(({ text }) => text).join(' '))
    })
}

type App = Awaited<ReturnType<typeof appOf>>['app']

function shown(app: App) {
  const titleOf = (all: readonly { readonly value: string; readonly title: string }[], value: string) =>
    all.find((choice) => choice.value === value)?.title ?? value
  return {
    name: app.client_name,
    clientId: app.client_id,
    kind: kindOf(app)?.title ?? app.grant_types.join(', '),
    redirectUris: app.redirect_uris,
    signOutUris: app.post_logout_redirect_uris,
    scope: app.scope,
    authentication:
      authentications.find(({ method }) => method === app.token_endpoint_auth_method)?.title ??
      'With a secret in the body (client_secret_post)',
    hasSecret: app.hasSecret,
    profile: titleOf(profiles, app.profile),
    introspection: titleOf(introspections, app.introspection),
    created: whenInWords(new Date(app.createdAt)),
    disabled: app.disabledAt === null ? undefined : whenInWords(new Date(app.disabledAt)),
  }
}

function addChange(door: Door, desk: Desk): void {
  type Shown = Omit<EditForm, 'csrf'>
  const page = (visit: Visit, clientId: string, form: Shown, wrongs: readonly Wrong[] = []) =>
    door.page(visit, 'ownAppEdit', 'edit', 'Change the app', {
      form,
      wrongs,
      choices,
      href: addressOf('ownApp', clientId),
    })
  door.show(paths.ownAppEdit, 'ownAppEdit', 'session', async (visit) => {
    const { caller, app, version } = await appOf(desk, visit)
    if (!allowedTo(caller).update) throw new Refusal('not_found')
    return page(visit, app.client_id, {
      name: app.client_name,
      redirectUris: app.redirect_uris.join('\n'),
      signOutUris: app.post_logout_redirect_uris.join('\n'),
      scope: app.scope.split(' '),
      version,
    })
  })
  const to = { place: 'ownAppEdit', need: 'session', form: editForm } as const
  door.act(paths.ownAppEdit, to, async (visit, form) => {
    const caller = await integratorOf(desk, visit)
    const clientId = appIdOf(visit)
    const body = changeOf(form)
    const changed = await orWrong(body, () =>
      desk.ask(operations.update, {
        caller,
        request: visit.request,
        params: { clientId },
        body,
        version: form.version,
      }),
    )
    if (changed.ok) return back(visit, confirmedAt('ownApp', 'app_changed', clientId))
    visit.reply.code(400)
    return page(visit, clientId, form, changed.wrongs)
  })
}

const asksForFactor =
  'This asks for a sign-in of the last five minutes with the second factor. Set one up under “Second factor”.'

function addSecret(door: Door, desk: Desk): void {
  const page = (visit: Visit, app: { readonly name: string; readonly clientId: string }, problem?: string) =>
    door.page(visit, 'ownAppSecret', 'secret', 'Replace the secret', {
      ...app,
      overlaps,
      href: addressOf('ownApp', app.clientId),
      // Whoever has no second factor cannot prove one, so the form would be of no use.
      problem: visit.account.totpIds.length === 0 ? asksForFactor : problem,
    })
  door.show(paths.ownAppSecret, 'ownAppSecret', 'fresh', async (visit) => {
    const { caller, app } = await appOf(desk, visit)
    if (!allowedTo(caller).update || !app.hasSecret) throw new Refusal('not_found')
    return page(visit, { name: app.client_name, clientId: app.client_id })
  })
  const to = { place: 'ownAppSecret', need: 'fresh', form: secretForm } as const
  door.act(paths.ownAppSecret, to, async (visit, { overlap }) => {
    const { caller, params, app } = await appOf(desk, visit)
    const named = { name: app.client_name, clientId: app.client_id }
    const chosen = overlaps.find(({ value }) => value === overlap)
    if (!chosen) throw new Refusal('form_unreadable')
    const body = { overlapSeconds: chosen.seconds }
    const replaced = await orWrong(body, () =>
      desk.ask(operations.replaceSecret, { caller, request: visit.request, params, body }),
    )
    if (!replaced.ok) {
      visit.reply.code(409)
      return page(visit, named, replaced.wrongs.map(({ text }) => text).join(' '))
    }
    return door.page(visit, 'ownAppSecret', 'new-secret', 'The new secret', {
      ...named,
      secret: replaced.value.body.client_secret,
      overlap: chosen.seconds === 0 ? undefined : chosen.title.toLowerCase().replace(' more', ''),
      href: addressOf('ownApp', app.client_id),
    })
  })
}

/** Where somebody proves that it is them while a form waits in another tab. */
function addConfirmed(door: Door, desk: Desk): void {
  door.show(paths.confirmed, 'confirmed', 'fresh', async (visit) => {
    await integratorOf(desk, visit)
    const hasFactor = visit.account.totpIds.length > 0
    const title = hasFactor ? 'You have confirmed that it is you' : 'A second factor is needed'
    return door.page(visit, 'confirmed', 'confirmed', title, { hasFactor })
  })
}

function back({ reply }: Visit, address: string): FastifyReply {
  return reply.header('cache-control', 'no-store').redirect(address, 303)
}
