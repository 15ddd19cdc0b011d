import { DecodeError, Decoder, Encoder } from '@msgpack/msgpack'
import sjson from 'secure-json-parse'
import { isJson } from '../lib/json.js'
import { PoisonousFrame } from './validation.js'
import { isUtf8 } from 'node:buffer'

// How deep a text may be nested is decided where it comes in.
const encoder = new Encoder({ maxDepth: Infinity })
const decoder = new Decoder({ mapKeyConverter: key => typeof key === 'string' ? key : refuse() })

/** Escapes in a JSON text: of whole characters, of halves of them, and of anything else. */
const escapes = /\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(ud[89a-f][0-9a-f]{2})|.)/gi
const mayBeHalf = /\\ud[89a-f]/i
const requestIdKey = Buffer.from(encoder.encode('requestId'))

/** MessagePack of a JSON text. */
export function pack (text: string): Uint8Array {
  return encoder.encode(JSON.parse(mayBeHalf.test(text) ? withoutHalves(text) : text))
}

/** Half a character can be said in JSON and not in UTF-8: it becomes the sign for what cannot be shown. */
function withoutHalves (text: string): string {
  return text.replace(escapes, (escape: string, half?: string) => half === undefined ? escape : '\\ufffd')
}

/**
 * What a frame of MessagePack says; of one with members that would poison an object, only whose it is.
 * @throws for what is not MessagePack, or says more than JSON can: bytes, dates, other keys than strings, NaN
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
    // Of what is whole the decoder says so of one thing only: a member `__proto__`.
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

/** Where one is in a frame of MessagePack that is looked at and not decoded. */
interface Walk { readonly data: Buffer, at: number }

/** Bytes that follow the first one of a number. */
const numberBytes: Readonly<Record<number, number>> = { 0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8 }
/** Bytes of the length that follows, and how many values come for each one counted: of strings, arrays, maps. */
const lengthBytes: Readonly<Record<number, readonly [bytes: 1 | 2 | 4, values: 0 | 1 | 2]>> = {
  0xd9: [1, 0], 0xda: [2, 0], 0xdb: [4, 0], 0xdc: [2, 1], 0xdd: [4, 1], 0xde: [2, 2], 0xdf: [4, 2]
}

export function refuse (): never {
  throw new RangeError('Not MessagePack of what JSON can say')
}

/**
 * A decoder makes room for what a header announces, before it sees that there is less.
 * @throws unless there are bytes for all that is announced, and they are of types that JSON knows
 */
export function assertWhole (data: Buffer): void {
  const walk = { data, at: 0 }
  for (let owed = 1; owed > 0; owed--) {
    owed += enter(walk)
    if (owed - 1 > data.length - walk.at) refuse()
  }
}

/** The string under a key of a map that is whole, as it is packed. */
export function memberOf (data: Buffer, packedKey: Buffer): Buffer | undefined {
  const walk = { data, at: 0 }
  let found: Buffer | undefined
  for (let pairs = isMap(data[0]!) ? enter(walk) / 2 : 0; pairs > 0; pairs--) {
    const isIt = pass(walk).equals(packedKey)
    const value = pass(walk)
    if (isIt && isText(value[0]!)) found = value
  }
  return found
}

const isMap = (first: number) => (first & 0xf0) === 0x80 || first === 0xde || first === 0xdf
const isText = (first: number) => (first & 0xe0) === 0xa0 || (first >= 0xd9 && first <= 0xdb)

/** Goes past a value with all that is in it. */
function pass (walk: Walk): Buffer {
  const { at } = walk
  for (let owed = 1; owed > 0; owed--) owed += enter(walk)
  return walk.data.subarray(at, walk.at)
}

/** Goes past a value or, of a container, past its header. @returns values that follow as its members */
function enter (walk: Walk): number {
  const first = walk.data[walk.at++] ?? refuse()
  if (first <= 0x7f || first >= 0xe0 || first === 0xc0 || first === 0xc2 || first === 0xc3) return 0
  if (first <= 0x8f) return 2 * (first & 0x0f)
  if (first <= 0x9f) return first & 0x0f
  if (first <= 0xbf) return passText(walk, first & 0x1f)
  if (first in numberBytes) return passBytes(walk, numberBytes[first]!)
  const [bytes, values] = lengthBytes[first] ?? refuse()
  if (walk.at + bytes > walk.data.length) refuse()
  const length = walk.data.readUIntBE(walk.at, bytes)
  walk.at += bytes
  return values === 0 ? passText(walk, length) : values * length
}

function passBytes (walk: Walk, bytes: number): 0 {
  walk.at += bytes
  return 0
}

/** In text frames ws refuses what is not UTF-8; the decoder would make something of it. */
function passText (walk: Walk, bytes: number): 0 {
  const { data, at } = walk
  const end = at + bytes
  let plain = at
  while (plain < end && data[plain]! < 0x80) plain++
  if (plain < end && !isUtf8(data.subarray(plain, end))) refuse()
  return passBytes(walk, bytes)
}
