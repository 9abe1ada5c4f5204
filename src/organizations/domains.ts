// Mail domains that organisations have shown to be theirs, and what follows for who may sign up where. Showing it is
// src/admin/domains.ts.
import { domainToASCII } from 'node:url'
import { runIn, type Tx } from '../db/database.ts'

const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/
const maxDomainLength = 253

/**
 * A domain in its one spelling: lower case, punycode, no dot at its end. Undefined for what is none, and for a top level
 * alone. What a public suffix is, such as co.uk or a host that gives its customers a name below its own, needs no list
 * here: a domain stands for itself and for none below it, and only whoever keeps its zone can show that it is theirs.
 */
export function normalizeDomain(text: string): string | undefined {
  const ascii = domainToASCII(text.normalize('NFKC').trim().replace(/\.$/, '')).toLowerCase()
  const labels = ascii.split('.')
  const isDomain = labels.length >= 2 && labels.every((one) => label.test(one)) && !/^\d+$/.test(labels.at(-1) ?? '')
  return isDomain && ascii.length <= maxDomainLength ? ascii : undefined
}

const find = `select exists (select from mlpipes_auth.organization_domains
        where organization_id = $1 and verified_at is not null) as has_own,
      (select organization_id from mlpipes_auth.organization_domains where domain = $2 and verified_at is not null) as owner`

/**
 * Whether somebody may sign up in an organisation with this address: one of its own domains, where it has any, and never
 * one that is another organisation's.
 */
export async function admitsAddress(tx: Tx, organizationId: string, email: string): Promise<boolean> {
  const { hasOwn, owner } = await look(tx, organizationId, email)
  return owner === null ? !hasOwn : owner === organizationId
}

/**
 * Whether an address is at a domain that another organisation has verified: no account is made with it in this one,
 * whoever makes it. An organisation's own domains bind open sign-up alone: its administrators also take others in.
 */
export async function isAddressElsewhere(tx: Tx, organizationId: string, email: string): Promise<boolean> {
  const { owner } = await look(tx, organizationId, email)
  return owner !== null && owner !== organizationId
}

async function look(tx: Tx, organizationId: string, email: string) {
  const domain = normalizeDomain(email.slice(email.lastIndexOf('@') + 1))
  const [row] = await runIn(tx, find, [organizationId, domain ?? null])
  return { hasOwn: row?.['has_own'] !== false, owner: row?.['owner'] ?? null }
}
