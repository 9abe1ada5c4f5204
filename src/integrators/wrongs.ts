// What is wrong with a form, field by field, in plain words: what was sent, and what to do about it. Pure. What may be
// registered is the admin API's to say; here are the words for it where its own are for programs.
import { type ApiProblem, type ApiProblemCode, apiProblems } from '../api/problems.ts'
import { clientLimits, deviceGrant } from '../clients/clients.ts'
import { authentications, type Choice, introspections, kinds, profiles, scopeChoices } from './choices.ts'
import { type Field, labels, type RegisterForm } from './forms.ts'
import { legible } from './legible.ts'

export interface Wrong {
  readonly field: Field
  readonly label: string
  readonly text: string
  /** Where it is mended; opened beside the form, which stays as it was filled in. */
  readonly link?: { readonly href: string; readonly label: string } | undefined
}

type Sent = Readonly<Record<string, unknown>>

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

/** Titles of choices as the form shows them. */
const titleOf = (choices: readonly Choice[], value: unknown) =>
  choices.find((choice) => choice.value === value)?.title ?? String(value)
const said = {
  key: titleOf(authentications, 'private_key_jwt'),
  secret: titleOf(authentications, 'secret'),
  nothing: titleOf(authentications, 'none'),
  standard: titleOf(profiles, 'standard'),
  fapi2: titleOf(profiles, 'fapi2'),
  noChecks: titleOf(introspections, 'none'),
}
const chosenMethod = ({ token_endpoint_auth_method: method }: Sent) =>
  authentications.find((choice) => choice.method === method)?.title

/** What only the form asks: the API knows no kinds. */
export function wrongWithKind({ kind: chosen, authentication, profile }: RegisterForm): Wrong[] {
  const kind = kinds.find(({ value }) => value === chosen)
  if (!kind) return [wrong('kind', chooseOneOf(kinds, chosen))]
  if (!kind.isPublic) return []
  const why = `You chose “${kind.title}”, and whoever has such an app has what is in it.`
  return [
    ...(authentication === 'none' ? [] : [wrong('authentication', `${why} Choose “${said.nothing}” here.`)]),
    ...(profile === 'fapi2'
      ? [
          wrong(
            'profile',
            `${why} “${said.fapi2}” asks for a key that it would have to keep. Choose “${said.standard}”.`,
          ),
        ]
      : []),
  ]
}

/** What the API refused, by the fields of the form. */
export function wrongWith({ code, exact }: Pick<ApiProblem, 'code' | 'exact'>, sent: Sent): Wrong[] {
  const errors = exact.errors ?? []
  if (errors.length === 0) return [wrong('general', pageWords[code] ?? apiProblems[code].detail)]
  const wrongs = errors.map(({ path, message }) => {
    // The provider names the member in its words.
    const member = (path === '' ? /^\w+/.exec(message)?.[0] : path.split('.')[0]) ?? ''
    const field = (Object.hasOwn(fields, member) ? fields[member] : undefined) ?? 'general'
    if (path === '') return wrong(field, `${sentOf(sent, member)} ${capital(message)}.`.trim())
    return plainWrong(member, path, sent) ?? wrong(field, `${sentOf(sent, path)} ${sentence(message)}`.trim())
  })
  // One thing that is wrong may break two rules.
  return wrongs.filter(
    ({ field, text }, index) => index === wrongs.findIndex((w) => w.field === field && w.text === text),
  )
}

export function wrong(field: Field, text: string, link?: Wrong['link']): Wrong {
  return { field, label: labels[field], text, link }
}

/** The words of the API for these are for programs. */
const pageWords: Readonly<Partial<Record<ApiProblemCode, string>>> = {
  caller_unknown: 'You may not do this any more. Nothing was changed. Sign in again, or ask an administrator.',
}

interface Plain {
  readonly member: string
  when(value: unknown, sent: Sent): boolean
  text(value: unknown, sent: Sent): string
  /** Where it is mended, if not in the field of the member. */
  readonly field?: Field
}

const lengthOf = (value: unknown) => (typeof value === 'string' || Array.isArray(value) ? value.length : 0)
const isText = (value: unknown) => typeof value === 'string'
const number = (value: number) => value.toLocaleString('en')
const isNone = (_: unknown, { token_endpoint_auth_method: method }: Sent) => method === 'none'
const isService = ({ grant_types: grants }: Sent) =>
  Array.isArray(grants) && grants.every((grant) => grant === 'client_credentials')

const addresses = (member: string): Plain[] => [
  {
    member,
    when: (value) => isText(value) && lengthOf(value) > clientLimits.uriLength,
    text: (value) =>
      `${sentText(String(value))} It has ${number(lengthOf(value))} characters, and an address has at most ${number(clientLimits.uriLength)}. Register a shorter one.`,
  },
  {
    member,
    when: (value) => Array.isArray(value) && value.length > clientLimits.uris,
    text: (value) =>
      `You typed ${lengthOf(value)} addresses, and an app has at most ${clientLimits.uris}. Take some out.`,
  },
  {
    member,
    when: (value) => Array.isArray(value) && new Set(value).size < value.length,
    text: () => 'The same address stands there twice. Take one out.',
  },
]
const choice = (member: string, choices: readonly Choice[], values = choices.map(({ value }) => value)): Plain => ({
  member,
  when: (value) => isText(value) && !values.some((each) => each === value),
  text: (value) => chooseOneOf(choices, String(value)),
})

