/** Longer words are cut: nobody types them, and each would be a branch of the index of its own. */
const maxLength = 40

const beyondAscii = /[\u0080-\uffff]/
const asciiWords = /[a-z0-9]+/g
const words = /[\p{L}\p{M}\p{N}]+/gu
/** Runs of the scripts that put no space between words, and the runs between them. */
const runs = /[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]+|[^\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]+/gu
const unspaced = /^[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]/u
const latinMarks = /[\u0300-\u036f]/g

/** Lower case, compatibility forms made plain, accents taken off; marks that are letters in their script stay. */
const fold = (text: string) => text.normalize('NFKD').replace(latinMarks, '').normalize('NFC').toLowerCase()

const isWord = (word: string) => word.length > 1

/** Overlapping pairs of characters, since nothing says where a word ends; a character alone stays alone. */
function pairs (run: string): string[] {
  const characters = [...run]
  if (characters.length === 1) return characters
  return characters.slice(1).map((character, index) => characters[index] + character)
}

function tokensOfWord (word: string): string[] {
  if (!beyondAscii.test(word)) return isWord(word) ? [word.slice(0, maxLength)] : []
  return (word.match(runs) ?? []).flatMap(run => unspaced.test(run) ? pairs(run) : isWord(run) ? [run.slice(0, maxLength)] : [])
}

/**
 * The words of a text as they are indexed and looked for: letters and digits of any script, case and accents folded,
 * no words of one letter; texts in Chinese and Japanese as pairs of characters.
 */
export function tokenize (text: string): string[] {
  if (beyondAscii.test(text)) return (fold(text).match(words) ?? []).flatMap(tokensOfWord)
  const found = text.toLowerCase().match(asciiWords) ?? []
  return found.filter(isWord).map(word => word.slice(0, maxLength))
}

/** Whether a token is made of characters that are words by themselves. */
export const isUnspaced = (token: string): boolean => unspaced.test(token)
