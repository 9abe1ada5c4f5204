// What the provider would say to a client's metadata when it first meets it, asked before they are written down.
import { errors, type Provider } from 'oidc-provider'

/** @returns what is wrong with them, in the provider's words */
export function createClientCheck(parts: { readonly provider: () => Provider }) {
  return (metadata: Readonly<Record<string, unknown>>): string | undefined => {
    const provider = parts.provider()
    try {
      // Its typings know of no argument.
      Reflect.construct(provider.Client, [metadata])
      return undefined
    } catch (error) {
      if (error instanceof errors.InvalidClientMetadata) return error.error_description ?? error.message
      throw error
    }
  }
}