/** The first that fits says it. */
const plain: readonly Plain[] = [
  {
    member: 'client_name',
    when: (value) => value === '',
    text: () => 'Nothing was typed. Type the name by which people know the app.',
  },
  {
    member: 'client_name',
    when: (value) => lengthOf(value) > clientLimits.nameLength,
    text: (value) =>
      `You typed ${number(lengthOf(value))} characters, and a name has at most ${clientLimits.nameLength}. Shorten it.`,
  },
  {
    member: 'client_name',
    when: (value) => isText(value) && legible(String(value)) !== value,
    text: (value) =>
      `${sentText(String(value))} What is shown as ‹U+…› cannot be seen, or turns the text around. Type the name anew, without it.`,
  },
  ...addresses('redirect_uris'),
  ...addresses('post_logout_redirect_uris'),
  {
    member: 'redirect_uris',
    when: (value, sent) => Array.isArray(value) && value.length > 0 && isService(sent),
    text: () => 'A service has nobody who comes back to it in a browser. Leave this empty.',
  },
  {
    member: 'redirect_uris',
    when: (value) => Array.isArray(value) && value.length === 0,
    text: () =>
      'Nothing was typed. People come back to the app after signing in: type at least one address where it expects them.',
  },
  {
    member: 'scope',
    when: (value) => value === '',
    text: () =>
      `Nothing is ticked. Tick at least one: “${titleOf(scopeChoices, 'openid')}” if people sign in to it, “${titleOf(scopeChoices, 'introspect')}” if it is an API that checks tokens.`,
  },
  choice(
    'token_endpoint_auth_method',
    authentications,
    authentications.map(({ method }) => method),
  ),
  {
    member: 'token_endpoint_auth_method',
    when: (_, { profile }) => profile === 'fapi2',
    text: (_, sent) =>
      `You chose “${chosenMethod(sent)}”. With the profile “${said.fapi2}” an app proves itself with a key: choose “${said.key}” and type the address of its public keys, or choose the profile “${said.standard}”.`,
  },
  {
    member: 'jwks',
    when: (_, { token_endpoint_auth_method: method }) => method === 'private_key_jwt',
    text: () =>
      `You chose “${said.key}”. We need its public keys for that: type the https address where we fetch them, or choose another way for it to prove itself.`,
  },
  {
    member: 'grant_types',
    when: (value, sent) => Array.isArray(value) && value.includes('client_credentials') && isNone(value, sent),
    field: 'authentication',
    text: () =>
      `You chose “${said.nothing}”. A service acts in its own name and has to prove itself: choose “${said.secret}” or “${said.key}”.`,
  },
  {
    member: 'grant_types',
    when: (value, { profile }) => profile === 'fapi2' && Array.isArray(value) && value.includes(deviceGrant),
    field: 'profile',
    text: () => `A device cannot have the profile “${said.fapi2}”. Choose “${said.standard}”.`,
  },
  choice('introspection', introspections),
  {
    member: 'introspection',
    when: isNone,
    text: (value) =>
      `You chose “${titleOf(introspections, value)}”. Only an app that proves itself to us may check tokens: choose “${said.noChecks}” here, or another way for it to prove itself.`,
  },
  choice('profile', profiles),
]

function plainWrong(member: string, path: string, sent: Sent): Wrong | undefined {
  const value = valueAt(sent, path)
  const found = plain.find((each) => each.member === member && each.when(value, sent))
  const field = found?.field ?? fields[member]
  return found && field && wrong(field, found.text(value, sent))
}

function chooseOneOf(choices: readonly Choice[], sent: string): string {
  const what = sent === '' ? 'Nothing is chosen.' : sentText(sent)
  return `${what} Choose one of: ${choices.map(({ title }) => title).join(', ')}.`
}

const valueAt = (sent: Sent, path: string) =>
  path.split('.').reduce((at: unknown, key): unknown => Object(at)[key], sent)

function sentOf(sent: Sent, path: string): string {
  const value = valueAt(sent, path)
  if (value === undefined) return ''
  return sentText(Array.isArray(value) ? value.join(' ') : String(value))
}

function sentText(text: string): string {
  if (text === '') return 'Nothing was sent.'
  return `You sent “${legible(text.length > maxShown ? `${text.slice(0, maxShown).toWellFormed()}…` : text)}”.`
}

/** What the API says of a member, as a sentence: most of it goes on from the member's name. */
function sentence(message: string): string {
  const goesOn = /^(?:must|needs|has|is|stands|takes)\b/.test(message)
  return `${goesOn ? `It ${message}` : capital(message)}.`
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1)
