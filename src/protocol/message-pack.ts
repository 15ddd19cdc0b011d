import { DecodeError, Decoder, Encoder } from '@msgpack/msgpack'
import sjson from 'secure-json-parse'
import { isJson } from '../lib/json.js'
import { PoisonousFrame } from './validation.js'
import { isUtf8 } from 'node:buffer'

// The depth of incoming data is limited where it is received.
const encoder = new Encoder({ maxDepth: Infinity })
const decoder = new Decoder({ mapKeyConverter: key => typeof key === 'string' ? key : refuse() })

/** Escapes in a JSON text: surrogate pairs, lone surrogates, and all others. */
const escapes = /\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(ud[89a-f][0-9a-f]{2})|.)/gi
const mayBeLoneSurrogate = /\\ud[89a-f]/i
const requestIdKey = Buffer.from(encoder.encode('requestId'))

/** Converts a JSON text to MessagePack. */
export function pack (text: string): Uint8Array {
  return encoder.encode(JSON.parse(mayBeLoneSurrogate.test(text) ? withoutLoneSurrogates(text) : text))
}

/** JSON can represent lone surrogates, UTF-8 cannot: replaces them with U+FFFD. */
function withoutLoneSurrogates (text: string): string {
  return text.replace(escapes, (escape: string, lone?: string) => lone === undefined ? escape : '\\ufffd')
}

/**
 * Decodes a MessagePack frame. A frame with a forbidden member becomes a `PoisonousFrame`.
 * @throws RangeError for invalid MessagePack, or values that JSON cannot represent: bytes, dates, keys other than strings, NaN
 */
export function unpack (data: Buffer): unknown {
  assertWhole(data)
  const value = decode(data)
  if (data.includes('constructor') && isPoisonous(value)) return new PoisonousFrame(value)
  return isJson(value) ? value : refuse()
}

function decode (data: Buffer): unknown {
  try {
    return decoder.decode(data)
  } catch (error) {
    // For a complete frame, the decoder throws DecodeError only because of a member `__proto__`.
    if (error instanceof DecodeError) return new PoisonousFrame({ requestId: requestIdIn(data) })
    throw error
  }
}

function requestIdIn (data: Buffer): unknown {
  const packed = memberOf(data, requestIdKey)
  return packed && decoder.decode(packed)
}

function isPoisonous (value: unknown): boolean {
  return typeof value === 'object' && value !== null && sjson.scan(value, { safe: true }) === null
}

/** A position in a MessagePack frame that is scanned without decoding it. */
interface Cursor { readonly data: Buffer, at: number }

/** Number of bytes that follow the first byte of a number. */
const numberBytes: Readonly<Record<number, number>> = {
  0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8
}

/** Size of the length that follows, and number of values per element: of strings, arrays and maps. */
const lengthBytes: Readonly<Record<number, readonly [bytes: 1 | 2 | 4, values: 0 | 1 | 2]>> = {
  0xd9: [1, 0], 0xda: [2, 0], 0xdb: [4, 0], 0xdc: [2, 1], 0xdd: [4, 1], 0xde: [2, 2], 0xdf: [4, 2]
}

export function refuse (): never {
  throw new RangeError('Not valid MessagePack, or not representable in JSON')
}

/**
 * Checks a frame before it is decoded, because a decoder allocates the space that a header announces.
 * @throws RangeError if the frame is incomplete or contains types that JSON does not have
 */
function assertWhole (data: Buffer): void {
  const cursor = { data, at: 0 }
  for (let pending = 1; pending > 0; pending--) {
    pending += skipHead(cursor)
    if (pending - 1 > data.length - cursor.at) refuse()
  }
}

/** The packed string under a key of a complete map. */
function memberOf (data: Buffer, packedKey: Buffer): Buffer | undefined {
  const cursor = { data, at: 0 }
  let found: Buffer | undefined
  for (let pairs = isMap(data[0]) ? skipHead(cursor) / 2 : 0; pairs > 0; pairs--) {
    const isIt = skip(cursor).equals(packedKey)
    const value = skip(cursor)
    if (isIt && isText(value[0])) found = value
  }
  return found
}

const isMap = (first = 0) => (first & 0xf0) === 0x80 || first === 0xde || first === 0xdf
const isText = (first = 0) => (first & 0xe0) === 0xa0 || (first >= 0xd9 && first <= 0xdb)

/** Skips a value with all its members. @returns its bytes */
function skip (cursor: Cursor): Buffer {
  const { at } = cursor
  for (let pending = 1; pending > 0; pending--) pending += skipHead(cursor)
  return cursor.data.subarray(at, cursor.at)
}

/** Skips a value or the header of a container. @returns the number of values that follow as its members */
function skipHead (cursor: Cursor): number {
  const first = cursor.data[cursor.at++] ?? refuse()
  if (first <= 0x7f || first >= 0xe0 || first === 0xc0 || first === 0xc2 || first === 0xc3) return 0
  if (first <= 0x8f) return 2 * (first & 0x0f)
  if (first <= 0x9f) return first & 0x0f
  if (first <= 0xbf) return skipText(cursor, first & 0x1f)
  const size = numberBytes[first]
  if (size !== undefined) return skipBytes(cursor, size)
  const [bytes, values] = lengthBytes[first] ?? refuse()
  if (cursor.at + bytes > cursor.data.length) refuse()
  const length = cursor.data.readUIntBE(cursor.at, bytes)
  cursor.at += bytes
  return values === 0 ? skipText(cursor, length) : values * length
}

function skipBytes (cursor: Cursor, bytes: number): 0 {
  cursor.at += bytes
  return 0
}

/** False for a missing byte, so that an announced length never extends the loop beyond the data. */
const isAscii = (byte = 0x80) => byte < 0x80

/** Refuses invalid UTF-8, which the decoder would replace. */
function skipText (cursor: Cursor, bytes: number): 0 {
  const { data, at } = cursor
  const end = at + bytes
  let ascii = at
  while (ascii < end && isAscii(data[ascii])) ascii++
  if (ascii < end && !isUtf8(data.subarray(ascii, end))) refuse()
  return skipBytes(cursor, bytes)
}
