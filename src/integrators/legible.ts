// Text that somebody sent, as it may be shown in a sentence of ours. Pure.

/** Control characters, what turns text around, line and paragraph ends, and what takes no room at all. */
const unseen = /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}\u200b\u2060\ufeff]/gu

/**
 * Shows characters that cannot be seen by their code points. One that turns text around would turn our own words after it
 * around too (Trojan Source, CVE-2021-42574).
 */
export function legible(text: string): string {
  return text.toWellFormed().replace(unseen, (character) => {
    const number = character.codePointAt(0) ?? 0
    return `‹U+${number.toString(16).toUpperCase().padStart(4, '0')}›`
  })
}
