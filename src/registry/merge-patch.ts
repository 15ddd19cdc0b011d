import { isPoisonousKey } from '../protocol/schemas/common.js'
import { isObject } from './normalize.js'

/** JSON Merge Patch (RFC 7396): members of `patch` replace those of `target`, null removes, objects are merged. */
export function mergePatch (target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const result: Record<string, unknown> = isObject(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key]
    else result[key] = mergePatch(result[key], value)
  }
  return result
}

/** JSON Pointers of the members of a patch that would change the shape of what it is merged into. */
export function * poisonousMembers (patch: unknown, path = ''): Generator<string> {
  if (!isObject(patch)) return
  for (const [key, value] of Object.entries(patch)) {
    const pointer = `${path}/${key}`
    if (isPoisonousKey(key)) yield pointer
    else yield * poisonousMembers(value, pointer)
  }
}
