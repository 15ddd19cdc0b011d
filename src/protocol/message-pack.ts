import { DecodeError, Decoder, Encoder } from '@msgpack/msgpack'
import sjson from 'secure-json-parse'
import { isJson } from '../lib/json.js'
import { assertWhole, memberOf, refuse } from './message-pack-walk.js'
import { PoisonousFrame } from './parse.js'

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
