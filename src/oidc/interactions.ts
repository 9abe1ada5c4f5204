// The provider's interaction of a request: found by its cookie and held against the path, finished with a result.
import type { FastifyReply, FastifyRequest } from 'fastify'
import { errors, type InteractionResults, type Provider } from 'oidc-provider'
import type { Place } from '../accounts/place.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Db } from '../db/database.ts'
import { joinTransaction, transact } from '../db/transaction.ts'
import { Refusal } from '../errors.ts'
import { originOf } from '../http/origin.ts'
import type { LoginResult } from '../login/login.ts'
import type { Sessions } from '../sessions/sessions.ts'
import type { AcrName } from './acr.ts'
import type { Consents } from './consents.ts'
import { acrRequestOf, lighterReasons } from './prompts.ts'
import { addScopes } from './resources.ts'
import type { Standings } from './standing.ts'

export interface OpenInteraction {
  readonly uid: string
  readonly prompt: string
  readonly reasons: readonly string[]
  readonly client: {
    readonly id: string
    readonly name: string
    readonly organizationId: string | undefined
    readonly organizationName: string | undefined
  }
  /** Where the sign-in leads, as far as the request and the live session say. */
  readonly place: Place
  readonly redirectHost: string
  readonly loginHint: string
  readonly returnTo: string
  readonly accountId: string | undefined
  /** Why the session that this browser held before has ended; undefined when it held none. */
  readonly endedBecause: string | undefined
  /** Scopes asked for that the person has not answered yet. */
  readonly missingScopes: readonly string[]
  readonly firstTime: boolean
  readonly required: {
    /** The weakest acr that the sign-in must reach; undefined when any will do. A weaker one is refused at the resume. */
    readonly acr: AcrName | undefined
    /** Everything must be proven anew; false when the live session only lacks strength. */
    readonly freshSignIn: boolean
  }
  /** The live session of this browser, at a login prompt. With the one that the prompt began in, the sign-in ends too. */
  readonly session: LiveSession | undefined
  finishLogin(result: LoginResult): Promise<void>
  allow(): Promise<void>
  deny(): Promise<void>
  cancel(): Promise<void>
  /** Finishes with `unmet_authentication_requirements`: this person cannot reach here what the client asks for. */
  cannotMeet(): Promise<void>
  /** Finishes with `access_denied`: the organisation does not let this person in here, or in this way. */
  turnAway(): Promise<void>
}

export interface LiveSession {
  readonly accountId: string
  readonly acr: string | undefined
  readonly amr: readonly string[]
  /** Epoch seconds of the sign-in. */
  readonly authTime: number
}

const expired = () => new Refusal('interaction_expired')

export interface Interactions {
  /** The interaction in the path, if the browser holds its cookie (F22). Throws a Refusal otherwise. */
  open(request: FastifyRequest, reply: FastifyReply, uid: string): Promise<OpenInteraction>
}

