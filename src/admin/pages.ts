// Pages of lists: where the next one begins is a cursor that belongs to one operation, organisation and filter and is
// signed, so that nobody can make one up or carry it elsewhere (F75). And search, which is literal (F74).
import { ApiProblem } from '../api/problems.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import { defaultPageSize } from './operation.ts'

/** Which page of a list is asked for. */
export interface Page {
  /** How many items at most. */
  readonly limit: number
  /** The key of the last item of the page before; undefined for the first page. */
  readonly after: readonly string[] | undefined
  /**
   * The answer of a list.
   * @param rows one more than `limit`, if there are as many: that one only says that there is a next page
   * @param keyOf the values that the list is ordered by, which together tell one item from every other
   */
  answer<Row, Item>(
    rows: readonly Row[],
    toItem: (row: Row) => Item,
    keyOf: (row: Row) => readonly string[],
  ): { readonly items: Item[]; readonly next: string | null }
}

export interface PageRequest {
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

/**
 * @param place what the cursor belongs to: operation, organisation and filter
 * @param keyLength how many values make a key
 * @throws ApiProblem when the cursor is not one of ours, or of another place
 */
export function openPage(secrets: Secrets, request: PageRequest, place: readonly unknown[], keyLength: number): Page {
  const limit = request.limit ?? defaultPageSize
  const bound = (key: string) => `${sha256(JSON.stringify(place))}:${key}`
  return {
    limit,
    after: request.cursor === undefined ? undefined : read(request.cursor),
    answer(rows, toItem, keyOf) {
      const items = rows.slice(0, limit)
      const last = items.at(-1)
      const next = last !== undefined && rows.length > limit ? write(keyOf(last)) : null
      return { items: items.map(toItem), next }
    },
  }

  function write(key: readonly string[]): string {
    const text = Buffer.from(JSON.stringify(key)).toString('base64url')
    return `${text}.${secrets.mac('cursor', bound(text))}`
  }

  function read(cursor: string): readonly string[] {
    const [text = '', mac = '', ...rest] = cursor.split('.')
    if (rest.length > 0 || !secrets.matchesMac('cursor', bound(text), mac)) throw foreign
    const key: unknown = JSON.parse(Buffer.from(text, 'base64url').toString())
    if (!Array.isArray(key) || key.length !== keyLength || !key.every((part) => typeof part === 'string')) throw foreign
    return key
  }
}

const foreign = new ApiProblem('input_invalid', [
  { path: 'cursor', message: 'must be next of the page before, with the same filter' },
])
