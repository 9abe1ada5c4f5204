// Search by `like`, letter by letter (F74).

/** A pattern for `like … escape '\'` that finds a text as it stands. */
export function containing(text: string): string {
  return `%${text.replace(/[\\%_]/g, '\\$&')}%`
}
