// The pages of /account as a closed list: what a sign-in may bring somebody back to, what the navigation shows, and what
// a page may say after something was done. Nothing here is ever a URL that somebody else chose (F28).

/** In the order in which `state` counts them. */
const order = [
  'overview',
  'profile',
  'email',
  'emailConfirm',
  'password',
  'factors',
  'factorsManage',
  'factorAdd',
  'sessions',
  'apps',
  'activity',
  'data',
] as const

export type Place = (typeof order)[number]

export const paths: Readonly<Record<Place, string>> = {
  overview: '/account',
  profile: '/account/profile',
  email: '/account/email',
  emailConfirm: '/account/email/confirm',
  password: '/account/password',
  factors: '/account/second-factor',
  factorsManage: '/account/second-factor/manage',
  factorAdd: '/account/second-factor/add',
  sessions: '/account/sessions',
  apps: '/account/apps',
  activity: '/account/activity',
  data: '/account/data',
}

/** The `state` of an authorization request that comes back to this page: its number. */
export function stateOf(place: Place): string {
  return String(order.indexOf(place))
}

/** The page that a `state` names; the overview for anything that names none. */
export function placeOf(state: string | undefined): Place {
  return order.find((_, index) => String(index) === state) ?? 'overview'
}

const links: readonly (readonly [Place, string])[] = [
  ['overview', 'Overview'],
  ['profile', 'Profile'],
  ['email', 'E-mail'],
  ['password', 'Password'],
  ['factors', 'Second factor'],
  ['sessions', 'Sessions'],
  ['apps', 'Apps'],
  ['activity', 'Activity'],
  ['data', 'Your data'],
]
const parents: Readonly<Partial<Record<Place, Place>>> = {
  emailConfirm: 'email',
  factorsManage: 'factors',
  factorAdd: 'factors',
}

/** The navigation as it stands on a page. */
export function navigation(here: Place) {
  const current = parents[here] ?? here
  return links.map(([place, label]) => ({ href: paths[place], label, isCurrent: place === current }))
}

const confirmations = {
  name: 'Your name is changed.',
  email_link:
    'A link is on its way to the new address. It works for 24 hours; your address changes when you confirm it there.',
  email: 'Your e-mail address is changed. We told both addresses.',
  password: 'Your password is changed, and everything else that was signed in with this account is signed out.',
  factor_on: 'The authenticator is turned on, and every other session of yours is signed out.',
  factor_renamed: 'The authenticator has its new name.',
  factor_off: 'The authenticator is removed, and every other session of yours is signed out.',
  session: 'That session is signed out.',
  sessions: 'Everything else is signed out. Only this browser is left.',
  app: 'The app has no access any more.',
} as const

export type Confirmation = keyof typeof confirmations

/** The address of a page that says that something was done. */
export function confirmedAt(place: Place, confirmation: Confirmation): string {
  return `${paths[place]}?done=${confirmation}`
}

/** What a page says for a key of its address; nothing for a key that is none of ours. */
export function confirmationText(key: string | undefined): string | undefined {
  return Object.entries(confirmations).find(([name]) => name === key)?.[1]
}