export function createInteractions(parts: {
  provider(): Provider
  readonly db: Db
  readonly consents: Consents
  readonly standings: Standings
  readonly sessions: Sessions
}): Interactions {
  const sessionOrganization = async (sessionUid: string | undefined) =>
    sessionUid === undefined ? undefined : (await parts.sessions.findByUid(sessionUid))?.organizationId
  return {
    async open(request, reply, uid) {
      const provider = parts.provider()
      const details = await provider.interactionDetails(request.raw, reply.raw).catch((error: unknown) => {
        throw error instanceof errors.SessionNotFound ? expired() : error
      })
      if (details.uid !== uid) throw expired()
      const client = await provider.Client.find(String(details.params['client_id']))
      if (!client) throw expired()
      // What provider.interactionResult() does, without reading again what was read above.
      const finish = async (result: InteractionResults) => {
        details.result = 'error' in result ? result : { ...details.lastSubmission, ...result }
        await details.save(details.exp - Math.floor(Date.now() / 1000))
      }
      const acrRequest = acrRequestOf(details.params)
      const asked = details.prompt.details
      const missingScopes = [
        ...new Set([
          ...toStrings(asked['missingOIDCScope']),
          ...toStrings(asked['missingClaimScopes']),
          ...resourceScopes(asked['missingResourceScopes']),
        ]),
      ]
      const scopeRequest = { issuer: provider.issuer, client, params: details.params }
      const accountId = details.session?.accountId
      const organizationId = typeof client['organization_id'] === 'string' ? client['organization_id'] : undefined
      const consentEvent = (name: 'consent.granted' | 'consent.denied') => ({
        name,
        outcome: name === 'consent.granted' ? ('success' as const) : ('failure' as const),
        actor: { type: 'account' as const, id: accountId ?? '' },
        accountId,
        organizationId,
        sessionUid: details.session?.uid,
        clientId: client.clientId,
        origin: originOf(request.raw),
        details: { scopes: [...missingScopes] },
      })
      return {
        uid,
        prompt: details.prompt.name,
        reasons: details.prompt.reasons,
        client: {
          id: client.clientId,
          name: client.clientName ?? client.clientId,
          organizationId,
          organizationName: toText(client['organization_name']),
        },
        place: {
          requestedSlug: toText(details.params['organization']),
          // Chosen at the prompt before this one, when the app asks for consent as well.
          chosenId: toText(Reflect.get(details.lastSubmission?.login ?? {}, 'organizationId')),
          sessionOrganizationId: await sessionOrganization(details.session?.uid),
          client: parts.standings.placeOf(client),
        },
        redirectHost: URL.parse(String(details.params['redirect_uri']))?.host ?? '',
        loginHint: toText(details.params['login_hint'])?.slice(0, 254) ?? '',
        returnTo: details.returnTo,
        accountId,
        endedBecause: toText(Reflect.get(details, 'endedBecause')),
        missingScopes,
        firstTime: details.grantId === undefined,
        required: {
          acr: acrRequest.ok ? acrRequest.least : undefined,
          freshSignIn:
            details.prompt.name === 'login' && details.prompt.reasons.some((reason) => !lighterReasons.has(reason)),
        },
        session: await liveSession(provider, details),
        async finishLogin(result) {
          await finish({ login: { ...result, remember: false } })
        },
        async allow() {
          if (accountId === undefined) throw expired()
          await transact(parts.db, (tx) =>
            joinTransaction(tx, async () => {
              const grant =
                (details.grantId === undefined ? undefined : await provider.Grant.find(details.grantId)) ??
                new provider.Grant({ accountId, clientId: client.clientId })
              if (missingScopes.length > 0) addScopes(grant, missingScopes, scopeRequest)
              const grantId = await grant.save()
              if (missingScopes.length > 0) await parts.consents.add(tx, accountId, client.clientId, missingScopes)
              await appendAudit(tx, consentEvent('consent.granted'))
              await finish({ consent: { grantId } })
            }),
          )
        },
        async deny() {
          await transact(parts.db, (tx) =>
            joinTransaction(tx, async () => {
              await appendAudit(tx, consentEvent('consent.denied'))
              await finish({ error: 'access_denied', error_description: 'the person did not allow the request' })
            }),
          )
        },
        async cancel() {
          await finish({ error: 'access_denied', error_description: 'the person cancelled the sign-in' })
        },
        async turnAway() {
          await finish({ error: 'access_denied', error_description: 'the organisation does not allow this sign-in' })
        },
        async cannotMeet() {
          await finish({
            error: 'unmet_authentication_requirements',
            error_description: 'the person cannot sign in here as strongly as asked',
          })
        },
      }
    },
  }
}

/** Read anew, for another tab may have signed in to the session again since the prompt was made. */
async function liveSession(
  provider: Provider,
  details: Awaited<ReturnType<Provider['interactionDetails']>>,
): Promise<LiveSession | undefined> {
  if (details.prompt.name !== 'login' || details.session === undefined) return undefined
  const session = await provider.Session.findByUid(details.session.uid)
  if (session?.accountId === undefined || session.accountId !== details.session.accountId) return undefined
  if (session.loginTs === undefined) return undefined
  return { accountId: session.accountId, acr: session.acr, amr: session.amr ?? [], authTime: session.loginTs }
}

/** Scopes by resource (RFC 8707); which resource each belongs to follows from its name. */
function resourceScopes(value: unknown): string[] {
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(toStrings) : []
}

function toStrings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === 'string') : []
}

function toText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
