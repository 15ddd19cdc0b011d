import sjson from 'secure-json-parse'
import { problem } from '../errors.js'
import { isShallow } from '../lib/json.js'

export interface Frame { type: string, requestId?: string, [member: string]: unknown }

const maxRequestId = 128
/** Receivers may read the data of a message by recursion. */
const maxDataDepth = 64
/** Nothing deeper is written into a message: what is too deep would end the stack. */
const maxShownDepth = 20

/** Stands for a frame with members that would poison an object, which are as wrong as text that is not JSON. */
export class PoisonousFrame {
  readonly requestId: string | undefined

  constructor (frame: unknown) { this.requestId = requestIdOf(frame) }
}

const forbidding = { protoAction: 'error', constructorAction: 'error' } as const
const removing = { protoAction: 'remove', constructorAction: 'remove' } as const

/** @returns undefined for text that is not JSON */
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

export function isFrameLike (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function requestIdOf (frame: unknown): string | undefined {
  if (!isFrameLike(frame) || typeof frame.requestId !== 'string') return undefined
  return frame.requestId.length <= maxRequestId ? frame.requestId : undefined
}

/** A ping or a pong, which says no more than that somebody is there. */
export function isKeepAliveFrame (frame: unknown): boolean {
  return isFrameLike(frame) && (frame.type === 'ping' || frame.type === 'pong')
}

/** A missing type is shown as existing clients know it. */
export function typeText (type: unknown): string {
  if (type === undefined || type === null) return 'None'
  if (typeof type === 'string') return type.slice(0, 100)
  return isShallow(type, maxShownDepth) ? JSON.stringify(type).slice(0, 100) : 'something deep'
}

/**
 * The JSON text of a payload.
 * @throws invalid-input for data that is nested too deep; missing-data without data, or for a value that JSON cannot represent;
 * request-too-large for more than `maxBytes`
 */
export function payloadText (data: unknown, maxBytes: number): string {
  if (!isShallow(data, maxDataDepth)) throw problem('invalid-input', `Data is nested at most ${maxDataDepth} levels deep`)
  const text: string | undefined = JSON.stringify(data)
  if (text === undefined) throw problem('missing-data', 'There is no data')
  if (text.length > maxBytes || Buffer.byteLength(text) > maxBytes) throw problem('request-too-large', `Data has at most ${maxBytes} bytes of JSON`)
  return text
}
