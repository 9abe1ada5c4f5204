// What an app may ask for that registers itself: the template of the token it registers with. It can hold nothing that an
// organisation's own administrator could not give without a step-up, and no scope of the administration.
import { z } from 'zod'
import { clientFields } from '../clients/clients.ts'

export const registrableScopes = ['openid', 'offline_access', 'profile', 'email'] as const
export const maxHosts = 20
const maxHostLength = 259

/** Hosts that are the person's own machine. A redirect there may name any port (RFC 8252 §7.3). */
export const loopbackHosts: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]'])

const host = z
  .string()
  .max(maxHostLength)
  .refine(isHost, 'must be one exact host in lower case, as app.vendor.example or app.vendor.example:8443')

/** Exactly as a URL spells it, so that comparing texts is comparing hosts. */
function isHost(text: string): boolean {
  if (!/^[a-z0-9.:[\]-]+$/.test(text)) return false
  if (loopbackHosts.has(text)) return true
  const url = URL.parse(`https://${text}/`)
  return url !== null && url.host === text && !loopbackHosts.has(url.hostname)
}

const isDistinct = <T>(values: readonly T[]) => new Set(values).size === values.length
const setOf = <Item extends z.ZodType>(item: Item, most: number) =>
  z.array(item).max(most).refine(isDistinct, 'must not hold one twice')

const grantTypes = clientFields.grant_types.element
const authMethods = clientFields.token_endpoint_auth_method
const tokenFormats = clientFields.access_token_format

export const templateSchema = z
  .strictObject({
    grantTypes: setOf(grantTypes, grantTypes.options.length)
      .min(1)
      .default(['authorization_code', 'refresh_token'])
      .meta({ description: 'grants that may be asked for' }),
    scopes: setOf(z.enum(registrableScopes), registrableScopes.length)
      .min(1)
      .default(['openid', 'profile', 'email'])
      .meta({ description: 'scopes that may be asked for; what an app does not say is all of them' }),
    redirectHosts: setOf(host, maxHosts).default([]).meta({
      description:
        'exact hosts, with a port where it is not 443, that people may be sent to; localhost, 127.0.0.1 and [::1] let native apps listen on the person’s machine',
    }),
    tokenEndpointAuthMethods: setOf(authMethods, authMethods.options.length)
      .min(1)
      .default(['client_secret_basic', 'private_key_jwt'])
      .meta({ description: 'ways in which the app may authenticate' }),
    accessTokenFormats: setOf(tokenFormats, tokenFormats.options.length)
      .min(1)
      .default(['opaque'])
      .meta({ description: 'forms of access token that may be asked for; nothing ends a jwt before it expires' }),
    profile: z.enum(['standard', 'fapi2']).default('standard').meta({ description: 'the profile that each app gets' }),
  })
  .superRefine((template, context) => {
    const problem = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
    if (template.grantTypes.includes('authorization_code') && template.redirectHosts.length === 0)
      problem('redirectHosts', 'needs at least one host for the authorization_code grant')
    if (template.profile === 'fapi2' && template.tokenEndpointAuthMethods.some((name) => name !== 'private_key_jwt'))
      problem('tokenEndpointAuthMethods', 'must be private_key_jwt alone in profile fapi2')
  })

export type Template = z.output<typeof templateSchema>
