// The environment: defaults, refusals in words, and the documents that must not fall behind the schema.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { ConfigError, environmentNames, parseConfig } from '../../src/config.ts'

const problemsOf = (environment: Record<string, string>): readonly string[] => {
  try {
    parseConfig(environment)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
  }
  return []
}

describe('parseConfig', () => {
  it('needs nothing in development', () => {
    expect(parseConfig({})).toMatchObject({
      issuer: 'http://localhost:3001',
      port: 3001,
      host: '127.0.0.1',
      demo: true,
      requireMfa: false,
      sessionTimeoutSeconds: 1800,
    })
  })
  it('turns the demo off with a database of one’s own', () => {
    expect(parseConfig({ DATABASE_URL: 'postgres://localhost/x' }).demo).toBe(false)
  })
  it('names everything that production lacks, at once', () => {
    expect(problemsOf({ NODE_ENV: 'production' }).map((problem) => problem.split(':')[0])).toEqual([
      'DATABASE_URL',
      'MLPIPES_AUTH_SECRET',
      'SMTP_URL',
      'MLPIPES_AUTH_URL',
    ])
  })
  it.each([
    [{ PORT: 'x' }, 'PORT'],
    [{ PORT: '65536' }, 'PORT'],
    [{ MLPIPES_AUTH_URL: 'https://a.example/' }, 'MLPIPES_AUTH_URL'],
    [{ MLPIPES_AUTH_SECRET: 'short' }, 'MLPIPES_AUTH_SECRET'],
    [{ SESSION_TIMEOUT: '3601' }, 'SESSION_TIMEOUT'],
    [{ AUDIT_RETENTION_DAYS: '2189' }, 'AUDIT_RETENTION_DAYS'],
    [{ TRUSTED_PROXIES: '10.0.0.0/33' }, 'TRUSTED_PROXIES'],
    [{ HIPAA_MODE: 'yes' }, 'HIPAA_MODE'],
    [{ MLPIPES_AUTH_SECERT: 'x' }, 'MLPIPES_AUTH_SECERT'],
  ])('refuses %o', (environment, name) => {
    expect(problemsOf(environment as Record<string, string>).join()).toContain(name)
  })
  it.each(['.env.example', 'docs/configuration.md'])('%s names every variable and no other', (file) => {
    const text = readFileSync(file, 'utf8')
    const pattern = file.endsWith('.md') ? /^\| `([A-Z0-9_]+)` \|/gm : /^#([A-Z0-9_]+)=/gm
    expect([...text.matchAll(pattern)].map((match) => match[1])).toEqual(environmentNames)
  })
})
