// The forms of these pages: what was typed, and what it asks of the admin API. Pure. What is wrong with it is said in
// wrongs.ts.
import { z } from 'zod'
import { authentications, kinds } from './choices.ts'
import { legible } from './legible.ts'

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
/** Of the app, when the form was shown. */
const version = z
  .string()
  .regex(/^\d{1,10}$/)
  .transform(Number)

export const emptyForm = z.strictObject({ csrf })
const common = { csrf, name: line, redirectUris: lines.default(''), signOutUris: lines.default(''), scope: checked }
export const registerForm = z.strictObject({
  ...common,
  kind: line.default(''),
  authentication: line.default(''),
  jwksUri: line.default(''),
  profile: line.default(''),
  introspection: line.default(''),
  /** Of this form, drawn anew for each that is shown: what is sent twice is done once. */
  key: z.string().regex(/^[\w-]{22}$/),
})
export const editForm = z.strictObject({ ...common, version })
export const secretForm = z.strictObject({ csrf, overlap: line, version })

export type RegisterForm = z.output<typeof registerForm>
export type EditForm = z.output<typeof editForm>

export const labels = {
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
} as const
export type Field = keyof typeof labels

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

type Typed = Pick<EditForm, 'name' | 'redirectUris' | 'signOutUris' | 'scope'>

export function changeOf(form: Typed) {
  return {
    client_name: form.name.trim(),
    redirect_uris: linesOf(form.redirectUris),
    post_logout_redirect_uris: linesOf(form.signOutUris),
    scope: form.scope.join(' '),
  }
}

/** The form that changes an app, as the app is now. */
export function formOf(app: ReturnType<typeof changeOf>): Typed {
  return {
    name: app.client_name,
    redirectUris: app.redirect_uris.join('\n'),
    signOutUris: app.post_logout_redirect_uris.join('\n'),
    scope: app.scope.split(' '),
  }
}

export interface Difference {
  readonly label: string
  readonly now: readonly string[]
  readonly typed: readonly string[]
}

/** Where what was typed is not what the app is now, line by line, to be read. */
export function differencesOf(typed: Typed, now: Typed): Difference[] {
  const sides = (field: keyof Typed) =>
    [now[field], typed[field]].map((value) => (typeof value === 'string' ? linesOf(value) : [...value].sort()))
  return (['name', 'redirectUris', 'signOutUris', 'scope'] as const).flatMap((field) => {
    const [before = [], after = []] = sides(field)
    if (before.join('\n') === after.join('\n')) return []
    return [{ label: labels[field], now: before.map(legible), typed: after.map(legible) }]
  })
}
