// Passwords that attackers try first: the most common ones, words, what is known about the person, and runs such as
// "abcdefgh". Always the entire password is compared, never a part of it (SP 800-63B-4 §3.1.1.2), together with simple
// derivatives: other case, digits or punctuation around it, letters written as digits, backwards, repeated.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

/** What is known about the person and the service, in the words that a password must not be. */
export interface PasswordContext {
  readonly email: string
  readonly name: string
  readonly organizationName: string
}

export type BlockReason = 'simple' | 'common' | 'email' | 'name' | 'organization' | 'product'

const productName = 'mlpipes'
// The packages publish these lists as compressed modules too. Unpacking them makes an object of every word, which costs
// many times this memory for the life of the process, so the plain files beside them are read instead.
const listFiles = [
  '@zxcvbn-ts/language-common/src/passwords.json',
  '@zxcvbn-ts/language-en/src/commonWords.json',
  '@zxcvbn-ts/language-en/src/wikipedia.json',
]
/** Shorter words stand in so many good passwords by chance that finding them says nothing. */
const minListedLength = 4
const minContextLength = 3
/** With more digits around a word than this, the digits are the password and the word does not weaken them. */
const maxPadding = 10
const longestUnit = 3
const quote = 0x22
/** Slots for the places of 134,845 entries: twice as many. */
const tableSize = 262_144
/** Runs this long on average ("aaaa", "1234") make a password simple. Chance gives runs of one or two. */
const simpleRunLength = 4

/** Why an entire password is easy to guess; undefined when this file knows no reason. */
export function blockReason(password: string, context: PasswordContext): BlockReason | undefined {
  const whole = fold(password)
  if (isSimple(whole)) return 'simple'
  const forms = derivatives(whole)
  if (forms.some((form) => form.length * 2 >= whole.length && isSimple(form))) return 'simple'
  for (const [reason, words] of contextWords(context))
    if (forms.some((form) => words.has(form) || words.has(reversed(form)))) return reason
  return forms.some(isListed) ? 'common' : undefined
}

/** One spelling for what people take as the same: compatibility forms, case and accents. */
function fold(text: string): string {
  return text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase().normalize('NFC')
}

/** Letters and digits alone. */
function squash(text: string): string {
  return text.replace(/[^\p{L}\p{N}]/gu, '')
}

/** What an entire password may be a simple variation of, read forwards. */
function derivatives(whole: string): string[] {
  const bases = stripped(whole).flatMap((form) => [form, unit(form)])
  // "P@ssw0rd2026": the digits around it go first, the ones inside are letters afterwards.
  const plain = bases.flatMap((base) => [base, ...unleet(base)])
  return [...new Set(plain.flatMap((form) => [form, squash(form)]))].filter((form) => form !== '')
}

/**
 * A text without some or all of the digits and punctuation before and after it, unless so many are gone that they are no
 * decoration any more. Some: "qwer12342026!" is "qwer1234" with a year, and "qwer" is in no list.
 */
function stripped(text: string): string[] {
  const points = [...text]
  const isLetter = (point: string) => /\p{L}/u.test(point)
  const first = points.findIndex(isLetter)
  const before = Math.min(first < 0 ? points.length : first, maxPadding)
  const after = Math.min(points.length - 1 - points.findLastIndex(isLetter), maxPadding)
  const forms: string[] = []
  for (let start = 0; start <= before; start += 1)
    for (let cut = 0; cut <= Math.min(after, maxPadding - start) && start + cut < points.length; cut += 1)
      forms.push(points.slice(start, points.length - cut).join(''))
  return forms
}

/** What a text is a whole number of repetitions of; the text itself when it is none. */
function unit(text: string): string {
  const points = [...text]
  for (let size = 1; size <= points.length / 2; size += 1) {
    if (points.length % size === 0 && hasPeriod(points, size)) return points.slice(0, size).join('')
  }
  return text
}

function hasPeriod(points: readonly string[], size: number): boolean {
  return points.every((point, index) => index < size || point === points[index - size])
}

const leet: Readonly<Record<string, string>> = {
  '0': 'o',
  '3': 'e',
  '4': 'a',
  '5': 's',
  '7': 't',
  '8': 'b',
  '@': 'a',
  $: 's',
  '€': 'e',
  '+': 't',
}

