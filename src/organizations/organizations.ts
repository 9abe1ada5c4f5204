// Organisations: which there are, and the policy that is in effect in each. Changing one is changes.ts.
import { z } from 'zod'
import { coalesce } from '../db/coalesce.ts'
import type { Database } from '../db/database.ts'
import { effectivePolicy, type Platform, type Policy, type PolicyInput } from './policy.ts'

export const slugSchema = z
  .string()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/, 'must be 1 to 64 characters of a-z 0-9 and - inside')

export interface Organization {
  readonly id: string
  readonly slug: string
  readonly name: string
  readonly policy: Policy
}

const find = `select id, slug, name, policy from mlpipes_auth.organizations where closed_at is null and id = any($1::text[])`

export interface Organizations {
  /** An organisation that is open. Concurrent calls share a statement. */
  find(id: string): Promise<Organization | undefined>
}

export function createOrganizations(database: Database, policies: Policies): Organizations {
  return {
    find: coalesce<string, Organization | undefined>(database, {
      statement: find,
      values: (ids) => [[...new Set(ids)]],
      results(rows, ids) {
        const byId = new Map(
          rows.map((row) => {
            const id = String(row['id'])
            const policy = policies(row['policy'] as PolicyInput)
            return [id, { id, slug: String(row['slug']), name: String(row['name']), policy }]
          }),
        )
        return ids.map((id) => byId.get(id))
      },
    }),
  }
}

export type Policies = (input: PolicyInput) => Policy
const maxCached = 1_000

/** Effective policies. They are few and asked for at every request; what was written is the key. */
export function createPolicies(platform: Platform): Policies {
  const cache = new Map<string, Policy>()
  return (input) => {
    const key = JSON.stringify(input)
    const known = cache.get(key)
    if (known) return known
    if (cache.size >= maxCached) cache.clear()
    const policy = effectivePolicy(input, platform)
    cache.set(key, policy)
    return policy
  }
}
