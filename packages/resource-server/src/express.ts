// For Express, and for whatever else takes (request, response, next) over node:http.
import { admit } from './guard.ts'
import type { RequestLike } from './request.ts'
import type { Requirements } from './requirements.ts'
import { type Refusal, refusalBody, refusalHeaders } from './verdict.ts'
import type { Verifier } from './verifier.ts'

export { tokenOf } from './tokens.ts'

interface ExpressRequestLike extends RequestLike {
  /** Express takes the mount path off `url`; the client asked for this. */
  readonly originalUrl?: string
}

interface ResponseLike {
  statusCode: number
  setHeader(name: string, value: string): unknown
  end(body: string): unknown
}

export function expressGuard(verifier: Pick<Verifier, 'verify'>, requirements: Requirements = {}) {
  return (request: ExpressRequestLike, response: ResponseLike, next: (error?: unknown) => void): void => {
    const { method, headers } = request
    const seen = { method, url: request.originalUrl ?? request.url, headers }
    admit(verifier, requirements, request, seen).then(
      (refusal) => (refusal ? answerRefusal(response, refusal) : next()),
      (error: unknown) => next(error),
    )
  }
}

/** Writes a refusal as the answer. */
export function answerRefusal(response: ResponseLike, refusal: Refusal): void {
  response.statusCode = refusal.status
  for (const [name, value] of Object.entries(refusalHeaders(refusal))) response.setHeader(name, value)
  response.setHeader('content-type', 'application/json; charset=utf-8')
  response.end(JSON.stringify(refusalBody(refusal)))
}
