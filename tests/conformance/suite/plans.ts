// The plans in plans/: which one of the suite's, with which variants, and the configuration that it takes.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { JWK } from 'jose'
import { z } from 'zod'
import { automation } from './browser.ts'

const clientSchema = z.strictObject({
  client_id: z.string(),
  client_secret: z.string().optional(),
  scope: z.string().optional(),
  /** Empty in the file: keys are made at every start. */
  jwks: z.strictObject({ keys: z.array(z.never()) }).optional(),
})
const planSchema = z.strictObject({
  plan: z.string(),
  configuration: z.strictObject({
    alias: z.string(),
    description: z.string(),
    server: z.strictObject({ discoveryUrl: z.string() }),
    client: clientSchema.optional(),
    client2: clientSchema.optional(),
    client_secret_post: clientSchema.optional(),
    resource: z.strictObject({ resourceUrl: z.string() }).optional(),
  }),
})
export type Plan = z.output<typeof planSchema>

const folder = join(import.meta.dirname, 'plans')

export function readPlans(): (Plan & { readonly file: string })[] {
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'))
  return files.sort().map((file) => ({
    file,
    ...planSchema.parse(JSON.parse(readFileSync(join(folder, file), 'utf8'))),
  }))
}

export interface Rendering {
  readonly issuer: string
  readonly folder: string
  /** Private keys of the two clients that sign. */
  readonly keys: { readonly first: JWK; readonly second: JWK }
}

/** Writes each plan's configuration for this issuer and these keys, as the suite takes it. Returns plan and file in turn. */
export function renderPlans({ issuer, folder: target, keys }: Rendering): string[] {
  mkdirSync(target, { recursive: true, mode: 0o700 })
  const here = (url: string) => `${issuer}${new URL(url).pathname}`
  return readPlans().flatMap(({ file, plan, configuration }) => {
    const { client, client2, resource } = configuration
    const rendered = {
      ...configuration,
      server: { discoveryUrl: here(configuration.server.discoveryUrl) },
      ...(client?.jwks ? { client: { ...client, jwks: { keys: [keys.first] } } } : {}),
      ...(client2?.jwks ? { client2: { ...client2, jwks: { keys: [keys.second] } } } : {}),
      ...(resource ? { resource: { resourceUrl: here(resource.resourceUrl) } } : {}),
      ...automation(issuer),
    }
    const path = join(target, file)
    writeFileSync(path, `${JSON.stringify(rendered, null, 2)}\n`, { mode: 0o600 })
    return [plan, path]
  })
}
