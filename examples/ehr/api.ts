// The EHR's own API: a resource server. It asks the provider about every token it is shown, so that a token that died
// a moment ago opens nothing.
import type { FastifyInstance } from 'fastify'
import * as oidc from 'openid-client'
import { z } from 'zod'
import { createDiscovery } from './oidc.ts'

export interface ApiOptions {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** The app whose tokens are accepted here. */
  readonly acceptedClientId: string
}

// Nobody here exists.
const patients: Patient[] = [
  {
    mrn: '4410-27',
    name: 'Rosalind Okafor',
    born: '1958-03-11',
    ward: 'Cardiology 4B',
    reason: 'Atrial fibrillation, review',
  },
  { mrn: '4410-31', name: 'Teodor Vance', born: '1991-09-02', ward: 'Surgery 2A', reason: 'Appendectomy, day 1' },
  { mrn: '4410-48', name: 'Mina Halvorsen', born: '1976-12-20', ward: 'Medicine 3C', reason: 'Pneumonia, day 3' },
]

const patient = z.object({
  mrn: z.string(),
  name: z.string(),
  born: z.string(),
  ward: z.string(),
  reason: z.string(),
})
export type Patient = z.infer<typeof patient>
/** What GET /api/patients answers. */
export const patientList = z.object({ patients: z.array(patient), checkedFor: z.string() })

/** Adds GET /api/patients. */
export function addApi(app: FastifyInstance, { issuer, clientId, clientSecret, acceptedClientId }: ApiOptions): void {
  const discover = createDiscovery(issuer, clientId, clientSecret)

  /** Whose token this is, or nothing if it opens nothing here. Throws when the provider does not answer. */
  const subjectOf = async (token: string): Promise<string | undefined> => {
    const answer = await oidc.tokenIntrospection(await discover(), token)
    if (!answer.active) return undefined
    // A refresh token is active too, but has no token type (RFC 7662 §2.2): it is not for resource servers.
    if (answer.token_type?.toLowerCase() !== 'bearer') return undefined
    // Another app of the same organisation has good tokens as well. They were not given to it for patient lists.
    if (answer.client_id !== acceptedClientId) return undefined
    // A token without a subject belongs to a service: patient lists are for people.
    return answer.sub
  }

  app.get('/api/patients', async (request, reply) => {
    const token = /^Bearer ([\w~.+/=-]+)$/i.exec(request.headers.authorization ?? '')?.[1]
    if (token === undefined)
      return reply.code(401).header('www-authenticate', 'Bearer').send({ error: 'a bearer token is required' })
    let subject: string | undefined
    try {
      subject = await subjectOf(token)
    } catch {
      // Not 401: the token may be good, and the caller must not throw it away. Nothing opens meanwhile.
      return reply.code(503).header('retry-after', '5').send({ error: 'the token cannot be checked at the moment' })
    }
    if (subject === undefined)
      return reply
        .code(401)
        .header('www-authenticate', 'Bearer error="invalid_token"')
        .send({ error: 'the token is not active' })
    return { patients, checkedFor: subject } satisfies z.infer<typeof patientList>
  })
}
