// Authentication contexts: their order, and what an authorization request asks of a sign-in. Pure; prompts.ts acts on it.
import { z } from 'zod'

/** Weakest first. Each class holds the ones before it: who signed in with two factors gave a password too. */
export const acrs = ['urn:mlpipes:acr:link', 'urn:mlpipes:acr:password', 'urn:mlpipes:acr:mfa'] as const

export type AcrName = (typeof acrs)[number]

export type AcrRequest =
  | {
      readonly ok: true
      /** The weakest context that satisfies the request; undefined when any does. */
      readonly least: AcrName | undefined
      /** An essential claim names the values of which one must come back; undefined when it names none. */
      readonly oneOf: readonly AcrName[] | undefined
    }
  /** `malformed`: the claim cannot be read. `unknown`: it is essential and none of its values is ours. */
  | { readonly ok: false; readonly reason: 'malformed' | 'unknown' }

/** The two parameters as they came. */
export interface AcrParameters {
  readonly acrValues: string | undefined
  readonly claims: string | undefined
}

// OpenID Connect Core §5.5: members that are not understood are ignored, so these two objects are not strict.
const acrClaim = z.object({
  essential: z.boolean().optional(),
  value: z.string().optional(),
  values: z.array(z.string()).optional(),
})
const claimsParameter = z.object({ id_token: z.object({ acr: acrClaim.nullish() }).optional() })

/**
 * What a request asks for. `acr_values` (OpenID Connect Core §3.1.2.1) and a claim that is not essential are voluntary
 * there; RFC 9470 §5 wants the value to count as necessary, and so it does here: the weakest of ours that is listed is
 * the least that will do, and a list without any of ours asks nothing. An essential claim with values (§5.5.1.1) must
 * be answered with one of them. Asked in both ways, which §5.5.1.1 leaves open, both must be met.
 */
export function requiredAcr({ acrValues, claims }: AcrParameters): AcrRequest {
  const claim = readClaim(claims)
  if (claim === undefined) return { ok: false, reason: 'malformed' }
  const listed = namedBy(claim)
  const essential = claim.essential === true && listed !== undefined
  const claimed = known(listed ?? [])
  if (essential && claimed.length === 0) return { ok: false, reason: 'unknown' }
  const wanted = [weakest(known(acrValues?.split(' ') ?? [])), weakest(claimed)]
  return { ok: true, least: strongest(wanted), oneOf: essential ? claimed : undefined }
}

/** Whether a sign-in of this context is at least as strong as what is required. */
export function satisfies(acr: string | undefined, required: AcrName): boolean {
  return rank(acr) >= rank(required)
}

/**
 * The context that a client is told. It is the session's own, except that an essential claim with values MUST come
 * back as one of them (OpenID Connect Core §5.5.1.1): then it is the strongest of those that the session satisfies,
 * which is true as well, for `acr` names a class that the authentication satisfied (§2).
 */
export function reportedAcr(acr: string | undefined, request: AcrRequest): string | undefined {
  if (!request.ok || request.oneOf === undefined) return acr
  return strongest(request.oneOf.filter((name) => satisfies(acr, name))) ?? acr
}

type AcrClaim = z.infer<typeof acrClaim>

/** The `acr` member of `claims.id_token`, empty when nothing is asked; undefined when it cannot be read. */
function readClaim(claims: string | undefined): AcrClaim | undefined {
  if (claims === undefined) return {}
  const parsed = claimsParameter.safeParse(toJson(claims))
  return parsed.success ? (parsed.data.id_token?.acr ?? {}) : undefined
}

function toJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What `value` and `values` name; with both, what both allow. */
function namedBy({ value, values }: AcrClaim): readonly string[] | undefined {
  if (value === undefined) return values
  return values === undefined || values.includes(value) ? [value] : []
}

function known(names: readonly string[]): AcrName[] {
  return acrs.filter((acr) => names.includes(acr))
}

function weakest(names: readonly AcrName[]): AcrName | undefined {
  return acrs.find((acr) => names.includes(acr))
}

function strongest(names: readonly (AcrName | undefined)[]): AcrName | undefined {
  return acrs.findLast((acr) => names.includes(acr))
}

const order: readonly (string | undefined)[] = acrs

/** -1 for none, and for one that is not ours. */
function rank(acr: string | undefined): number {
  return order.indexOf(acr)
}
