// What `mlpipes-auth try` prints on a terminal. Pure.
import type { TryReport } from './try.ts'
import type { Check, DecodedToken } from './try-checks.ts'

export function checkInWords({ name, ok, detail }: Check): string {
  return `${ok ? '✓' : '✗'} ${name}: ${detail}`
}

export function stepInWords(text: string): string {
  return `\n${text}`
}

/** The end of the report: tokens without their signatures, and how it went. Steps and checks were told before. */
export function endInWords({ ok, tokens, checks, problem }: TryReport): string {
  const failed = checks.filter((check) => !check.ok).length
  const verdict = ok
    ? `All ${checks.length} checks passed.`
    : (problem ?? `${failed} of ${checks.length} checks failed.`)
  return [...Object.entries(tokens).map(([name, token]) => tokenInWords(name, token)), '', verdict].join('\n')
}

function tokenInWords(name: string, token: DecodedToken): string {
  if (token.format === 'opaque') return `\n${name}: opaque, ${token.characters} characters`
  return `\n${name} header ${JSON.stringify(token.header)}\n${name} claims ${JSON.stringify(token.claims, null, 2)}`
}
