// What the form that registers an app lets somebody choose, in plain words, and what each choice means by the names of
// RFC 7591. Pure. What may be registered is not decided here.
import { deviceGrant, supportedScopes } from '../clients/clients.ts'
import { maxOverlapSeconds, usualOverlapSeconds } from '../clients/secret.ts'
import { describeScopes } from '../oidc/scopes.ts'

export interface Choice {
  readonly value: string
  readonly title: string
  readonly text: string
}

interface Kind extends Choice {
  readonly grantTypes: readonly string[]
  readonly applicationType: 'web' | 'native'
  /** Whether whoever has the app has all that is in it, so that it cannot keep a secret. */
  readonly isPublic: boolean
}

export const kinds: readonly Kind[] = [
  {
    value: 'web',
    title: 'Web app with a server',
    text: 'People sign in to it in a browser, and its server talks to us. It can keep a secret.',
    grantTypes: ['authorization_code', 'refresh_token'],
    applicationType: 'web',
    isPublic: false,
  },
  {
    value: 'spa',
    title: 'Single-page app',
    text: 'People sign in to it, and it runs in the browser alone. It cannot keep a secret.',
    grantTypes: ['authorization_code', 'refresh_token'],
    applicationType: 'web',
    isPublic: true,
  },
  {
    value: 'native',
    title: 'Phone or desktop app',
    text: 'People sign in to it on a device of theirs. It cannot keep a secret.',
    grantTypes: ['authorization_code', 'refresh_token'],
    applicationType: 'native',
    isPublic: true,
  },
  {
    value: 'service',
    title: 'Service or API without people',
    text: 'A program that acts in its own name, or that checks the tokens of others.',
    grantTypes: ['client_credentials'],
    applicationType: 'web',
    isPublic: false,
  },
  {
    value: 'device',
    title: 'Device or terminal without a browser',
    text: 'It shows a code, and its person signs in on a phone or computer nearby.',
    grantTypes: [deviceGrant, 'refresh_token'],
    applicationType: 'native',
    isPublic: true,
  },
]

export const authentications: readonly (Choice & { readonly method: string })[] = [
  {
    value: 'secret',
    method: 'client_secret_basic',
    title: 'With a secret',
    text: 'We make it and show it once. Keep it on the server, as you keep a password.',
  },
  {
    value: 'private_key_jwt',
    method: 'private_key_jwt',
    title: 'With a key of its own (private_key_jwt)',
    text: 'It signs with a key that never leaves it, and publishes the public half. The strongest way.',
  },
  {
    value: 'none',
    method: 'none',
    title: 'It does not',
    text: 'For apps that cannot keep a secret: single-page, phone, desktop and device. PKCE protects each sign-in.',
  },
]

export const profiles: readonly Choice[] = [
  {
    value: 'standard',
    title: 'Standard',
    text: 'Right for most apps: PKCE, and refresh tokens that change with each use.',
  },
  {
    value: 'fapi2',
    title: 'FAPI 2.0',
    text: 'For high assurance: requests are pushed first, tokens are bound to a key (DPoP), and the app proves itself with a key.',
  },
]

export const introspections: readonly Choice[] = [
  { value: 'none', title: 'No', text: 'It only has tokens of its own and passes them on.' },
  {
    value: 'own',
    title: 'Its own',
    text: 'Tokens that were issued to it, or that an app asked for to use at this API alone.',
  },
  {
    value: 'organization',
    title: 'Every token of the organisation',
    text: 'For APIs that many apps call. Asks for a sign-in with the second factor of the last five minutes.',
  },
]

export const scopeChoices: readonly Choice[] = describeScopes(supportedScopes).map(({ name, title, text }) => ({
  value: name,
  title: `${title} (${name})`,
  text,
}))

export const overlaps: readonly (Choice & { readonly seconds: number })[] = [
  {
    value: 'day',
    seconds: usualOverlapSeconds,
    title: 'One day more',
    text: 'Put the new secret into the app within a day. Nothing stops meanwhile.',
  },
  {
    value: 'week',
    seconds: maxOverlapSeconds,
    title: 'One week more',
    text: 'The same, with a week. It is the longest there is.',
  },
  {
    value: 'now',
    seconds: 0,
    title: 'Not at all',
    text: 'For a secret that somebody else may have. The app stops until it has the new one.',
  },
]

/** Everything that the forms offer. */
export const choices = { kinds, authentications, profiles, introspections, scopes: scopeChoices }

/** What kind an app that is registered is, by what it may do. */
export function kindOf(client: {
  readonly grant_types: readonly string[]
  readonly application_type: string
  readonly token_endpoint_auth_method: string
}): Kind | undefined {
  const isPublic = client.token_endpoint_auth_method === 'none'
  const fits = kinds.filter(({ grantTypes }) => client.grant_types.includes(grantTypes[0] ?? ''))
  return fits.find((kind) => kind.applicationType === client.application_type && kind.isPublic === isPublic) ?? fits[0]
}
