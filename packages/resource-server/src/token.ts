// From what the issuer says to what an API may rely on: each member is what its name promises, or is not there.
import { isObject } from './connection.ts'
import type { AccessToken } from './verdict.ts'

type Answer = Readonly<Record<string, unknown>>

const textMembers = ['sub', 'iss', 'org_id', 'acr', 'sid', 'scope', 'token_type'] as const
const numberMembers = ['iat', 'auth_time'] as const

/**
 * Throws when an answer is not understood: it opens nothing.
 * @returns a token that all who share it may read and nobody can change
 */
export function toAccessToken(answer: Answer | undefined): AccessToken | undefined {
  if (!answer) return undefined
  const { active: _, client_id: clientId, exp, scope, token_type: type, ...rest } = answer
  if (typeof clientId !== 'string' || typeof exp !== 'number') throw new Error('the answer lacks client_id or exp')
  for (const name of textMembers) assertMember(answer, name, isText)
  for (const name of numberMembers) assertMember(answer, name, (value) => typeof value === 'number')
  assertMember(answer, 'roles', isTexts)
  assertMember(answer, 'aud', (value) => isText(value) || isTexts(value))
  assertMember(answer, 'cnf', (value) => isObject(value) && (value['jkt'] === undefined || isText(value['jkt'])))
  const token = { ...rest, client_id: clientId, exp, scope: textOf(scope), token_type: textOf(type) }
  return Object.freeze(token)
}

function assertMember(answer: Answer, name: string, isRight: (value: unknown) => boolean): void {
  if (answer[name] !== undefined && !isRight(answer[name])) throw new Error(`the answer has a wrong ${name}`)
}

const isText = (value: unknown): value is string => typeof value === 'string'
const isTexts = (value: unknown) => Array.isArray(value) && value.every(isText)
const textOf = (value: unknown) => (isText(value) ? value : '')
