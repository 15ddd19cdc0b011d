import type { Static, TSchema } from '@sinclair/typebox'
import { TypeCompiler, type TypeCheck } from '@sinclair/typebox/compiler'
import { validationFailed, type FieldError } from './errors.js'

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

/** One entry for each field that is wrong, none when all is right. */
export function fieldErrors (schema: TSchema, value: unknown): FieldError[] {
  const checker = checkerOf(schema)
  if (checker.Check(value)) return []
  const byPath = new Map<string, string>()
  for (const { path, message } of checker.Errors(value)) {
    if (byPath.size === maxErrors) break
    if (!byPath.has(path)) byPath.set(path, message)
  }
  return [...byPath].map(([path, message]) => ({ path, message }))
}

/** @throws validation-failed with one entry per wrong field */
export function assertValid<T extends TSchema> (schema: T, value: unknown): asserts value is Static<T> {
  const errors = fieldErrors(schema, value)
  if (errors.length > 0) throw validationFailed(errors)
}

/** Whether `value` is nested no deeper than `limit`. Does not recurse: what is too deep would end the stack. */
export function isShallow (value: unknown, limit: number): boolean {
  let level: unknown[] = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > limit) return false
    level = level.flatMap(item => typeof item === 'object' && item !== null ? Object.values(item) : [])
  }
  return true
}
