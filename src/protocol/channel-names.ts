import { problem } from '../errors.js'
import { isPoisonousKey } from '../lib/json.js'

/** The protocol of a connection. Names of channels and a few frames differ. */
export type Dialect = 'agents' | 'v1'

/** The reserved channel with the presence of all connected peers, and the name of its presence set. */
export const agentsChannel = '$agents'

/** UTF-16 units. */
const maxLength = 256
const control = /\p{Cc}/u
const plain = /^[A-Za-z0-9_.:@-]+(\/[A-Za-z0-9_.:@-]+)*$/
const plainCharacter = /[A-Za-z0-9_.:@-]/
const reserved: Readonly<Record<Dialect, RegExp>> = { agents: /^[$_]/, v1: /^(\$|_(metered|internal|system)\/)/i }

function refused (text: string) {
  return problem('invalid-channel', `No name of a channel: ${text.slice(0, 100)}`)
}

/** One character, or half of one, as the bytes that it has in UTF-8; half of one has none, and gets those that it would have. */
function escaped (character: string): string {
  const code = character.codePointAt(0)!
  const bytes = code >= 0xd800 && code <= 0xdfff ? [0xe0 | code >> 12, 0x80 | code >> 6 & 0x3f, 0x80 | code & 0x3f] : [...Buffer.from(character)]
  return bytes.map(byte => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')
}

const escapedSegment = (segment: string) => Array.from(segment, character => plainCharacter.test(character) ? character : escaped(character)).join('')

/** A slash beside an empty segment does not separate anything that the dialect could name. */
function encode (name: string): string {
  const [first = '', ...rest] = name.split('/')
  let before = first
  let text = escapedSegment(first)
  for (const segment of rest) {
    text += (before === '' || segment === '' ? '%2F' : '/') + escapedSegment(segment)
    before = segment
  }
  return text
}

const surrogate = /%ED%[AB][0-9A-F]%[89AB][0-9A-F]/g

function half (text: string): string {
  const [a = 0, b = 0, c = 0] = text.slice(1).split('%').map(byte => parseInt(byte, 16))
  return String.fromCharCode((a & 0x0f) << 12 | (b & 0x3f) << 6 | c & 0x3f)
}

function decode (text: string): string {
  try {
    let at = 0
    let name = ''
    for (const match of text.matchAll(surrogate)) {
      name += decodeURIComponent(text.slice(at, match.index)) + half(match[0])
      at = match.index + match[0].length
    }
    return name + decodeURIComponent(text.slice(at))
  } catch {
    throw refused(text)
  }
}

function decodedName (text: string): string {
  if (plain.test(text)) return text
  const name = decode(text)
  // One name for one channel: whoever subscribes by one is not told of it by another.
  if (encode(name) !== text) throw refused(text)
  return name
}

function assertName (name: string, dialect: Dialect) {
  if (name.length === 0 || name.length > maxLength || control.test(name) || name.split('/').some(isPoisonousKey)) throw refused(name)
  if (reserved[dialect].test(name)) throw problem('channel-reserved', `This name is reserved: ${name.slice(0, 100)}`)
}

/** How a channel is written in a dialect. What begins with `$` is the registry's own. */
export function shownName (channel: string, dialect: Dialect): string {
  return dialect === 'v1' || channel.startsWith('$') || plain.test(channel) ? channel : encode(channel)
}

/** How a pattern is written. */
export function shownPattern (pattern: string): string {
  return pattern.split('/').map(segment => segment === '*' || segment === '**' ? segment : shownName(segment, 'agents')).join('/')
}

/**
 * The channel that a text names.
 * @throws invalid-channel, channel-reserved
 */
export function channelNamed (text: string, dialect: Dialect): string {
  if (dialect === 'agents' && text.startsWith('$')) throw problem('channel-reserved', `This name is reserved: ${text.slice(0, 100)}`)
  const name = dialect === 'v1' ? text : decodedName(text)
  assertName(name, dialect)
  return name
}

/** Whether a text names several channels: in `/v1` none does. */
export function isPattern (text: string, dialect: Dialect): boolean {
  return dialect === 'agents' && text.includes('*')
}

/**
 * The pattern that a text stands for: `*` as a segment, `**` as the last one.
 * @throws invalid-channel, channel-reserved
 */
export function patternNamed (text: string): string {
  if (text.startsWith('$')) throw problem('channel-reserved', `This name is reserved: ${text.slice(0, 100)}`)
  const segments = text.split('/')
  const pattern = segments.map((segment, index) => {
    if (segment === '*' || (segment === '**' && index === segments.length - 1)) return segment
    const name = decodedName(segment)
    if (name === '' || /[/*]/.test(name)) throw refused(text)
    return name
  }).join('/')
  assertName(pattern, 'agents')
  return pattern
}

const keyPrefix = 'c:'

/** The name of a channel's log and presence set in the broker. */
export function channelKey (channel: string): string {
  return keyPrefix + channel
}

/** The channel of a log or presence set; undefined for one that belongs to no channel. Patterns match only channels. */
export function channelOfKey (key: string): string | undefined {
  return key.startsWith(keyPrefix) ? key.slice(keyPrefix.length) : undefined
}
