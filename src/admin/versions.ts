// Versions as entity tags (RFC 9110 §8.8.3), and what If-Match has to say about them. Pure.
import { ApiProblem } from '../api/problems.ts'
import { maxVersion } from './operation.ts'

const tag = /^"([0-9]{1,10}(?:\.[0-9]{1,10})?)"$/
/** How many versions one If-Match may name. Each is tried, and nobody who read a thing means more. */
export const maxVersionsNamed = 10

export type Version = readonly number[]

export function toEtag(version: readonly number[]): string {
  return `"${version.join('.')}"`
}

/**
 * The versions that a change is meant for, any of them (RFC 9110 §13.1.1); a weak tag is none, as the comparison is strong.
 * `*` would mean "whatever it is", which is what If-Match is here to prevent.
 * @param parts how many numbers make the version
 * @throws ApiProblem `version_required` without a tag, `version_stale` when no version can have one of them
 */
export function readIfMatch(header: string | undefined, parts: number): readonly Version[] {
  if (header === undefined || header.trim() === '' || header.trim() === '*') throw new ApiProblem('version_required')
  // No tag of ours holds a comma, so what stands between two is the whole of one of ours, or a piece of what is none.
  const versions = header.split(',').flatMap((one) => readTag(one.trim(), parts))
  if (versions.length > maxVersionsNamed)
    throw new ApiProblem('input_invalid', [
      { path: 'If-Match', message: `must name at most ${maxVersionsNamed} versions` },
    ])
  if (versions.length === 0) throw new ApiProblem('version_stale')
  return versions
}

function readTag(text: string, parts: number): Version[] {
  const version = tag.exec(text)?.[1]?.split('.').map(Number) ?? []
  return version.length !== parts || version.some((part) => part > maxVersion) ? [] : [version]
}

/** Does `work`, which changes nothing when it throws, for the first of the versions that is not stale. */
export async function forAnyOf<T>(versions: readonly Version[], work: (expected: Version) => Promise<T>): Promise<T> {
  for (const expected of versions.slice(0, -1))
    try {
      return await work(expected)
    } catch (error) {
      if (!(error instanceof ApiProblem) || error.code !== 'version_stale') throw error
    }
  return work(versions.at(-1) ?? [])
}
