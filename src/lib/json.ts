/** Whether a value is an object, but neither null nor an array. */
export function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const poisonousKeys: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype'])

/** Whether an assignment to this member could change the prototype of an object. */
export function isPoisonousKey (key: string): boolean {
  return poisonousKeys.has(key)
}

/** Whether `value` is nested at most `limit` levels deep. Never recurses deeper than `limit` itself. */
export function isShallow (value: unknown, limit: number): boolean {
  if (limit < 0) return false
  if (typeof value !== 'object' || value === null) return true
  return Object.values(value).every(item => isShallow(item, limit - 1))
}

/** Whether JSON can represent all of `value`, a tree. `JSON.stringify` would turn non-finite numbers into null. */
export function isJson (value: unknown): boolean {
  const left: unknown[] = [value]
  while (left.length > 0) {
    const item = left.pop()
    if (typeof item === 'number' ? !Number.isFinite(item) : ['bigint', 'function', 'symbol'].includes(typeof item)) return false
    if (typeof item === 'object' && item !== null) for (const inner of Object.values(item)) left.push(inner)
  }
  return true
}

/** JSON Merge Patch (RFC 7396): members of `patch` replace members of `target`, null removes, objects are merged. */
export function mergePatch (target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const result: Record<string, unknown> = isObject(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key]
    else result[key] = mergePatch(result[key], value)
  }
  return result
}
