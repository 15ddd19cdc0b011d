import { problem } from '../errors.js'
import { isShallow } from '../lib/json.js'

/** Whoever reads it may do so by recursion. */
const maxDepth = 64

/**
 * JSON text of what somebody wants to be passed on.
 * @throws invalid-input for what is nested too deep; missing-data for nothing, or what JSON cannot say; request-too-large over `maxBytes`
 */
export function payloadText (data: unknown, maxBytes: number): string {
  if (!isShallow(data, maxDepth)) throw problem('invalid-input', `Data is nested at most ${maxDepth} levels deep`)
  const text = JSON.stringify(data) as string | undefined
  if (text === undefined) throw problem('missing-data', 'There is no data')
  if (text.length > maxBytes || Buffer.byteLength(text) > maxBytes) throw problem('request-too-large', `Data has at most ${maxBytes} bytes of JSON`)
  return text
}
