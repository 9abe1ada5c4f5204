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
  'ownApps',
  'register',
  'ownApp',
  'ownAppEdit',
  'ownAppSecret',
  'confirmed',
] as const

export type Place = (typeof order)[number]

/** `:clientId` stands for an item of the place: an app. */
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
  ownApps: '/account/apps/manage',
  register: '/account/apps/register',
  ownApp: '/account/apps/manage/:clientId',
  ownAppEdit: '/account/apps/manage/:clientId/edit',
  ownAppSecret: '/account/apps/manage/:clientId/secret',
  confirmed: '/account/apps/confirmed',
}

/** Nothing that could lead a path elsewhere: no dot before anything else, no slash. */
const itemPattern = /^[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}$/
const hasItem = (place: Place) => paths[place].includes(':clientId')

/** The address of a page, of an item where the place has some. */
export function addressOf(place: Place, item?: string): string {
  return paths[place].replace(':clientId', item ?? '')
}

/** The `state` of an authorization request that comes back to this page: its number, and its item. */
export function stateOf(place: Place, item?: string): string {
  const number = String(order.indexOf(place))
  return hasItem(place) && item !== undefined && itemPattern.test(item) ? `${number}.${item}` : number
}

/** The page that a `state` names; the overview for anything that names none. */
export function placeOf(state: string | undefined): Place {
  return order.find((_, index) => String(index) === state) ?? 'overview'
}

/** The address that a `state` names, likewise. */
export function addressOfState(state: string | undefined): string {
  const [, number, item] = /^(\d+)(?:\.(.+))?$/.exec(state ?? '') ?? []
  const place = placeOf(number)
  if (stateOf(place, item) !== state) return paths.overview
  return hasItem(place) && item === undefined ? paths.ownApps : addressOf(place, item)
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
  ownApps: 'apps',
  register: 'apps',
  ownApp: 'apps',
  ownAppEdit: 'apps',
  ownAppSecret: 'apps',
  confirmed: 'apps',
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
  app_changed: 'The app is changed.',
  app_off: 'The app is switched off, and everything that it had is over.',
  app_on: 'The app is switched on again. People sign in to it anew.',
} as const

export type Confirmation = keyof typeof confirmations

/** The address of a page that says that something was done. */
export function confirmedAt(place: Place, confirmation: Confirmation, item?: string): string {
  return `${addressOf(place, item)}?done=${confirmation}`
}

/** What a page says for a key of its address; nothing for a key that is none of ours. */
export function confirmationText(key: string | undefined): string | undefined {
  return Object.entries(confirmations).find(([name]) => name === key)?.[1]
}
