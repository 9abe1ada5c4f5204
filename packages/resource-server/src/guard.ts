// The one thing that all adapters do: look at a request, keep its token, say how to refuse it.

import type { RequestLike } from './request.ts'
import { type Requirements, unmetRequirement } from './requirements.ts'
import { keepToken } from './tokens.ts'
import type { Refusal } from './verdict.ts'
import type { Verifier } from './verifier.ts'

/** @param request the framework's own, under which `tokenOf` finds the token */
export async function admit(
  verifier: Pick<Verifier, 'verify'>,
  requirements: Requirements,
  request: object,
  seen: RequestLike,
): Promise<Refusal | undefined> {
  const verdict = await verifier.verify(seen)
  if (!verdict.ok) return verdict
  const unmet = unmetRequirement(verdict.token, requirements)
  if (unmet) return unmet
  keepToken(request, verdict.token)
  return undefined
}
