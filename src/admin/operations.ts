// Every operation of the admin API, for the document and the tests. A resource's table is in its own file.
import { operations as me } from './me.ts'
import type { AdminOperation } from './operation.ts'

export const adminOperations: readonly AdminOperation[] = [me].flatMap((table): AdminOperation[] =>
  Object.values(table),
)
