import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'

/** Maximum length of a value on one line. */
const maxInlineLength = 140
const indent = '  '

function findRoot (folder: string): string {
  return existsSync(join(folder, 'package.json')) ? folder : findRoot(dirname(folder))
}

export const root = findRoot(dirname(fileURLToPath(import.meta.url)))
const folder = join(root, 'test/snapshots')

export type JsonObject = Record<string, unknown>

export function isObject (value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** `type` comes first, so that a diff shows the frame; others are in alphabetical order. */
function compareKeys (a: string, b: string): number {
  if (a === b || a === 'type') return a === b ? 0 : -1
  return b === 'type' || a > b ? 1 : -1
}

/** A copy of `value` with sorted keys. */
export function sortKeys (value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys)
  if (!isObject(value)) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => compareKeys(a, b)).map(([key, child]) => [key, sortKeys(child)]))
}

function inline (value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(inline).join(', ')}]`
  if (!isObject(value)) return JSON.stringify(value)
  const members = Object.entries(value).map(([key, child]) => `${JSON.stringify(key)}: ${inline(child)}`)
  return members.length === 0 ? '{}' : `{ ${members.join(', ')} }`
}

/** JSON with short values on one line each, so that a diff shows whole frames and responses. */
export function formatJson (value: unknown, margin = ''): string {
  const line = inline(value)
  if (line.length + margin.length <= maxInlineLength || typeof value !== 'object' || value === null) return line
  const inner = margin + indent
  if (Array.isArray(value)) return `[\n${value.map(child => inner + formatJson(child, inner)).join(',\n')}\n${margin}]`
  const members = Object.entries(value).map(([key, child]) => `${inner}${JSON.stringify(key)}: ${formatJson(child, inner)}`)
  return `{\n${members.join(',\n')}\n${margin}}`
}

/** Compares `text` with the snapshot file `name`, or writes the file if `UPDATE_SNAPSHOTS=1`. */
export function matchText (t: Test, name: string, text: string): void {
  const path = join(folder, name)
  if (process.env.UPDATE_SNAPSHOTS === '1') {
    mkdirSync(folder, { recursive: true })
    writeFileSync(path, text)
  }
  const expected = existsSync(path) ? readFileSync(path, 'utf8') : ''
  t.equal(text, expected, `${name} is as committed (UPDATE_SNAPSHOTS=1 rewrites it)`)
}

/** Compares `value` with the JSON file `name`, in any order of keys. */
export function matchJson (t: Test, name: string, value: unknown): void {
  matchText(t, name, `${formatJson(sortKeys(value))}\n`)
}
