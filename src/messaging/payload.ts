import { problem } from '../errors.js'

/**
 * JSON text of what somebody wants to be passed on.
 * @throws missing-data for nothing, or what JSON cannot say; request-too-large over `maxBytes`
 */
export function payloadText (data: unknown, maxBytes: number): string {
  const text = JSON.stringify(data) as string | undefined
  if (text === undefined) throw problem('missing-data', 'There is no data')
  if (text.length > maxBytes || Buffer.byteLength(text) > maxBytes) throw problem('request-too-large', `Data has at most ${maxBytes} bytes of JSON`)
  return text
}
