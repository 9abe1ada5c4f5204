// The EHR's own API: a resource server. It asks the provider about every token it is shown, so that a token that died
// a moment ago opens nothing.
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
// Of an app of its own: from '@mlpipes/auth-resource-server/fastify' and '@mlpipes/auth-resource-server'.
import { fastifyGuard, tokenOf } from '../../packages/resource-server/src/fastify.ts'
import { createVerifier } from '../../packages/resource-server/src/index.ts'

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
  // Another app of the same organisation has good tokens as well. They were not given to it for patient lists.
  const verifier = createVerifier({ issuer, clientId, clientSecret, acceptedClients: [acceptedClientId] })
  app.addHook('onClose', () => verifier.close())

  app.get('/api/patients', { onRequest: fastifyGuard(verifier) }, (request, reply) => {
    const { sub } = tokenOf(request)
    // A token without a subject belongs to a service: patient lists are for people.
    if (sub === undefined) return reply.code(403).send({ error: 'a person’s token is required' })
    return reply.send({ patients, checkedFor: sub } satisfies z.infer<typeof patientList>)
  })
}
