// Checks access tokens of MLPipes Auth in an API. `fastify.ts` and `express.ts` are the adapters.
export { createReplayMemory, type ProofAlgorithm, proofAlgorithms, type ReplayMemory } from './dpop.ts'
export type { Credentials } from './introspection.ts'
export type { RequestLike } from './request.ts'
export { type AcrRequirement, type Requirements, requireAcr, requireScope } from './requirements.ts'
export { tokenOf } from './tokens.ts'
export {
  type AccessToken,
  type Reason,
  type Refusal,
  refusalBody,
  refusalHeaders,
  type Verdict,
} from './verdict.ts'
export { createVerifier, type DpopSettings, maxCacheSeconds, type Verifier, type VerifierOptions } from './verifier.ts'
