// Says while somebody types which rules of a new password are met. The server judges; without this file nothing is
// missing but this. The counting agrees with src/credentials/password-rules.ts (tested).
const wordsDelayMs = 700
const classPatterns = [/\p{Ll}/u, /\p{Lu}/u, /\p{Nd}/u, /[^\p{Ll}\p{Lu}\p{Nd}]/u]

function passwordFacts(text) {
  const points = [...text.normalize('NFC')]
  const whole = points.join('')
  return {
    length: points.length,
    classes: classPatterns.filter((pattern) => pattern.test(whole)).length,
    lettersAndDigits: [/\p{L}/u, /\p{Nd}/u].filter((pattern) => pattern.test(whole)).length,
    distinct: new Set(points.map((point) => point.toLowerCase())).size,
  }
}

function meetsRule(facts, kind, atLeast) {
  if (kind === 'length') return facts.length >= atLeast
  if (kind === 'classes') return facts.classes >= atLeast
  return facts.lettersAndDigits >= atLeast
}

// 0 nothing typed, 1 a rule is not met, 2 met, 3 and 4 longer than asked. What repeats itself is not called good.
function passwordLevel(facts, allMet, minLength) {
  if (facts.length === 0) return 0
  if (!allMet || facts.distinct < 5) return 1
  const spare = facts.length - minLength
  if (spare < 4) return 2
  return spare < 8 || facts.distinct < 10 ? 3 : 4
}

function passwordWords(facts, level, met, count) {
  if (facts.length === 0) return ''
  const characters = facts.length === 1 ? '1 character' : `${facts.length} characters`
  if (met < count) return `${characters}. ${met} of ${count} rules met so far.`
  if (level === 1) return `${characters}. Too repetitive: use more different characters.`
  const advice = level === 2 ? ' A longer one is stronger.' : level === 3 ? ' Good length.' : ' Very good length.'
  return `${characters}. Length and characters are right.${advice} The rest is checked when you save.`
}

function watchNewPassword(box) {
  const input = box.querySelector('input')
  const bar = box.querySelector('[data-strength]')
  const words = box.querySelector('[data-strength-words]')
  const rules = [...box.querySelectorAll('[data-rule]')]
  const lengthRule = rules.find((rule) => rule.dataset.rule === 'length')
  const minLength = Number(lengthRule?.dataset.atLeast ?? 0)
  let timer
  const look = () => {
    const facts = passwordFacts(input.value)
    let met = 0
    for (const rule of rules) {
      const isMet = meetsRule(facts, rule.dataset.rule, Number(rule.dataset.atLeast))
      if (isMet) met += 1
      rule.dataset.met = isMet ? 'yes' : 'no'
    }
    const level = passwordLevel(facts, met === rules.length, minLength)
    bar.hidden = level === 0
    bar.dataset.level = String(level)
    // A screen reader speaks when the typing pauses, not at every key.
    clearTimeout(timer)
    timer = setTimeout(() => {
      words.textContent = passwordWords(facts, level, met, rules.length)
    }, wordsDelayMs)
  }
  input.addEventListener('input', look)
  // A browser may have kept what was typed before the page was left.
  if (input.value !== '') look()
}

for (const box of document.querySelectorAll('[data-new-password]')) watchNewPassword(box)
