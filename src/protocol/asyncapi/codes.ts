import { closeMeanings, errorMeanings, type Meaning } from '../code-meanings.js'
import { closeCodes, errorCodes } from '../codes.js'
import type { Json, JsonObject } from './components.js'

const described = (code: Json, { meaning, advice }: Meaning): JsonObject => ({ const: code, description: meaning, ...(advice && { 'x-advice': advice }) })

/** Codes of `error` frames; `description` is what the member says of itself. */
export function errorCodeSchema (description: string): JsonObject {
  return { type: 'string', description, oneOf: errorCodes.map(code => described(code, errorMeanings[code])) }
}

/** Codes with which connections are closed. */
export function closeCodeSchema (): JsonObject {
  const codes = Object.entries(closeCodes) as Array<[keyof typeof closeCodes, number]>
  return { type: 'integer', description: 'Code of a close frame', oneOf: codes.map(([name, code]) => described(code, closeMeanings[name])) }
}
