// Cross-site request forgery: a token bound to the interaction, and what the browser says about where a request is from.
import type { FastifyRequest } from 'fastify'
import type { Secrets } from '../crypto/secrets.ts'
import { Refusal } from '../errors.ts'

export function csrfToken(secrets: Secrets, binding: string): string {
  return secrets.mac('csrf', binding)
}

/** Refuses a form that did not come from our own page for this binding (F20). */
export function assertCsrf(
  request: FastifyRequest,
  secrets: Secrets,
  issuer: string,
  binding: string,
  token: string,
): void {
  const site = request.headers['sec-fetch-site']
  const origin = request.headers.origin
  const isForeign = (site !== undefined && site !== 'same-origin') || (origin !== undefined && origin !== issuer)
  if (isForeign || !secrets.matchesMac('csrf', binding, token)) {
    throw new Refusal('form_foreign')
  }
}
