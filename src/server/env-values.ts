import type { TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'

/** What became of the text of a variable: a value of its schema's type, or what is wrong with it. */
export type Reading = { value: unknown } | { wrong: string }

const words = new Map([['true', true], ['1', true], ['yes', true], ['on', true], ['false', false], ['0', false], ['no', false], ['off', false]])

function literalsOf (schema: TSchema): string[] {
  const branches: TSchema[] = schema.anyOf ?? []
  return branches.flatMap(branch => typeof branch.const === 'string' ? [branch.const] : [])
}

function branchOf (schema: TSchema, type: string): TSchema | undefined {
  const branches: TSchema[] = schema.anyOf ?? [schema]
  return branches.find(branch => branch.type === type)
}

function readNumber (schema: TSchema, text: string, factor: number): Reading {
  if (!/^[+-]?\d+(\.\d+)?$/.test(text.trim())) return { wrong: 'is not a number' }
  // Seven digits after the point: 0.2 × 9000 and its like must not fail for a rounding error of the multiplication.
  const value = Math.round(Number(text) * factor * 1e7) / 1e7
  if (schema.minimum !== undefined && value < schema.minimum) return { wrong: `is too small, the least is ${schema.minimum / factor}` }
  if (schema.maximum !== undefined && value > schema.maximum) return { wrong: `is too large, the most is ${schema.maximum / factor}` }
  if (schema.type === 'integer' && !Number.isInteger(value)) return { wrong: `is not a whole multiple of ${1 / factor}` }
  return { value }
}

function readBoolean (text: string): Reading {
  const value = words.get(text.trim().toLowerCase())
  return value === undefined ? { wrong: `is not one of ${[...words.keys()].join(', ')}` } : { value }
}

function readLiteral (literals: string[], text: string, aliases: Record<string, string> = {}): Reading {
  const word = text.trim().toLowerCase()
  const wanted = aliases[word] ?? word
  const value = literals.find(literal => literal.toLowerCase() === wanted)
  return value === undefined ? { wrong: `is not one of ${literals.join(', ')}` } : { value }
}

function isJsonList (text: string): boolean {
  return text.trimStart().startsWith('[')
}

function readJsonList (text: string): Reading {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return { wrong: 'begins with [ but is not a JSON list' }
  }
}

function readList (text: string): Reading {
  if (isJsonList(text)) return readJsonList(text)
  return { value: text.split(',').map(entry => entry.trim()).filter(entry => entry !== '') }
}

function textComplaint (schema: TSchema, value: string): string | null {
  if (value.length < (schema.minLength ?? 0)) return `is shorter than ${schema.minLength} characters`
  if (value.length > (schema.maxLength ?? Infinity)) return `is longer than ${schema.maxLength} characters`
  if (schema.pattern !== undefined && !new RegExp(schema.pattern).test(value)) return 'has not the right form'
  return null
}

function listComplaint (schema: TSchema, value: unknown[]): string | null {
  if (value.length < (schema.minItems ?? 0)) return 'is an empty list'
  for (const [index, entry] of value.entries()) {
    const found = complaint(schema.items, entry)
    if (found !== null) return `entry ${index + 1} ${found}`
  }
  return null
}

function objectComplaint (schema: TSchema, value: unknown): string | null {
  const found = Value.Errors(schema, Value.Default(schema, structuredClone(value))).First()
  return found === undefined ? null : `${found.path.slice(1) || 'value'}: ${found.message}`
}

/** What is wrong with `value`, without repeating it: it may be a secret. */
function complaint (schema: TSchema, value: unknown): string | null {
  const type = Array.isArray(value) ? 'array' : typeof value
  const branch = branchOf(schema, type)
  if (branch === undefined) return literalsOf(schema).length > 0 ? null : 'has the wrong type'
  if (Array.isArray(value)) return listComplaint(branch, value)
  if (typeof value === 'string') return textComplaint(branch, value)
  return objectComplaint(branch, value)
}

function readText (schema: TSchema, text: string): Reading {
  const literals = literalsOf(schema)
  if (literals.length > 0) return readLiteral(literals, text, schema.envAliases)
  if (branchOf(schema, 'boolean') && words.has(text.trim().toLowerCase())) return readBoolean(text)
  const plain = branchOf(schema, 'string')
  if (!branchOf(schema, 'array')) return { value: text }
  // Where one string is allowed too (a secret), a comma belongs to it: only JSON makes a list.
  return plain && !isJsonList(text) ? { value: text } : readList(text)
}

/**
 * The value that the text of an environment variable stands for.
 * @param schema schema of the setting: integer, number, boolean, string, array, or a union of them or of literals
 * @param factor what one unit of the text is in the setting's own unit
 */
export function readValue (schema: TSchema, text: string, factor = 1): Reading {
  if (schema.type === 'integer' || schema.type === 'number') return readNumber(schema, text, factor)
  if (schema.type === 'boolean') return readBoolean(text)
  const reading = readText(schema, text)
  const wrong = 'value' in reading ? complaint(schema, reading.value) : null
  return wrong === null ? reading : { wrong }
}
