// What these pages read at the admin API: every app of the organisation by its name, and one app with its version.
import type { FastifyRequest } from 'fastify'
import type { PersonCaller } from '../admin/caller.ts'
import type { Desk } from '../admin/desk.ts'
import { maxClients } from '../clients/store.ts'
import type { Visit } from '../self-service/door.ts'
import { whenInWords } from '../self-service/words.ts'
import { appIdOf, integratorOf, operations, orNothing } from './desk.ts'

export type App = Awaited<ReturnType<typeof appOf>>['app']

interface Asking {
  readonly caller: PersonCaller
  readonly request: FastifyRequest
}

/** The app of a page, with its version. */
export async function appOf(desk: Desk, visit: Visit) {
  const caller = await integratorOf(desk, visit)
  const params = { clientId: appIdOf(visit) }
  const { body, version } = await orNothing(() => desk.ask(operations.get, { caller, request: visit.request, params }))
  return { caller, params, app: body, version: version ?? 0 }
}

const appsPerQuestion = 100
const names = new Intl.Collator('en', { numeric: true })

/**
 * The apps of the organisation by name, then by id. The API has them by id, so that all have to be asked for: as many as
 * may be registered there. Of an operator's file that holds more, the rest is found by searching.
 */
export async function appsByName(desk: Desk, { caller, request }: Asking, q = ''): Promise<App[]> {
  const apps: App[] = []
  const filter = { limit: String(appsPerQuestion), ...(q === '' ? {} : { q }) }
  let query: Readonly<Record<string, string>> | undefined = filter
  while (query && apps.length < maxClients) {
    const page = await pageOfApps(desk, { caller, request, query })
    apps.push(...page.items)
    query = page.next === null ? undefined : { ...filter, cursor: page.next }
  }
  return apps.sort((one, other) => names.compare(one.client_name, other.client_name) || byId(one, other))
}

async function pageOfApps(desk: Desk, asked: Asking & { readonly query: Readonly<Record<string, string>> }) {
  return (await orNothing(() => desk.ask(operations.list, asked))).body
}

const byId = (one: App, other: App) => (one.client_id < other.client_id ? -1 : 1)

/** Until when two secrets of an app work, in words. */
export function twoSecretsUntil({ previousSecretUntil: until }: App) {
  return until === null ? undefined : whenInWords(new Date(until))
}
