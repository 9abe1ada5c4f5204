// Which origins are first-party: those of the redirect URIs of clients that the operator marked so. Browsers at these, and
// at the issuer itself, may call the API with cookies; everybody else may not.
import type { ClientPlace } from '../accounts/place.ts'
import type { Database, Row } from '../db/database.ts'
import { accountClientId } from '../oidc/provider.ts'
import type { Policies } from '../organizations/organizations.ts'
import type { PolicyInput } from '../organizations/policy.ts'

/** The app that calls, for the audit trail and the words in mails. */
export interface CallingApp {
  readonly id: string
  readonly name: string
  readonly organizationId: string | undefined
  /** The organisation with its policy; undefined for our own pages. */
  readonly place: ClientPlace | undefined
}

/** Calls from our own origin, or without one as from a native app, stand under the client of our own pages. */
const ourselves: CallingApp = {
  id: accountClientId,
  name: 'MLPipes account',
  organizationId: undefined,
  place: undefined,
}

/** How long a client that was added or disabled may go unnoticed here. */
export const originsMaxAgeMs = 5_000

const firstParty = `select c.client_id, c.name, c.organization_id, o.policy, u.uri
    from mlpipes_auth.clients c
    join mlpipes_auth.organizations o on o.id = c.organization_id and o.closed_at is null
    cross join lateral jsonb_array_elements_text(c.metadata -> 'redirect_uris') as u (uri)
    where c.first_party and c.disabled_at is null
    order by c.client_id`

export interface Origins {
  /** @returns the app at this origin; undefined for an origin that is not first-party. `null` is nobody's. */
  appAt(origin: string | undefined): Promise<CallingApp | undefined>
}

export function createOrigins(parts: {
  readonly issuer: string
  readonly database: Pick<Database, 'run'>
  readonly policies: Policies
  /** Milliseconds of a clock that never goes back. */
  readonly elapsedMs: () => number
}): Origins {
  let known: { readonly apps: Promise<ReadonlyMap<string, CallingApp>>; readonly untilMs: number } | undefined

  /** One query for all who ask meanwhile; one that fails is not kept. */
  function load(): Promise<ReadonlyMap<string, CallingApp>> {
    const nowMs = parts.elapsedMs()
    if (known && nowMs < known.untilMs) return known.apps
    const apps = parts.database.run(firstParty, []).then((rows) => byOrigin(rows, parts.policies))
    known = { apps, untilMs: nowMs + originsMaxAgeMs }
    apps.catch(() => {
      known = undefined
    })
    return apps
  }

  return {
    async appAt(origin) {
      if (origin === undefined || origin === parts.issuer) return ourselves
      return (await load()).get(origin)
    },
  }
}

/** Apps that share an origin cannot be told apart by it; the first by id stands for them. */
function byOrigin(rows: readonly Row[], policies: Policies): ReadonlyMap<string, CallingApp> {
  const apps = new Map<string, CallingApp>()
  for (const row of rows) {
    // A URI without a web origin of its own, such as a native app's scheme, has the origin "null".
    const origin = URL.parse(String(row['uri']))?.origin ?? 'null'
    if (origin === 'null' || apps.has(origin)) continue
    const organizationId = String(row['organization_id'])
    apps.set(origin, {
      id: String(row['client_id']),
      name: String(row['name']),
      organizationId,
      place: { organizationId, policy: policies(row['policy'] as PolicyInput) },
    })
  }
  return apps
}
