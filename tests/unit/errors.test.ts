// docs/errors.md is made here, out of the lists that the product answers from. After a change of those:
// npx vitest run tests/unit/errors.test.ts --update
import { globSync, readFileSync } from 'node:fs'
import { errors } from 'oidc-provider'
import { describe, expect, it } from 'vitest'
import { adminProblems, authProblems } from '../../src/api/problems.ts'
import { byError, byWords, type FaultReason, faultReasons } from '../../src/clients/fault-reasons.ts'
import { wordsFor } from '../../src/clients/fault-words.ts'
import { type ErrorText, Refusal, refusals } from '../../src/errors.ts'
import { limits } from '../../src/http/app.ts'
import { protocolErrors } from '../../src/oidc/protocol-errors.ts'
import { registrationErrors } from '../../src/registration/problems.ts'

type List = Readonly<Record<string, ErrorText>>

const { anywhere, pages, apps, tokens } = protocolErrors
const problemLists: readonly List[] = [refusals, authProblems, adminProblems]
const protocolLists: readonly List[] = [anywhere, pages, apps, tokens, registrationErrors]
const named = (code: string) => protocolLists.flatMap((list) => list[code] ?? [])

/** What the provider can say of features that are off here, and what it never says at all. */
const neverAnswered = [
  // Backchannel authentication (CIBA).
  'expired_login_hint_token',
  'invalid_binding_message',
  'invalid_user_code',
  'missing_user_code',
  'transaction_failed',
  'unknown_user_id',
  // Verifiable credentials.
  'credential_request_denied',
  'invalid_credential_request',
  'invalid_nonce',
  'invalid_proof',
  'unknown_credential_configuration',
  'unknown_credential_identifier',
  // Client attestation, software statements, rich authorization requests.
  'invalid_authorization_details',
  'invalid_client_attestation',
  'invalid_software_statement',
  'unapproved_software_statement',
  'use_attestation_challenge',
  'use_fresh_attestation',
  // Request objects are on; nothing throws the other.
  'request_not_supported',
  'unauthorized_client',
]

interface ProviderClass {
  readonly name: string
  readonly code: string
  readonly status: number
}
/** Bases, which have no code of their own. */
const bases = ['OIDCProviderError', 'CustomOIDCProviderError']
const providerClasses: readonly ProviderClass[] = Object.entries(errors)
  .filter(([name]) => !bases.includes(name))
  .map(([name, Class]) => {
    const error: unknown = Reflect.construct(Class, ['words'])
    return { name, code: Reflect.get(Object(error), 'error'), status: Reflect.get(Object(error), 'statusCode') }
  })

describe('docs/errors.md', () => {
  it('says what the lists say', async () => {
    await expect(reference()).toMatchFileSnapshot('../../docs/errors.md')
  })

  it('names limits as they are', () => {
    const inWords = (limit: number) => limit.toLocaleString('en')
    expect(refusals.too_large.when).toContain(inWords(limits.bodyBytes))
    expect(refusals.address_unreadable.when).toContain(inWords(limits.urlLength))
  })

  it('has a code of ours once', () => {
    const codes = problemLists.flatMap((list) => Object.keys(list))
    expect(codes).toEqual([...new Set(codes)])
  })
})

