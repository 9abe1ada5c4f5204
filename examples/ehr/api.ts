// The EHR's own API: a resource server. It asks the provider about every token it is shown, so that a token that died
// a moment ago opens nothing.
import type { FastifyInstance } from 'fastify'
import * as oidc from 'openid-client'
import { createDiscovery } from './oidc.ts'

export interface ApiOptions {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
}

// Nobody here exists.
const patients = [
  {
    mrn: '4410-27',
    name: 'Rosalind Okafor',
    born: '1958-03-11',
    ward: 'Cardiology 4B',
    reason: 'Atrial fibrillation, review',
  },
  { mrn: '4410-31', name: 'Teodor Vance', born: '1991-09-02', ward: 'Surgery 2A', reason: 'Appendectomy, day 1' },
  { mrn: '4410-48', name: 'Mina Halvorsen', born: '1976-12-20', ward: 'Medicine 3C', reason: 'Pneumonia, day 3' },
] as const

export type Patient = (typeof patients)[number]

export function addApi(app: FastifyInstance, { issuer, clientId, clientSecret }: ApiOptions): void {
  const discover = createDiscovery(issuer, clientId, clientSecret)

  app.get('/api/patients', async (request, reply) => {
    const token = /^Bearer ([\w~.+/=-]+)$/i.exec(request.headers.authorization ?? '')?.[1]
    if (token === undefined)
      return reply.code(401).header('www-authenticate', 'Bearer').send({ error: 'a bearer token is required' })
    const answer = await oidc.tokenIntrospection(await discover(), token)
    // A token without a subject belongs to a service: patient lists are for people.
    if (!answer.active || answer.sub === undefined) {
      return reply
        .code(401)
        .header('www-authenticate', 'Bearer error="invalid_token"')
        .send({ error: 'the token is not active' })
    }
    return { patients, checkedFor: answer.sub }
  })
}
