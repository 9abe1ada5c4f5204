// What a scope means to a person, for the consent page.

export interface ScopeText {
  readonly name: string
  readonly title: string
  readonly text: string
}

const texts: Readonly<Record<string, Omit<ScopeText, 'name'>>> = {
  openid: { title: 'Know who you are', text: 'Your account identifier, your organisation and your roles there.' },
  profile: { title: 'See your name', text: 'Your name as your organisation keeps it.' },
  email: { title: 'See your e-mail address', text: 'Your work address and whether it is confirmed.' },
  offline_access: {
    title: 'Stay connected',
    text: 'Keep access when you are not using the app, until you or your organisation removes it.',
  },
  introspect: { title: 'Check tokens', text: 'Ask whether an access token is still good.' },
  'admin:read': {
    title: 'Read administration data',
    text: 'See people, settings and the audit log of your organisation, as far as your roles allow.',
  },
  'admin:write': {
    title: 'Change administration data',
    text: 'Change people and settings of your organisation, as far as your roles allow.',
  },
}

/** What of a person each scope tells (OpenID Connect Core §5.4). */
export const claimsByScope = {
  openid: ['sub', 'acr', 'amr', 'auth_time', 'org_id', 'org_slug', 'roles'],
  profile: ['name', 'updated_at'],
  email: ['email', 'email_verified'],
} as const satisfies Readonly<Record<string, readonly string[]>>

/** The claims that come with these scopes. */
export function claimsOf(scopes: readonly string[]): string[] {
  return Object.entries(claimsByScope).flatMap(([scope, claims]) => (scopes.includes(scope) ? [...claims] : []))
}

/** The scopes that these claims come with. */
export function scopesWith(claims: Iterable<string>): string[] {
  const asked = new Set(claims)
  return Object.entries(claimsByScope).flatMap(([scope, its]) => (its.some((claim) => asked.has(claim)) ? [scope] : []))
}

/** The scopes in words, in the order asked. */
export function describeScopes(scopes: readonly string[]): ScopeText[] {
  return scopes.map((name) => ({ name, ...(texts[name] ?? { title: name, text: 'A permission of this app.' }) }))
}
