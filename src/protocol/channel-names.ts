import { problem } from '../errors.js'
import { isPoisonousKey } from '../lib/json.js'

/** The protocol of a connection. Channel names and a few frames differ. */
export type Dialect = 'agents' | 'v1'

/** The reserved channel with the presence of all connected peers, and the name of its presence set. */
export const agentsChannel = '$agents'

/** UTF-16 units. */
const maxLength = 256
const control = /\p{Cc}/u
/** Names that agents write as they are; other names are percent-encoded. */
const plain = /^[A-Za-z0-9_.:@-]+(\/[A-Za-z0-9_.:@-]+)*$/
const plainCharacter = /[A-Za-z0-9_.:@-]/
const reserved: Readonly<Record<Dialect, RegExp>> = { agents: /^[$_]/, v1: /^(\$|_(metered|internal|system)\/)/i }

/**
 * Parses the name of a channel.
 * @throws invalid-channel, channel-reserved
 */
export function parseChannel (text: string, dialect: Dialect): string {
  if (dialect === 'agents' && text.startsWith('$')) throw reservedName(text)
  const name = dialect === 'v1' ? text : decodeName(text)
  assertName(name, dialect)
  return name
}

/** Writes the name of a channel in a dialect. Channels of the registry begin with `$`. */
export function formatChannel (channel: string, dialect: Dialect): string {
  return dialect === 'v1' || channel.startsWith('$') || plain.test(channel) ? channel : encode(channel)
}

/** Whether a text is a pattern. `/v1` has no patterns. */
export function isPattern (text: string, dialect: Dialect): boolean {
  return dialect === 'agents' && text.includes('*')
}

/**
 * Parses a pattern: `*` is a segment, `**` the last segment.
 * @throws invalid-channel, channel-reserved
 */
export function parsePattern (text: string): string {
  if (text.startsWith('$')) throw reservedName(text)
  const segments = text.split('/')
  const pattern = segments.map((segment, index) => {
    if (segment === '*' || (segment === '**' && index === segments.length - 1)) return segment
    const name = decodeName(segment)
    if (name === '' || /[/*]/.test(name)) throw invalidName(text)
    return name
  }).join('/')
  assertName(pattern, 'agents')
  return pattern
}

export function formatPattern (pattern: string): string {
  return pattern.split('/').map(segment => segment === '*' || segment === '**' ? segment : formatChannel(segment, 'agents')).join('/')
}

function invalidName (text: string) {
  return problem('invalid-channel', `Invalid channel name: ${text.slice(0, 100)}`)
}

function reservedName (text: string) {
  return problem('channel-reserved', `This name is reserved: ${text.slice(0, 100)}`)
}

function assertName (name: string, dialect: Dialect) {
  if (name.length === 0 || name.length > maxLength || control.test(name) || name.split('/').some(isPoisonousKey)) throw invalidName(name)
  if (reserved[dialect].test(name)) throw reservedName(name)
}

function decodeName (text: string): string {
  if (plain.test(text)) return text
  const name = decode(text)
  // A channel has one encoded name: a second one would have subscribers of its own.
  if (encode(name) !== text) throw invalidName(text)
  return name
}

/** Percent-encodes a name. A slash next to an empty segment is encoded, since names of agents have no empty segments. */
function encode (name: string): string {
  const [first = '', ...rest] = name.split('/')
  let before = first
  let text = encodeSegment(first)
  for (const segment of rest) {
    text += (before === '' || segment === '' ? '%2F' : '/') + encodeSegment(segment)
    before = segment
  }
  return text
}

function encodeSegment (segment: string): string {
  return Array.from(segment, character => plainCharacter.test(character) ? character : encodeCharacter(character)).join('')
}

/** The UTF-8 bytes of a character. A lone surrogate, which has none in UTF-8, is encoded by the same scheme. */
function encodeCharacter (character: string): string {
  const code = character.charCodeAt(0)
  const isLoneSurrogate = character.length === 1 && code >= 0xd800 && code <= 0xdfff
  const bytes = isLoneSurrogate ? [0xe0 | code >> 12, 0x80 | code >> 6 & 0x3f, 0x80 | code & 0x3f] : [...Buffer.from(character)]
  return bytes.map(byte => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')
}

const encodedSurrogate = /%ED%[AB][0-9A-F]%[89AB][0-9A-F]/g

function decode (text: string): string {
  try {
    let at = 0
    let name = ''
    for (const match of text.matchAll(encodedSurrogate)) {
      name += decodeURIComponent(text.slice(at, match.index)) + decodeSurrogate(match[0])
      at = match.index + match[0].length
    }
    return name + decodeURIComponent(text.slice(at))
  } catch {
    throw invalidName(text)
  }
}

function decodeSurrogate (text: string): string {
  const [a = 0, b = 0, c = 0] = text.slice(1).split('%').map(byte => parseInt(byte, 16))
  return String.fromCharCode((a & 0x0f) << 12 | (b & 0x3f) << 6 | c & 0x3f)
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