/** Digits and signs read as the letters they stand for; 1, ! and | may be either of two. */
function unleet(text: string): string[] {
  const letters = [...text].map((point) => leet[point] ?? point).join('')
  return [letters.replace(/[1!|]/g, 'i'), letters.replace(/[1!|]/g, 'l')]
}

function reversed(text: string): string {
  return [...text].reverse().join('')
}

/** Whether a text is a short unit over and over ("abcabcabc") or made of long runs ("aaaa", "1234", "zyxw"). */
function isSimple(text: string): boolean {
  const points = [...text]
  for (let size = 1; size <= longestUnit && size * 2 <= points.length; size += 1)
    if (hasPeriod(points, size)) return true
  return runCount(points) <= points.length / simpleRunLength
}

/** How many runs a text falls into: stretches in which each character follows the one before by the same step. */
function runCount(points: readonly string[]): number {
  let runs = 0
  let step: number | undefined
  let open = false
  for (let index = 0; index < points.length; index += 1) {
    const next = open ? stepBetween(points[index - 1] ?? '', points[index] ?? '') : undefined
    if (next !== undefined && (step === undefined || next === step)) {
      step = next
      continue
    }
    runs += 1
    open = true
    step = undefined
  }
  return runs
}

/** 0 for the same, 1 or -1 for neighbours in the alphabet or among the digits (9 and 0, z and a are neighbours too). */
function stepBetween(from: string, to: string): number | undefined {
  if (from === to) return 0
  for (const row of ['0123456789', 'abcdefghijklmnopqrstuvwxyz']) {
    const [a, b] = [row.indexOf(from), row.indexOf(to)]
    if (a < 0 || b < 0) continue
    if ((a + 1) % row.length === b) return 1
    if ((b + 1) % row.length === a) return -1
  }
  return undefined
}

/** The words of a context in every spelling they are compared in, with what they are. */
function contextWords(context: PasswordContext): (readonly [BlockReason, ReadonlySet<string>])[] {
  const [local = '', domain = ''] = context.email.split('@')
  return [
    ['email', spellings(context.email, local, domain)],
    ['name', spellings(context.name)],
    ['organization', spellings(context.organizationName)],
    ['product', spellings(productName)],
  ]
}

function spellings(...texts: readonly string[]): Set<string> {
  const words = texts.map(fold).flatMap((text) => [text, ...text.split(/[^\p{L}\p{N}]+/u)])
  const all = words.flatMap((word) => [...stripped(word), ...unleet(word)]).flatMap((word) => [word, squash(word)])
  return new Set(all.filter((word) => [...word].length >= minContextLength))
}

/** The lists as they lie in the files, and a hash table of where their entries begin. */
interface Lists {
  readonly bytes: Buffer
  readonly starts: Uint32Array
}

let lists: Lists | undefined

/** Whether a text is an entry of the lists. */
function isListed(text: string): boolean {
  if ([...text].length < minListedLength) return false
  lists ??= readLists()
  const { bytes, starts } = lists
  const wanted = Buffer.from(text)
  for (let slot = slotOf(wanted, 0, wanted.length); ; slot = (slot + 1) % tableSize) {
    const start = starts[slot] ?? 0
    if (start === 0) return false
    const end = start + wanted.length
    if (bytes[end] === quote && wanted.equals(bytes.subarray(start, end))) return true
  }
}

/** A JSON array of plain strings is its entries between quotes; the packages' lists need no escapes (tested). */
function readLists(): Lists {
  const { resolve } = createRequire(import.meta.url)
  const bytes = Buffer.concat(listFiles.map((file) => readFileSync(resolve(file))))
  const starts = new Uint32Array(tableSize)
  for (let open = bytes.indexOf(quote); open >= 0; ) {
    const close = bytes.indexOf(quote, open + 1)
    let slot = slotOf(bytes, open + 1, close)
    while (starts[slot] !== 0) slot = (slot + 1) % tableSize
    starts[slot] = open + 1
    open = bytes.indexOf(quote, close + 1)
  }
  return { bytes, starts }
}

/** FNV-1a. What the lists hold is public, so that nothing is gained by making its entries collide. */
function slotOf(bytes: Uint8Array, from: number, to: number): number {
  let hash = 0x811c9dc5
  for (let index = from; index < to; index += 1) hash = Math.imul(hash ^ (bytes[index] ?? 0), 0x01000193)
  return (hash >>> 0) % tableSize
}
