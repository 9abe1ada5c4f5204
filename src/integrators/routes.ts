// Pages for the people who connect apps to their organisation: its apps, a new one, and each with its settings, secret,
// recent errors and snippets. Forms that are more than a button have files of their own. What may be registered and who may
// change what is the admin API's to say (admin/desk.ts).
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import type { Desk } from '../admin/desk.ts'
import { wordsFor } from '../clients/fault-words.ts'
import type { Faults } from '../clients/faults.ts'
import { createDoor, type Door, type DoorParts, type Visit } from '../self-service/door.ts'
import { addressOf, confirmedAt, paths } from '../self-service/places.ts'
import { whenInWords } from '../self-service/words.ts'
import { type App, appOf, appsByName, twoSecretsUntil } from './apps.ts'
import { authentications, introspections, kindOf, profiles } from './choices.ts'
import { allowedTo, appIdOf, integratorOf, operations, orWrong } from './desk.ts'
import { addChange } from './edit-pages.ts'
import { emptyForm } from './forms.ts'
import { addRegistration } from './registration-pages.ts'
import { addSecret } from './secret-pages.ts'
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
  page: z.coerce.number().int().min(1).max(1_000).catch(1),
})
const appsPerPage = 50

function addList(door: Door, desk: Desk): void {
  door.show(paths.ownApps, 'ownApps', 'session', async (visit) => {
    const { request, reply } = visit
    const caller = await integratorOf(desk, visit)
    const { q, page } = listQuery.parse(request.query)
    const found = await orWrong({}, () => appsByName(desk, { caller, request }, q))
    // What cannot be searched for, and a page that is not there, show the beginning.
    if (!found.ok || (page > 1 && found.value.length <= (page - 1) * appsPerPage))
      return reply.redirect(paths.ownApps, 303)
    const apps = found.value.slice((page - 1) * appsPerPage, page * appsPerPage)
    const next = new URLSearchParams({ ...(q === '' ? {} : { q }), page: String(page + 1) })
    return door.page(visit, 'ownApps', 'list', `Apps of ${caller.organization.name}`, {
      organizationName: caller.organization.name,
      may: allowedTo(caller),
      q,
      isFiltered: q !== '' || page > 1,
      apps: apps.map((app) => ({
        name: app.client_name,
        clientId: app.client_id,
        kind: kindOf(app)?.title,
        isOff: app.disabledAt !== null,
        href: addressOf('ownApp', app.client_id),
      })),
      nextUrl: found.value.length > page * appsPerPage ? `${paths.ownApps}?${next}` : undefined,
    })
  })
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
      if (done.ok)
        return visit.reply
          .header('cache-control', 'no-store')
          .redirect(confirmedAt('ownApp', confirmation, params.clientId), 303)
      visit.reply.code(409)
      return page(visit, done.wrongs.map(({ text }) => text).join(' '))
    })
}

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
    twoUntil: twoSecretsUntil(app),
    profile: titleOf(profiles, app.profile),
    introspection: titleOf(introspections, app.introspection),
    created: whenInWords(new Date(app.createdAt)),
    disabled: app.disabledAt === null ? undefined : whenInWords(new Date(app.disabledAt)),
  }
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
