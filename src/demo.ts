// The demo: an organisation, two people and the clients of the demo EHR app. Written like any operator's file.
import type { ApplyInput } from './apply/apply.ts'

export const demoEhrPort = 3002
export const demoEhrUrl = `http://localhost:${demoEhrPort}`

export const demoPeople = [
  {
    role: 'Administrator',
    email: 'admin@mercy.example',
    name: 'Ada Moreno',
    password: 'Lantern-Harbor-27',
    roles: ['org_admin'],
  },
  {
    role: 'Clinician',
    email: 'dr.lee@mercy.example',
    name: 'Dr Jordan Lee',
    password: 'Quiet-Meadow-41',
    roles: ['member', 'physician'],
  },
] as const

export const demoClients = {
  ehr: { id: 'demo-ehr', secret: 'demo-ehr-secret-for-local-use-only' },
  api: { id: 'demo-ehr-api', secret: 'demo-api-secret-for-local-use-only' },
} as const

export const demoFile: ApplyInput = {
  organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy: { signup: 'open' } }],
  accounts: demoPeople.map(({ email, name, password, roles }) => ({
    email,
    name,
    password,
    roles: [...roles],
    emailVerified: true,
    organization: 'mercy',
  })),
  clients: [
    {
      client_id: demoClients.ehr.id,
      client_secret: demoClients.ehr.secret,
      client_name: 'Harbor EHR',
      organization: 'mercy',
      redirect_uris: [`${demoEhrUrl}/callback`],
      post_logout_redirect_uris: [`${demoEhrUrl}/`],
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid profile email offline_access',
      introspection: 'own',
    },
    {
      client_id: demoClients.api.id,
      client_secret: demoClients.api.secret,
      client_name: 'Harbor EHR API',
      organization: 'mercy',
      grant_types: ['client_credentials'],
      scope: 'openid',
      introspection: 'organization',
    },
  ],
}
