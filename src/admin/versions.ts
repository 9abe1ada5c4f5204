// Versions as entity tags (RFC 9110 §8.8.3), and what If-Match has to say about them. Pure.
import { ApiProblem } from '../api/problems.ts'
import { maxVersion } from './operation.ts'

const tag = /^"([0-9]{1,10}(?:\.[0-9]{1,10})?)"$/

export function toEtag(version: readonly number[]): string {
  return `"${version.join('.')}"`
}

/**
 * The version that a change is meant for. `*` would mean "whatever it is", which is what If-Match is here to prevent.
 * @param parts how many numbers make the version
 * @throws ApiProblem `version_required` without a tag, `version_stale` for one that no version can have
 */
export function readIfMatch(header: string | undefined, parts: number): readonly number[] {
  if (header === undefined || header.trim() === '' || header.trim() === '*') throw new ApiProblem('version_required')
  const version = tag.exec(header.trim())?.[1]?.split('.').map(Number) ?? []
  if (version.length !== parts || version.some((part) => part > maxVersion)) throw new ApiProblem('version_stale')
  return version
}
