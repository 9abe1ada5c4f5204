// The forms of these pages: what was typed, what it asks of the admin API, and what is wrong with it, field by field, in
// words that name what was sent. Pure.
import { z } from 'zod'
import { type ApiProblem, apiProblems } from '../api/problems.ts'
import { authentications, kinds } from './choices.ts'

const csrf = z.string().max(128)
const line = z.string().max(4_096)
/** As long as the longest form that the application takes. */
const lines = z.string().max(65_536)
const checked = z
  .union([
    z
      .string()
      .max(64)
      .transform((one) => [one]),
    z.array(z.string().max(64)).max(32),
  ])
  .default([])

export const emptyForm = z.strictObject({ csrf })
const common = { csrf, name: line, redirectUris: lines.default(''), signOutUris: lines.default(''), scope: checked }
export const registerForm = z.strictObject({
  ...common,
  kind: line.default(''),
  authentication: line.default(''),
  jwksUri: line.default(''),
  profile: line.default(''),
  introspection: line.default(''),
})
export const editForm = z.strictObject({
  ...common,
  version: z
    .string()
    .regex(/^\d{1,10}$/)
    .transform(Number),
})
export const secretForm = z.strictObject({ csrf, overlap: line })

export type RegisterForm = z.output<typeof registerForm>
export type EditForm = z.output<typeof editForm>
type Field = Exclude<keyof RegisterForm, 'csrf'> | 'general'

export interface Wrong {
  readonly field: Field
  readonly label: string
  readonly text: string
  /** Where it is mended; opened beside the form, which stays as it was filled in. */
  readonly link?: { readonly href: string; readonly label: string } | undefined
}

const labels: Readonly<Record<Field, string>> = {
  general: 'The app as a whole',
  name: 'Name',
  kind: 'What kind of app is it?',
  redirectUris: 'Redirect URIs',
  signOutUris: 'Addresses after sign-out',
  scope: 'What may it ask for?',
  authentication: 'How does it prove itself to us?',
  jwksUri: 'Address of its public keys (jwks_uri)',
  profile: 'Security profile',
  introspection: 'May it check tokens?',
}

/** In which field a member of a registration is said. */
const fields: Readonly<Record<string, Field>> = {
  client_name: 'name',
  redirect_uris: 'redirectUris',
  post_logout_redirect_uris: 'signOutUris',
  grant_types: 'kind',
  application_type: 'kind',
  response_types: 'kind',
  scope: 'scope',
  token_endpoint_auth_method: 'authentication',
  jwks: 'jwksUri',
  jwks_uri: 'jwksUri',
  profile: 'profile',
  id_token_signed_response_alg: 'profile',
  introspection: 'introspection',
}

const maxShown = 200
const linesOf = (text: string) =>
  text
    .split(/\r?\n/)
    .map((each) => each.trim())
    .filter((each) => each !== '')

/** What the operation takes; whatever it will not take goes along, so that it is the operation that says so. */
export function registrationOf(form: RegisterForm): Record<string, unknown> {
  const kind = kinds.find(({ value }) => value === form.kind)
  const method = authentications.find(({ value }) => value === form.authentication)?.method ?? form.authentication
  return {
    ...changeOf(form),
    grant_types: kind?.grantTypes,
    application_type: kind?.applicationType,
    token_endpoint_auth_method: method,
    ...(form.jwksUri.trim() === '' ? {} : { jwks_uri: form.jwksUri.trim() }),
    profile: form.profile,
    introspection: form.introspection,
  }
}

export function changeOf(form: Pick<EditForm, 'name' | 'redirectUris' | 'signOutUris' | 'scope'>) {
  return {
    client_name: form.name.trim(),
    redirect_uris: linesOf(form.redirectUris),
    post_logout_redirect_uris: linesOf(form.signOutUris),
    scope: form.scope.join(' '),
  }
}

/** What only this form asks: the API knows no kinds. */
export function wrongWithKind({ kind: chosen, authentication }: RegisterForm): Wrong[] {
  const kind = kinds.find(({ value }) => value === chosen)
  if (!kind) return [wrong('kind', `${sentText(chosen)} Choose one of: ${kinds.map(({ title }) => title).join(', ')}.`)]
  if (!kind.isPublic || authentication === 'none') return []
  const text = `${sentText(authentication)} ${kind.title}: it must be “It does not”, because whoever has the app has what is in it.`
  return [wrong('authentication', text)]
}

/** What the API refused, by the fields of the form, with what was sent in each. */
export function wrongWith({ code, exact }: ApiProblem, sent: Readonly<Record<string, unknown>>): Wrong[] {
  const errors = exact.errors ?? []
  if (errors.length === 0) return [wrong('general', apiProblems[code].detail)]
  return errors.map(({ path, message }) => {
    // The provider names the member in its words.
    const member = (path === '' ? /^\w+/.exec(message)?.[0] : path.split('.')[0]) ?? ''
    const field = (Object.hasOwn(fields, member) ? fields[member] : undefined) ?? 'general'
    if (path === '') return wrong(field, `${sentOf(sent, member)} ${capital(message)}.`.trim())
    return wrong(field, `${sentOf(sent, path)} It ${message}.`)
  })
}

export function wrong(field: Field, text: string, link?: Wrong['link']): Wrong {
  return { field, label: labels[field], text, link }
}

function sentOf(sent: Readonly<Record<string, unknown>>, path: string): string {
  const value = path.split('.').reduce((at: unknown, key): unknown => Object(at)[key], sent)
  if (value === undefined && !Object.hasOwn(fields, path)) return ''
  return sentText(Array.isArray(value) ? value.join(' ') : value === undefined ? '' : String(value))
}

function sentText(text: string): string {
  if (text === '') return 'Nothing was sent.'
  return `You sent “${text.length > maxShown ? `${text.slice(0, maxShown).toWellFormed()}…` : text}”.`
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1)
