// Eta rendering of the pages under views/, with what every page needs.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Eta } from 'eta'

export const viewsFolder = join(import.meta.dirname, '../../views')
export const publicFolder = join(import.meta.dirname, '../../public')

export interface Views {
  /** Renders a page under views/ (without its ending) with `data` plus the page's own facts. */
  render(name: string, data: Readonly<Record<string, unknown>>, requestId: string | undefined): string
}

export function createViews(options: { readonly cache: boolean }): Views {
  const eta = new Eta({ views: viewsFolder, cache: options.cache, autoEscape: true })
  const assetVersion = versionOf(publicFolder)
  return {
    render: (name, data, requestId) =>
      eta.render(`/${name}`, { ...data, page: { requestId: requestId ?? '', assetVersion } }),
  }
}

/** Changes when any asset does: browsers keep them for a year under the address that carries it. */
function versionOf(folder: string): string {
  const hash = createHash('sha256')
  for (const name of readdirSync(folder).sort()) hash.update(readFileSync(join(folder, name)))
  return hash.digest('hex').slice(0, 12)
}
