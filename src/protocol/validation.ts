import type { Static, TSchema } from '@sinclair/typebox'
import { TypeCompiler, type TypeCheck } from '@sinclair/typebox/compiler'
import { ValueErrorType, type ValueError } from '@sinclair/typebox/errors'
import { validationFailed, type FieldError } from '../errors.js'
import { textFault } from './schemas/common.js'

const maxErrors = 50
const compiled = new WeakMap<TSchema, TypeCheck<TSchema>>()

/** The compiled check of a schema, made once. */
export function checkerOf (schema: TSchema): TypeCheck<TSchema> {
  const known = compiled.get(schema)
  if (known) return known
  const checker = TypeCompiler.Compile(schema)
  compiled.set(schema, checker)
  return checker
}

function messageOf ({ type, schema, value, message }: ValueError): string {
  if (type === ValueErrorType.Kind) return textFault(schema, value) ?? message
  return type === ValueErrorType.Union ? `Expected one of ${(schema.anyOf as TSchema[]).map(({ type }) => type).join(', ')}` : message
}

/** A choice of types is told as what is wrong with the one that was meant, a choice of names as these names. */
function * precise (errors: Iterable<ValueError>): Generator<{ path: string, message: string }> {
  for (const error of errors) {
    const variants = (error.type === ValueErrorType.Union ? error.schema.anyOf : []) as TSchema[]
    const meant = variants.findIndex(({ type }) => type !== 'null')
    if (variants.length === 2 && variants.some(({ type }) => type === 'null')) yield * precise(error.errors[meant]!)
    else if (variants.length > 0 && variants.every(variant => 'const' in variant)) yield { path: error.path, message: `Expected one of ${variants.map(variant => variant.const).join(', ')}` }
    else yield { path: error.path, message: messageOf(error) }
  }
}

/** One entry for each field that is wrong, none when all is right. */
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

/** Whether `value` matches a schema. */
export function matches<T extends TSchema> (schema: T, value: unknown): value is Static<T> {
  return checkerOf(schema).Check(value)
}

/** @throws validation-failed with one entry per wrong field */
export function assertValid<T extends TSchema> (schema: T, value: unknown): asserts value is Static<T> {
  const errors = fieldErrors(schema, value)
  if (errors.length > 0) throw validationFailed(errors)
}
