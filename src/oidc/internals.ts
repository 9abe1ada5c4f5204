// The one place that reaches into the provider beyond its configuration, and why.
import type { IncomingMessage } from 'node:http'
import { type Configuration, type KoaContextWithOIDC, Provider } from 'oidc-provider'
import { matchesClientSecret } from '../clients/secret.ts'
import type { SecretGuesses } from '../credentials/client-secrets.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { reportedAcr } from './acr.ts'
import { acrRequestOf } from './prompts.ts'
import { compareLimited } from './secret-guesses.ts'

type ResponseMode = Parameters<Provider['registerResponseMode']>[1]

/**
 * A provider that answers `response_mode=form_post` with our page. It registers its modes while it is built, and of two
 * under one name the first stays, so ours takes the place of its own at that moment.
 */
export function createProviderWith(formPost: ResponseMode, issuer: string, configuration: Configuration): Provider {
  class PageProvider extends Provider {
    override registerResponseMode(name: string, handler: ResponseMode): void {
      super.registerResponseMode(name, name === 'form_post' ? formPost : handler)
    }
  }
  return new PageProvider(issuer, configuration)
}

/**
 * The provider builds its URLs from the request's Host header (D6). Ours come from the issuer alone.
 */
export function pinUrlsToIssuer(provider: Provider): void {
  const prototype: unknown = Reflect.get(Reflect.get(provider, 'OIDCContext'), 'prototype')
  Object.defineProperty(prototype, 'urlFor', {
    value: (name: string, options?: Record<string, unknown>): string => provider.urlFor(name, options),
  })
}

/** The provider compares a client's secret with the stored one as text; ours are digests (clients/secret.ts). */
export function compareClientSecretsByDigest(provider: Provider, secrets: Secrets): void {
  Object.defineProperty(provider.Client.prototype, 'compareClientSecret', {
    value(
      this: { clientId: string; clientSecret: string; previous_secret: string | undefined },
      actual: string,
    ): boolean {
      if (isLetIn(this.clientId)) return true
      return matchesClientSecret(secrets, actual, { current: this.clientSecret, previous: this.previous_secret })
    },
  })
}

/**
 * The same within limits (secret-guesses.ts). Call it after `compareClientSecretsByDigest`: the provider has no hook before a
 * secret is compared, and its event afterwards comes too late to hold an answer back.
 */
export function limitClientSecrets(provider: Provider, guesses: SecretGuesses): void {
  const prototype: object = provider.Client.prototype
  const compare: unknown = Reflect.get(prototype, 'compareClientSecret')
  if (typeof compare !== 'function') throw new Error('the provider compares no secrets')
  Object.defineProperty(prototype, 'compareClientSecret', {
    value(this: { clientId: string }, actual: string): boolean | Promise<boolean> {
      if (isLetIn(this.clientId)) return true
      return compareLimited(guesses, this.clientId, () => Reflect.apply(compare, this, [actual]) === true)
    },
  })
}

/**
 * The provider puts `sid` into tokens only for clients with back-channel logout. Ours carry it always: a resource
 * server and an app can tell which session a token belongs to.
 */
export function alwaysIncludeSid(provider: Provider): void {
  Object.defineProperty(provider.Client.prototype, 'includeSid', { value: () => true })
}

/**
 * Makes codes, and so tokens, carry the context that `reportedAcr` says. The provider has no setting for it: it reads
 * the session's through a getter of the request's context.
 */
export function reportSatisfiedAcr(provider: Provider): void {
  const prototype: unknown = Reflect.get(Reflect.get(provider, 'OIDCContext'), 'prototype')
  Object.defineProperty(prototype, 'acr', {
    get(this: Pick<KoaContextWithOIDC['oidc'], 'session' | 'params'>): string | undefined {
      return reportedAcr(this.session?.acr, acrRequestOf(this.params))
    },
  })
}

/**
 * The provider's models drop what they do not know. A code and a refresh token tell in which organisation their person
 * acts (an access token says it in its claims), and an interaction why the browser's last session is over.
 */
export function keepOwnMembers(provider: Provider): void {
  const members = [
    [provider.AuthorizationCode, 'organizationId'],
    [provider.DeviceCode, 'organizationId'],
    [provider.RefreshToken, 'organizationId'],
    [provider.Interaction, 'endedBecause'],
  ] as const
  for (const [model, member] of members) {
    const names = [...model.IN_PAYLOAD, member]
    Object.defineProperty(model, 'IN_PAYLOAD', { get: () => names })
  }
}

/**
 * The provider would call each client's logout endpoint while the person waits at the sign-out page, once, and forget it.
 * Our outbox does it for every ending, with retries; this one says in discovery that it is done, and does nothing.
 */
export function leaveLogoutToTheOutbox(provider: Provider): void {
  Object.defineProperty(provider.Client.prototype, 'backchannelLogout', { value: async () => undefined })
}

/**
 * The provider asks a client's `jwks_uri` again when no key that it has fits, and only then: a key that was withdrawn there
 * would be good for as long as this process lives. A key set whose time is over has no key that fits.
 */
export function forgetStaleKeys(provider: Provider): void {
  const anyClient: unknown = Reflect.construct(provider.Client, [
    { client_id: 'any', redirect_uris: [], grant_types: [], response_types: [], token_endpoint_auth_method: 'none' },
  ])
  const keysOfClients: unknown = Reflect.getPrototypeOf(Reflect.get(Object(anyClient), 'asymmetricKeyStore'))
  const select: unknown = Reflect.get(Object(keysOfClients), 'selectForVerify')
  if (typeof select !== 'function') throw new Error('the provider keeps the keys of clients in another way')
  Object.defineProperty(keysOfClients, 'selectForVerify', {
    value(this: { stale(): boolean }, wanted: unknown): unknown {
      return this.stale() ? [] : Reflect.apply(select, this, [wanted])
    },
  })
}

const letInClients = new WeakMap<object, string>()

/**
 * Lets a request in as this client, which it has shown to be in a way that the provider does not know
 * (introspection-bearer.ts). The provider reads credentials of a client from the request and nowhere else, so they are
 * written there; what counts is not what they say but that this request is in the map.
 */
export function letIn(request: IncomingMessage, clientId: string): void {
  letInClients.set(request, clientId)
  request.headers.authorization = `Basic ${Buffer.from(`${encodeURIComponent(clientId)}:-`).toString('base64')}`
}

/** A client that was let in is not asked how it authenticates: it may have a key and no secret. */
export function acceptWhoIsLetIn(provider: Provider): void {
  Object.defineProperty(provider.Client.prototype, 'clientAuthMethod', {
    get(this: { clientId: string; tokenEndpointAuthMethod?: string }): string | undefined {
      return isLetIn(this.clientId) ? 'client_secret_basic' : this.tokenEndpointAuthMethod
    },
  })
}

function isLetIn(clientId: string): boolean {
  const request = Provider.ctx?.req
  return request !== undefined && letInClients.get(request) === clientId
}
