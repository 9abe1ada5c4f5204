// Dates and roles as people read them on the pages of /account. Pure.

const moment = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeStyle: 'short', timeZone: 'UTC' })

/** What a `<time>` shows and says. The server does not know the reader's zone, so it names the one it uses. */
export function whenInWords(at: Date): { readonly text: string; readonly iso: string } {
  return { text: `${moment.format(at)} UTC`, iso: at.toISOString() }
}

const roles: Readonly<Record<string, string>> = {
  platform_admin: 'Administrator of the platform',
  org_admin: 'Administrator of the organisation',
  auditor: 'Auditor',
  support: 'Support',
  member: 'Member',
}

/** Roles in words; an organisation's own names as they are. */
export function rolesInWords(names: readonly string[]): string[] {
  return names.map((name) => roles[name] ?? capital(name.replaceAll('_', ' ')))
}

/** The first letter as a capital, for what begins a line. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
