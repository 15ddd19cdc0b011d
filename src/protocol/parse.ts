import sjson from 'secure-json-parse'
import { problem } from '../errors.js'
import { isObject, isShallow } from '../lib/json.js'

const maxRequestId = 128
/** Deeper values are not serialised into error messages, which could exhaust the stack. */
const maxShownDepth = 20
/** Readers of `data` may be recursive. */
const maxDataDepth = 64

/** Stands for a frame with members that could change the prototype of an object. */
export class PoisonousFrame {
  readonly requestId: string | undefined

  constructor (frame: unknown) { this.requestId = requestIdOf(frame) }
}

const forbidding = { protoAction: 'error', constructorAction: 'error' } as const
const removing = { protoAction: 'remove', constructorAction: 'remove' } as const

/** Parses the text of a frame. @returns undefined for text that is not JSON */
export function parse (text: string): unknown {
  try {
    return sjson.parse(text, undefined, forbidding)
  } catch {
    return parsePoisonous(text)
  }
}

function parsePoisonous (text: string): PoisonousFrame | undefined {
  try {
    return new PoisonousFrame(sjson.parse(text, undefined, removing))
  } catch {
    return undefined
  }
}

export function requestIdOf (frame: unknown): string | undefined {
  if (!isObject(frame) || typeof frame.requestId !== 'string') return undefined
  return frame.requestId.length <= maxRequestId ? frame.requestId : undefined
}

/** Whether a frame is a ping or a pong. */
export function isKeepAliveFrame (frame: unknown): boolean {
  return isObject(frame) && (frame.type === 'ping' || frame.type === 'pong')
}

/** The type of a frame for error messages. A missing type is shown as existing clients expect it. */
export function typeText (type: unknown): string {
  if (type === undefined || type === null) return 'None'
  if (typeof type === 'string') return type.slice(0, 100)
  return isShallow(type, maxShownDepth) ? JSON.stringify(type).slice(0, 100) : 'a deeply nested value'
}

/**
 * The JSON text of data that is passed on to other clients.
 * @throws invalid-input for data that is nested too deep; missing-data for none, or for a value without JSON text;
 * request-too-large over `maxBytes`
 */
export function payloadText (data: unknown, maxBytes: number): string {
  if (!isShallow(data, maxDataDepth)) throw problem('invalid-input', `Data may be nested at most ${maxDataDepth} levels deep`)
  const text: string | undefined = JSON.stringify(data)
  if (text === undefined) throw problem('missing-data', 'Data is missing')
  const isLarge = text.length > maxBytes || Buffer.byteLength(text) > maxBytes
  if (isLarge) throw problem('request-too-large', `Data may have at most ${maxBytes} bytes of JSON`)
  return text
}
