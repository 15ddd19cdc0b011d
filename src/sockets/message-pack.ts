import { Decoder, Encoder } from '@msgpack/msgpack'
import { isJson } from '../validation.js'

const forbidden: ReadonlySet<unknown> = new Set(['__proto__', 'constructor', 'prototype'])
const encoder = new Encoder()
const decoder = new Decoder({ mapKeyConverter: keyOf })

function refuse (): never {
  throw new RangeError('Not MessagePack of what JSON can say')
}

function keyOf (key: unknown): string {
  return typeof key === 'string' && !forbidden.has(key) ? key : refuse()
}

/** MessagePack of what came out of JSON. */
export function pack (value: unknown): Uint8Array {
  return encoder.encode(value)
}

/**
 * What a frame of MessagePack says.
 * @throws for what is not MessagePack, or says more than JSON can: bytes, dates, other keys than strings, NaN
 */
export function unpack (data: Buffer): unknown {
  assertBounded(data)
  const value = decoder.decode(data)
  return isJson(value) ? value : refuse()
}

/** A decoder makes room for what a header announces: no more may be announced than there are bytes for. */
function assertBounded (data: Buffer) {
  const reader = { data, at: 0 }
  for (let owed = 1; owed > 0; owed--) {
    owed += membersOf(reader)
    if (owed - 1 > data.length - reader.at) refuse()
  }
}

interface Reader { readonly data: Buffer, at: number }

/** Bytes after the first one of a value, from 0xca on: numbers. */
const numberBytes: Readonly<Record<number, number>> = { 0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8 }
/** Bytes of the length that follows, and how many values come for each one counted: strings, arrays, maps. */
const lengthBytes: Readonly<Record<number, readonly [bytes: 1 | 2 | 4, values: 0 | 1 | 2]>> = {
  0xd9: [1, 0], 0xda: [2, 0], 0xdb: [4, 0], 0xdc: [2, 1], 0xdd: [4, 1], 0xde: [2, 2], 0xdf: [4, 2]
}

/** Goes past a value or, of a container, past its header. @returns values that follow as its members */
function membersOf (reader: Reader): number {
  const first = reader.data[reader.at++] ?? refuse()
  if (first <= 0x7f || first >= 0xe0 || first === 0xc0 || first === 0xc2 || first === 0xc3) return 0
  if (first <= 0x8f) return 2 * (first & 0x0f)
  if (first <= 0x9f) return first & 0x0f
  if (first <= 0xbf) return pass(reader, first & 0x1f)
  if (first in numberBytes) return pass(reader, numberBytes[first]!)
  const [bytes, values] = lengthBytes[first] ?? refuse()
  if (reader.at + bytes > reader.data.length) refuse()
  const length = reader.data.readUIntBE(reader.at, bytes)
  reader.at += bytes
  return values === 0 ? pass(reader, length) : values * length
}

function pass (reader: Reader, bytes: number): 0 {
  reader.at += bytes
  return 0
}
