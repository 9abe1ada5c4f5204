// National Provider Identifier: ten digits, the last of which is a Luhn check digit over "80840" and the first nine
// (45 CFR 162.406).
const issuerPrefix = '80840'

export function isNationalProviderIdentifier(text: string): boolean {
  if (!/^[12]\d{9}$/.test(text)) return false
  const digits = [...`${issuerPrefix}${text}`].reverse().map(Number)
  const sum = digits.reduce((total, digit, index) => total + (index % 2 === 1 ? doubled(digit) : digit), 0)
  return sum % 10 === 0
}

function doubled(digit: number): number {
  return digit > 4 ? digit * 2 - 9 : digit * 2
}
