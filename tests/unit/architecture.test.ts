// The rules of the house, kept true: who may import what, and who may read the environment.
import { globSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

const files = globSync('src/**/*.ts').sort()
const importsOf = (file: string) =>
  [...readFileSync(file, 'utf8').matchAll(/(?:from|import\()\s*'([^']+)'/g)].map((match) => match[1] ?? '')
const importers = (name: RegExp) => files.filter((file) => importsOf(file).some((from) => name.test(from)))

describe('the house', () => {
  it('has files', () => expect(files.length).toBeGreaterThan(30))
  it('imports oidc-provider in oidc/ only', () => {
    expect(importers(/^oidc-provider/).filter((file) => !file.startsWith('src/oidc/'))).toEqual([])
  })
  it('imports pg and PGlite in db/ only', () => {
    expect(importers(/^(pg|@electric-sql\/pglite)$/).filter((file) => !file.startsWith('src/db/'))).toEqual([])
  })
  it('imports argon2 and otplib in credentials/ only', () => {
    expect(importers(/^(argon2|otplib)$/).filter((file) => !file.startsWith('src/credentials/'))).toEqual([])
  })
  it('calls out in http/outbound.ts only, which knows where not to (F78); and a person may, from their terminal', () => {
    const calls =
      /\bfrom 'node:(https|http2|tls|dgram)'|import \{[^}]*\b(request|get)\b[^}]*\} from 'node:http'|[^.\w]fetch\(/
    expect(files.filter((file) => calls.test(readFileSync(file, 'utf8')))).toEqual([
      'src/cli/try.ts',
      'src/http/outbound.ts',
    ])
  })
  it('keeps pure rules free of I/O', () => {
    for (const file of [
      'src/organizations/explain.ts',
      'src/organizations/policy.ts',
      'src/organizations/policy-decisions.ts',
      'src/organizations/policy-order.ts',
      'src/organizations/policy-passwords.ts',
      'src/organizations/policy-ranges.ts',
      'src/organizations/strictness.ts',
      'src/sessions/causes.ts',
      'src/sessions/policy.ts',
      'src/login/flow.ts',
      'src/oidc/acr.ts',
    ]) {
      expect(
        importsOf(file).filter((from) => !/^zod$|(policy(-\w+)?|strictness)\.ts$/.test(from)),
        file,
      ).toEqual([])
    }
  })
  it('reads no environment outside the entry', () => {
    expect(files.filter((file) => /process\.env[.[)]/.test(readFileSync(file, 'utf8')))).toEqual([])
  })
  it('names the columns it reads, because statements stay prepared while migrations add columns', () => {
    for (const file of files)
      expect(readFileSync(file, 'utf8'), file).not.toMatch(/selectAll|returningAll|(select|returning)\s+(\w+\.)?\*/)
  })
  it('bans what reaches round the escapes', () => {
    for (const file of files)
      expect(readFileSync(file, 'utf8'), file).not.toMatch(
        /headers\.host\b(?! \?\? '')|Math\.random|\bas any\b|@ts-ignore/,
      )
  })
  it('asks whether a session lives in one place, which knows of policies that got stricter', () => {
    // Beside it: what ends sessions, and a count of what a change would end.
    const allowed = ['src/sessions/live.ts', 'src/sessions/expiry.ts', 'src/admin/policy-preview.ts']
    const found = files.filter((file) =>
      /\b(?:idle|absolute)_expires_at\s*>\s*now\(\)/.test(readFileSync(file, 'utf8')),
    )
    expect(found.filter((file) => !allowed.includes(file))).toEqual([])
    expect(found).toContain(allowed[0])
  })
  it('picks a limited number of rows in an array, which is asked for once, and not in a set, which a plan may ask for again', () => {
    for (const file of files)
      expect(readFileSync(file, 'utf8'), file).not.toMatch(
        /\bin \(\s*select\b(?:[^()]|\([^()]*\))*\bfor (?:no key )?update\b/,
      )
  })
  it('has no raw output in views beyond includes and the layout’s body', () => {
    for (const view of globSync('views/**/*.eta')) {
      for (const [, raw] of readFileSync(view, 'utf8').matchAll(/<%~\s*(.*?)%>/g))
        expect(raw, view).toMatch(/^(include\('\/partials\/|it\.body)/)
    }
  })
})
