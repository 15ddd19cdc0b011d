import type { Static, TSchema } from '@sinclair/typebox'
import { TypeCompiler, type TypeCheck } from '@sinclair/typebox/compiler'
import { ValueErrorType, type ValueError } from '@sinclair/typebox/errors'
import sjson from 'secure-json-parse'
import { problem, validationFailed, type FieldError } from '../errors.js'
import { isObject, isShallow } from '../lib/json.js'
import { textFault } from './schemas/common.js'

const maxErrors = 50
const compiled = new WeakMap<TSchema, TypeCheck<TSchema>>()

/** Returns the compiled check of a schema. Each schema is compiled once. */
export function checkerOf (schema: TSchema): TypeCheck<TSchema> {
  const known = compiled.get(schema)
  if (known) return known
  const checker = TypeCompiler.Compile(schema)
  compiled.set(schema, checker)
  return checker
}

function messageOf ({ type, schema, value, message }: ValueError): string {
  if (type === ValueErrorType.Kind) return textFault(schema, value) ?? message
  if (type !== ValueErrorType.Union) return message
  const variants: TSchema[] = schema.anyOf
  return `Expected one of ${variants.map(variant => variant.type).join(', ')}`
}

/**
 * Replaces the errors of unions with more precise ones: the errors of the non-null type for a nullable type, the list of allowed
 * values for a union of literals.
 */
function * precise (errors: Iterable<ValueError>): Generator<{ path: string, message: string }> {
  for (const error of errors) {
    const { path } = error
    const variants: TSchema[] = error.type === ValueErrorType.Union ? error.schema.anyOf : []
    const isNullable = variants.length === 2 && variants.some(({ type }) => type === 'null')
    const ofValue = isNullable ? error.errors[variants.findIndex(({ type }) => type !== 'null')] : undefined
    const areLiterals = variants.length > 0 && variants.every(variant => 'const' in variant)
    if (ofValue) yield * precise(ofValue)
    else if (areLiterals) yield { path, message: `Expected one of ${variants.map(variant => variant.const).join(', ')}` }
    else yield { path, message: messageOf(error) }
  }
}

/** @returns one entry per invalid field, an empty array for a valid value */
export function fieldErrors (schema: TSchema, value: unknown): FieldError[] {
  const checker = checkerOf(schema)
  if (checker.Check(value)) return []
  const byPath = new Map<string, string>()
  for (const { path, message } of precise(checker.Errors(value))) {
    if (byPath.size === maxErrors) break
    if (!byPath.has(path)) byPath.set(path, message)
  }
  return [...byPath].map(([path, message]) => ({ path, message }))
}

/** Whether a value matches a schema. */
export function matches<T extends TSchema> (schema: T, value: unknown): value is Static<T> {
  return checkerOf(schema).Check(value)
}

/** @throws validation-failed with one entry per invalid field */
export function assertValid<T extends TSchema> (schema: T, value: unknown): asserts value is Static<T> {
  const errors = fieldErrors(schema, value)
  if (errors.length > 0) throw validationFailed(errors)
}

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
