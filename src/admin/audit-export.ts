// An export of the audit log as text: what a line is in each format, and the stream of them. Pure but for what it is given.
import type { ListedEvent } from './audit-store.ts'

export const exportFormats = ['ndjson', 'csv'] as const
export type ExportFormat = (typeof exportFormats)[number]

export const exportTypes = {
  ndjson: 'application/x-ndjson; charset=utf-8',
  csv: 'text/csv; charset=utf-8; header=present',
} as const satisfies Readonly<Record<ExportFormat, string>>

const csvColumns = [
  'occurredAt',
  'id',
  'name',
  'outcome',
  'actorType',
  'actorId',
  'accountId',
  'organizationId',
  'sessionUid',
  'clientId',
  'ip',
  'userAgent',
  'requestId',
  'details',
] as const satisfies readonly (keyof ListedEvent)[]

/**
 * A cell that a spreadsheet would take for a formula begins with an apostrophe (F79): whoever chooses a user agent would
 * otherwise run commands where the log is read. Quoted as RFC 4180 says where it has to be.
 */
export function csvCell(value: string): string {
  const inert = /^[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert
}

const writers = {
  ndjson: { head: '', line: (event: ListedEvent) => `${JSON.stringify(event)}\n` },
  csv: {
    head: `${csvColumns.join(',')}\r\n`,
    line: (event: ListedEvent) =>
      `${csvColumns
        .map((column) => (column === 'details' ? JSON.stringify(event.details) : (event[column] ?? '')))
        .map(csvCell)
        .join(',')}\r\n`,
  },
} as const

/** The text of an export, one piece for each batch. */
export async function* exportText(
  format: ExportFormat,
  batches: AsyncIterable<readonly ListedEvent[]>,
): AsyncGenerator<string> {
  const { head, line } = writers[format]
  if (head !== '') yield head
  for await (const events of batches) yield events.map(line).join('')
}