describe('the lists of protocol errors', () => {
  it.each(providerClasses)('know $name of the provider', ({ code, status }) => {
    if (neverAnswered.includes(code)) return expect(named(code)).toEqual([])
    // What is taken back to the app by a redirect is 400 where it is a page.
    const statuses = named(code).flatMap((row) => (row.status === 303 ? [303, 400] : statusesOf(row)))
    expect(statuses, code).toContain(status)
  })

  it('name all that our own code says', () => {
    const said = new Set<string>()
    for (const file of globSync('src/**/*.ts')) {
      const source = readFileSync(file, 'utf8')
      for (const [, code = ''] of source.matchAll(/\b(?:error: '|error="|super\(\d+, ')([a-z_]+)['"]/g)) said.add(code)
      for (const [, name] of source.matchAll(/new errors\.(\w+)\(/g))
        said.add(providerClasses.find((one) => one.name === name)?.code ?? `class ${name}`)
    }
    expect([...said].filter((code) => named(code).length === 0)).toEqual([])
    expect([...said]).toEqual(
      expect.arrayContaining(['server_error', 'invalid_token', 'insufficient_scope', 'too_many_codes', 'slow_down']),
    )
  })

  it('name all that an app’s recent errors can be about', () => {
    expect(faultReasons.flatMap(errorsOf).filter((code) => named(code).length === 0)).toEqual([])
  })
})

describe('Refusal', () => {
  it('takes what is known better at the place', () => {
    expect(new Refusal('request_unreadable', { status: 405 })).toMatchObject({
      status: 405,
      code: 'request_unreadable',
    })
    expect(new Refusal('outage', { retryAfterSeconds: 5 })).toMatchObject({ status: 503, retryAfterSeconds: 5 })
  })
})

function statusesOf({ status, otherStatuses = [] }: ErrorText): readonly number[] {
  return [status, ...otherStatuses]
}

function errorsOf(reason: FaultReason): string[] {
  const all = [...byWords.map(([error, , about]) => [error, about]), ...Object.entries(byError)]
  return [...new Set(all.filter(([, about]) => about === reason).map(([error = '']) => error))].sort()
}

const row = (...cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
const table = (head: readonly string[], rows: readonly string[]) =>
  [row(...head), `|${'---|'.repeat(head.length)}`, ...rows].join('\n')

function tableOf(list: List, head = 'code'): string {
  const rows = Object.entries(list).map(([code, text]) => {
    const what = text.when === undefined ? text.title : `${text.title}. ${text.when}`
    return row(`\`${code}\``, statusesOf(text).join(', '), what, text.detail)
  })
  return table([head, 'status', 'what happened', 'what to do next'], rows)
}

/** An app to say the words of recent errors about. */
const registered = {
  redirect_uris: ['https://ehr.example/callback'],
  post_logout_redirect_uris: ['https://ehr.example/'],
  scope: 'openid profile',
  grant_types: ['authorization_code', 'refresh_token'],
  token_endpoint_auth_method: 'client_secret_basic',
}
const facts = {
  redirectUri: 'https://ehr.example/back',
  scope: 'admin:write',
  grantType: 'client_credentials',
  method: 'none',
  parameters: ['code'],
} as const

function faultRow(reason: FaultReason): string {
  const { what, mend } = wordsFor({ endpoint: 'token', reason, facts }, registered)
  const codes = errorsOf(reason).map((code) => `\`${code}\``)
  return row(`\`${reason}\``, codes.join(', ') || 'any other', what, mend)
}

function reference(): string {
  return `# Errors

Every refused request carries a request id: in the header \`X-Request-Id\`, on the page, and as \`instance\` of a problem document. The same id stands in the log and in the audit row, so it is what to send when asking for help. This page is made from the lists that the server answers from; a test compares it with them.

- [Any address](#any-address)
- [\`/api/auth\`](#apiauth)
- [\`/api/admin\` and \`/api/audit\`](#apiadmin-and-apiaudit)
- [Protocol endpoints](#protocol-endpoints): [where browsers go](#where-browsers-go), [what apps ask for](#what-apps-ask-for), [what access tokens open](#what-access-tokens-open), [registration](#registration)
- [Recent errors of an app](#recent-errors-of-an-app)

## Any address

A request that accepts \`text/html\` gets a page with the title and what to do next. Everything else, and whatever is below \`/api/\`, gets \`application/problem+json\` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) whose \`type\` is \`urn:mlpipes:error:<code>\`. Programs compare \`type\`; titles and details are for people and may change.

${tableOf(refusals)}

## \`/api/auth\`

As above, with \`errors\` for what is wrong with each member. [The API](guides/api.md).

${tableOf(authProblems)}

## \`/api/admin\` and \`/api/audit\`

As above, and \`input_invalid\` as for \`/api/auth\`. [The API](guides/admin-api.md).

${tableOf(adminProblems)}

## Protocol endpoints

Endpoints under \`/oauth/\` answer with the members that their standards name: \`error\` and \`error_description\` ([RFC 6749 §5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2), [OpenID Connect Core §3.1.2.6](https://openid.net/specs/openid-connect-core-1_0.html#AuthError)). Programs compare \`error\`. At any of them:

${tableOf(anywhere, 'error')}

### Where browsers go

\`/oauth/authorize\`, \`/oauth/logout\`, \`/device\`. 303 takes the person back to the app with the error; with \`response_mode=form_post\`, or where the app cannot be trusted with them, it is a page with status 400. What to do about \`unmet_authentication_requirements\` is in [step-up](guides/step-up.md).

${tableOf(pages, 'error')}

### What apps ask for

\`/oauth/token\`, \`/oauth/par\`, \`/oauth/device\`, \`/oauth/introspect\`, \`/oauth/revoke\`.

${tableOf(apps, 'error')}

A refresh token that loses against its own copy within 10 seconds gets \`invalid_grant\` while the family lives on; a later reuse ends every token of the grant.

### What access tokens open

\`/oauth/userinfo\`, \`/oauth/introspect\` with a bearer token, and the challenges of \`/api/admin\` and \`/api/audit\`. The header \`WWW-Authenticate\` says the same. What APIs of your own answer is in [resource servers](guides/resource-servers.md).

${tableOf(tokens, 'error')}

### Registration

\`/oauth/register\` and the address of a registration ([RFC 7591](https://www.rfc-editor.org/rfc/rfc7591), [RFC 7592](https://www.rfc-editor.org/rfc/rfc7592)). [The guide](guides/registration.md).

${tableOf(registrationErrors, 'error')}

## Recent errors of an app

What the page of an app ([guide](guides/integrators.md#recent-errors)) and \`GET /api/admin/clients/:id/faults\` say about its last refusals. Here the app is registered with redirect URI \`${registered.redirect_uris}\`, address after sign-out \`${registered.post_logout_redirect_uris}\`, scope \`${registered.scope}\`, grants \`${registered.grant_types.join(' ')}\` and \`${registered.token_endpoint_auth_method}\`.

${table(['reason', 'error', 'what happened', 'what to do next'], faultReasons.map(faultRow))}
`
}
