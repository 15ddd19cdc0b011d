import { Kind, type TSchema } from '@sinclair/typebox'

/** Marks a string that is not trimmed: secrets may begin or end with a space. */
export const verbatim = { verbatim: true }

/** Marks a union of names that are case-insensitive. */
export const lowercase = { lowercase: true }

/** The words for booleans in queries, headers, bodies and environment variables, in lower case. */
export const booleanWords: ReadonlyMap<string, boolean> = new Map([
  ['true', true], ['1', true], ['yes', true], ['on', true],
  ['false', false], ['0', false], ['no', false], ['off', false]
])

function coerceString (value: unknown, schema: TSchema): unknown {
  return typeof value === 'string' && !schema.verbatim ? value.trim() : value
}

function coerceInteger (value: unknown): unknown {
  return typeof value === 'string' && /^\s*-?\d+(\.\d+)?\s*$/.test(value) ? Number(value) : value
}

/** Accepts exponents, which many languages write for very small and very large numbers. */
function coerceNumber (value: unknown): unknown {
  return typeof value === 'string' && /^\s*-?\d+(\.\d+)?(e[+-]?\d+)?\s*$/i.test(value) ? Number(value) : value
}

function coerceBoolean (value: unknown): unknown {
  if (typeof value !== 'string') return value
  return booleanWords.get(value.trim().toLowerCase()) ?? value
}

function coerceArray (value: unknown, schema: TSchema): unknown {
  const list = typeof value === 'string' ? [value] : value
  return Array.isArray(list) ? list.map(item => coerce(schema.items, item)) : list
}

function coerceObject (value: unknown, schema: TSchema): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const result: Record<string, unknown> = { ...value }
  for (const [key, property] of Object.entries<TSchema>(schema.properties ?? {})) {
    const given = Object.hasOwn(result, key) ? result[key] : undefined
    const coerced = given === undefined ? property.default : coerce(property, given)
    if (coerced !== undefined) result[key] = coerced
  }
  return result
}

/** Coerces a nullable value like its other type, and converts case-insensitive names to lower case. */
function coerceUnion (value: unknown, schema: TSchema): unknown {
  if (schema.lowercase && typeof value === 'string') return value.trim().toLowerCase()
  const variants: TSchema[] = schema.anyOf
  const [inner, ...others] = variants.filter(({ type }) => type !== 'null')
  return inner && others.length === 0 && value !== null ? coerce(inner, value) : value
}

const coercions: Record<string, (value: unknown, schema: TSchema) => unknown> = {
  String: coerceString,
  Text: coerceString,
  Integer: coerceInteger,
  Number: coerceNumber,
  Boolean: coerceBoolean,
  Array: coerceArray,
  Object: coerceObject,
  Union: coerceUnion
}

/**
 * Coerces text to the types of a schema: reads numbers and booleans in strings, makes a list of a single value, trims strings
 * and sets defaults. Values that cannot be coerced stay, so that the schema refuses them.
 */
export function coerce (schema: TSchema, value: unknown): unknown {
  return coercions[schema[Kind]]?.(value, schema) ?? value
}
