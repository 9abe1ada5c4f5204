// Why something is as it is: for a person, a session or a token of the organisation, the policy field by field with the rule
// that decided each, and whether it stands now.
import { z } from 'zod'
import { text } from '../api/contract.ts'
import { ApiProblem } from '../api/problems.ts'
import type { Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import type { BearerToken, BearerTokens } from '../oidc/bearer.ts'
import type { Policies } from '../organizations/organizations.ts'
import type { Platform } from '../organizations/policy.ts'
import { type Call, NotHere } from './call.ts'
import {
  type ExplainedOrganization,
  type ExplainedPerson,
  type ExplainedSession,
  type ExplainedToken,
  readOrganizations,
  readPerson,
  readSession,
  readToken,
  tokenKinds,
} from './explain-store.ts'
import { type Reason, reasons, rules, sessionReason, tokenReason, whatHolds } from './explain-verdict.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, operation } from './operation.ts'
import { fieldName, fieldValue } from './policy-input.ts'

const explanationSchema = z
  .strictObject({
    policy: z
      .array(
        z.strictObject({
          field: fieldName,
          value: fieldValue,
          rule: z.enum(rules).meta({ description: 'what decided the value' }),
          because: z.string().nullable().meta({ description: 'the floor or profile, in words' }),
          decidedBy: z.array(z.string()).meta({
            description:
              'slugs of organisations whose policies decided, where an app is theirs; of places, only the platform is told',
          }),
          written: fieldValue.nullable().meta({ description: 'what the organisation wrote; null where it inherits' }),
        }),
      )
      .meta({ description: 'what holds, field by field' }),
    standing: z.strictObject({
      stands: z.boolean(),
      reason: z.enum(reasons).nullable().meta({
        description:
          'why not: the account, organisation or client may not act; the session ended or is past a limit; the policy finds the method, the second factor or the network wanting; the token is expired, consumed or its grant gone',
      }),
    }),
    account: z.strictObject({ id: z.string(), name: z.string(), roles: z.array(z.string()) }).nullable(),
    session: z
      .strictObject({
        uid: z.string(),
        organizations: z.array(z.string()).meta({
          description: 'slugs of those that it was used for; of other places of the person only the platform is told',
        }),
        amr: z.array(z.string()),
        ip: z.string().nullable(),
        signedInAt: instant,
        lastActivityAt: instant,
        idleSeconds: z.number().nullable().meta({ description: 'the strictest of the organisations' }),
        absoluteSeconds: z.number().nullable(),
        idleEndsAt: instant.meta({ description: 'when it ends unless something is done in it' }),
        absoluteEndsAt: instant,
        endedAt: instant.nullable(),
        endReason: z.string().nullable(),
      })
      .nullable(),
    token: z
      .strictObject({
        kind: z.enum(tokenKinds),
        client: z.strictObject({ id: z.string(), name: z.string() }),
        organization: z.string().nullable().meta({ description: 'slug of the one that it was issued in' }),
        sessionUid: z.string().nullable(),
        endsWithSession: z.boolean(),
        expiresAt: instant.nullable(),
      })
      .nullable(),
  })
  .meta({ id: 'Explanation' })
type Explanation = z.input<typeof explanationSchema>

const subject = { account: idParam.optional(), session: idParam.optional() }
const common = {
  path: '/api/admin/explain',
  group: 'Policy',
  permission: 'policy:read',
  answer: { status: 200, description: 'The explanation.', schema: explanationSchema },
} as const

export const operations = {
  explainById: operation({
    ...common,
    id: 'explainById',
    method: 'GET',
    summary: 'Which policy holds for a person or a session, and why',
    description: 'For one of the two, of the organisation. Nothing is changed, and asking is no activity.',
    query: z.strictObject(subject),
  }),
  explain: operation({
    ...common,
    id: 'explain',
    method: 'POST',
    isQuestion: true,
    summary: 'Which policy holds for a person, a session or a token, and why',
    description:
      'For one of the three, of the organisation. A token goes into the body because addresses are written down. Nothing is changed, and asking is no activity.',
    body: z.strictObject({ ...subject, token: text(128).min(1).optional().meta({ format: 'password' }) }),
  }),
} as const

export interface ExplainParts {
  readonly platform: Platform
  readonly policies: Policies
  readonly bearerTokens: BearerTokens
}

export function addExplain({ onPrepared }: Kernel, { platform, policies, bearerTokens }: ExplainParts): void {
  onPrepared(operations.explainById, async ({ query }) => answer(query))
  onPrepared(operations.explain, async ({ body }) => answer(body))

  async function answer({ account, session, token }: Subject) {
    if ([account, session, token].filter((one) => one !== undefined).length !== 1)
      throw new ApiProblem('input_invalid', [
        { path: '', message: 'must name one: account, session or, by POST, token' },
      ])
    const live = token === undefined ? undefined : await bearerTokens.find(token)
    return async (tx: Tx, { organization, caller }: Pick<Call, 'organization' | 'caller'>) => {
      const tellsPlaces = caller.permissions.has('platform:organizations')
      const asks = { tx, organizationId: organization.id, platform, policies, tellsPlaces }
      // Another organisation of the same person or app may be why, and the confined transaction would not show its policy.
      // What is explained is looked for with the organisation that asks all the same.
      const body = await beyond(tx, organization.id, () => {
        if (account !== undefined) return explainAccount(asks, account)
        if (session !== undefined) return explainSession(asks, session)
        return explainToken(asks, token ?? '', live)
      })
      return { body }
    }
  }
}

type Subject = Partial<Readonly<Record<'account' | 'session' | 'token', string | undefined>>>

interface Asking {
  readonly tx: Tx
  readonly organizationId: string
  readonly platform: Platform
  readonly policies: Policies
  /** Where else somebody has a place is nobody's business but the platform's. */
  readonly tellsPlaces: boolean
}

const nothingElse = { account: null, session: null, token: null }

async function explainAccount(asks: Asking, id: string): Promise<Explanation> {
  const person = await readPerson(asks.tx, id, asks.organizationId)
  if (!person) throw new NotHere('account', id)
  const { fields } = await hold(asks, person, [], [])
  return { ...nothingElse, policy: fields, standing: toStanding(person.barred), account: toAccount(person) }
}

async function explainSession(asks: Asking, uid: string): Promise<Explanation> {
  const { tx, organizationId } = asks
  const session = await readSession(tx, uid, organizationId)
  if (!session) throw new NotHere('session', uid)
  const person = await readPerson(tx, session.accountId, session.organizationId)
  const held = await hold(asks, person, [session.organizationId], session.usedFor)
  return {
    ...nothingElse,
    policy: held.fields,
    standing: toStanding(sessionReason(session, person, held)),
    account: accountIn(asks, person, session.organizationId),
    session: toSession(session, held.told),
  }
}

async function explainToken(asks: Asking, value: string, live: BearerToken | undefined): Promise<Explanation> {
  const { tx, organizationId } = asks
  const token = await readToken(tx, value, organizationId)
  // Not by its id, which would write the token down.
  if (!token) throw new NotHere('other', '')
  const person = token.accountId === undefined ? undefined : await readPerson(tx, token.accountId, token.organizationId)
  // Of a token that is the organisation's, whichever organisation its session is of.
  const session = token.sessionUid === undefined ? undefined : await readSession(tx, token.sessionUid, undefined)
  const places = [token.organizationId, token.clientOrganizationId]
  const held = await hold(asks, person, places, [...places, ...(session?.usedFor ?? [])])
  // Introspection has the last word on what it is asked about; refresh tokens are the client's alone.
  const isIntrospected = token.kind !== 'RefreshToken'
  const reason = live
    ? undefined
    : (tokenReason(token, person, session, held) ?? (isIntrospected ? 'grant' : undefined))
  return {
    policy: held.fields,
    standing: toStanding(reason),
    account: accountIn(asks, person, token.organizationId),
    session: session?.usedFor.includes(organizationId) ? toSession(session, held.told) : null,
    token: toToken(token, held.organizations),
  }
}

async function hold(
  { tx, organizationId, platform, policies, tellsPlaces }: Asking,
  person: ExplainedPerson | undefined,
  places: readonly string[],
  usedFor: readonly string[],
) {
  const organizations = await readOrganizations(tx, [organizationId, ...places, ...usedFor])
  const held = whatHolds({ platform, policies, organizationId, organizations, person, places, usedFor })
  const isTold = (id: string) => tellsPlaces || id === organizationId || !person?.belongsTo.includes(id)
  const fields = held.fields.map((field) =>
    tellsPlaces || field.rule !== 'other membership' ? field : { ...field, decidedBy: [] },
  )
  return { ...held, fields, organizations, told: organizations.filter(({ id }) => isTold(id)) }
}

const toStanding = (reason: Reason | undefined) => ({ stands: reason === undefined, reason: reason ?? null })

/** Roles in another organisation are not told. */
function accountIn({ organizationId }: Asking, person: ExplainedPerson | undefined, actsIn: string) {
  return person ? toAccount(actsIn === organizationId ? person : { ...person, roles: [] }) : null
}

function toAccount({ id, name, roles }: ExplainedPerson) {
  return { id, name, roles: [...roles] }
}

function toSession(session: ExplainedSession, organizations: readonly ExplainedOrganization[]) {
  const { uid, amr, ip, signedInAt, lastActivityAt, endedAt } = session
  return {
    uid,
    organizations: organizations.filter(({ id }) => session.usedFor.includes(id)).map(({ slug }) => slug),
    amr: [...amr],
    ip: ip ?? null,
    signedInAt: signedInAt.toISOString(),
    lastActivityAt: lastActivityAt.toISOString(),
    idleSeconds: session.idleSeconds ?? null,
    absoluteSeconds: session.absoluteSeconds ?? null,
    idleEndsAt: session.idleExpiresAt.toISOString(),
    absoluteEndsAt: session.absoluteExpiresAt.toISOString(),
    endedAt: endedAt?.toISOString() ?? null,
    endReason: session.endReason ?? null,
  }
}

function toToken(token: ExplainedToken, organizations: readonly ExplainedOrganization[]) {
  const { kind, client, sessionUid = null, endsWithSession, expiresAt } = token
  return {
    kind,
    client: { id: client.id, name: client.name },
    organization: organizations.find(({ id }) => id === token.organizationId)?.slug ?? null,
    sessionUid,
    endsWithSession,
    expiresAt: expiresAt?.toISOString() ?? null,
  }
}
