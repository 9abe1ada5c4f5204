// Rows of the matrix for the organisation itself: its name, policy, domains and audit log; and for the platform's list.
import { randomBytes } from 'node:crypto'
import { type Asker, organizationId, type Row } from './matrix-rows.ts'
import type { AdminServer } from './support.ts'

const unique = () => randomBytes(9).toString('hex')

/** A new organisation of the platform. */
export async function newOrganization(server: AdminServer, closed = false): Promise<string> {
  const id = `org_${unique()}`
  await server.database.run(
    'insert into mlpipes_auth.organizations (id, slug, name, closed_at) values ($1, $2, $3, case when $4::boolean then now() end)',
    [id, `o-${unique()}`, 'New Organisation', closed],
  )
  return id
}

async function newDomain(server: AdminServer, slug: string, verified = false): Promise<string> {
  const id = `dom_${unique()}`
  await server.database.run(
    `insert into mlpipes_auth.organization_domains (id, organization_id, domain, challenge, verified_at)
     values ($1, $2, $3, 'challenge', case when $4::boolean then now() end)`,
    [id, await organizationId(server, slug), `${unique()}.example`, verified],
  )
  return id
}

/** The version of the organisation, which its policy has too. */
const itself: Row['target'] = async (server, slug) => {
  const [row] = await server.database.run('select version from mlpipes_auth.organizations where slug = $1', [slug])
  return { etag: `"${row?.['version']}"` }
}
const open: Row['target'] = async (server) => ({ params: { organizationId: await newOrganization(server) } })
const closed: Row['target'] = async (server) => ({ params: { organizationId: await newOrganization(server, true) } })
const claimed: Row['target'] = async (server, slug) => ({ params: { domainId: await newDomain(server, slug) } })
// Found in DNS already, so that nothing is asked of it here.
const verified: Row['target'] = async (server, slug) => ({ params: { domainId: await newDomain(server, slug, true) } })

const readers: readonly Asker[] = ['auditor', 'admin']
const admins: readonly Asker[] = ['admin']
const platform = { may: [], isPlatforms: true } as const

export const organizationRows: Readonly<Record<string, Row>> = {
  listOrganizations: { ...platform, status: 200 },
  createOrganization: { ...platform, status: 201, body: (id) => ({ slug: `o-${id}`, name: 'New Organisation' }) },
  closeOrganization: { ...platform, status: 200, target: open, isSole: true },
  reopenOrganization: { ...platform, status: 200, target: closed, isSole: true },
  getOrganization: { may: readers, status: 200 },
  updateOrganization: {
    may: admins,
    status: 200,
    target: itself,
    isSole: true,
    body: (id) => ({ name: `Hospital ${id}` }),
  },
  getPolicy: { may: readers, status: 200 },
  replacePolicy: { may: admins, status: 200, target: itself, isSole: true, body: () => ({ signup: 'invite' }) },
  updatePolicy: { may: admins, status: 200, target: itself, isSole: true, body: () => ({ signup: 'closed' }) },
  previewPolicy: { may: admins, status: 200, body: () => ({ patch: { mfa: 'required' } }) },
  // Whoever may is told that there is none.
  explainById: { may: readers, status: 400 },
  explain: { may: readers, status: 404, body: () => ({ session: 'missing' }) },
  listDomains: { may: readers, status: 200 },
  addDomain: { may: admins, status: 201, body: (id) => ({ domain: `${id}.example` }) },
  verifyDomain: { may: admins, status: 200, target: verified },
  removeDomain: { may: admins, status: 204, target: claimed },
  listAuditEvents: { may: readers, status: 200 },
  exportAuditEvents: { may: readers, status: 200 },
}
