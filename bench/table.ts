// How figures are printed.
import { cpus, totalmem } from 'node:os'

export const row = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`
export const whole = (value: number) => Math.round(value).toLocaleString('en')
export const tenth = (value: number) => value.toFixed(1)

export const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]) => [
  row(head),
  row(head.map(() => '---')),
  ...rows.map(row),
]

export const machine = () =>
  `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`
