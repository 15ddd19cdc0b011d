import { isObject, sortKeys } from './snapshot.js'

/** Texts of ARCP that clients depend on. All other texts may change, and are `<text>` in snapshots. */
const contractTexts = new Set([
  'Authentication timeout', 'Send your authentication token', 'Authentication successful', 'Token required', 'Authentication required',
  'Invalid token', 'Insufficient permissions', 'Invalid JSON', 'Authentication failed',
  'Auth frame required', 'Authentication token required', 'Admin role required',
  'Connected to ARCP Public API WebSocket',
  'Fresh data sent', 'Agents data sent', 'Backend logs cleared successfully', 'Backend alerts cleared successfully'
])

/** Texts of ARCP in `error` frames, and those sent by a scripted client. */
const errorText = /^(said |Unknown message type: |Invalid JSON format$|Failed to get discovery data$)/
const ownText = /^said /
/** Maximum length of a string that is recorded in full. */
const maxLength = 200

/** Members with texts for people. */
const textMembers = new Set(['message', 'title', 'detail', 'error'])

/** Members whose values differ between runs. */
const variableMembers = new Set([
  'timestamp', 'serverTime', 'expiresAt', 'deadline', 'connectionId', 'revision', 'incarnation', 'epoch', 'digest', 'rid', 'token', 'id',
  'retryAfterMs', 'registered_at', 'last_seen', 'last_active', 'last_updated', 'frontend_timestamp', 'since', 'request_id', 'client_ip'
])

/** Measured members: only their types are compared. */
const measuredMembers = new Set(['resource_utilization', 'process', 'registry'])

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const formats: ReadonlyArray<readonly [format: RegExp, placeholder: string]> = [
  [/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, '<date-time>'],
  [uuid, '<uuid>'],
  [/^eyJ[\w-]+\.[\w-]+\.[\w-]+$/, '<jwt>'],
  [/^[\w-]+\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, '<rid>'],
  [/^[\w-]+:\d+$/, '<revision>']
]

export const textOf = (text: string) => contractTexts.has(text) || ownText.test(text) ? text : '<text>'

export const shorten = (text: string) => text.length > maxLength ? `${text[0]} × ${text.length}` : text

/** The type of a value other than an object. */
export function typeOf (value: unknown): unknown {
  if (typeof value === 'string') return formats.find(([format]) => format.test(value))?.[1] ?? '<string>'
  return value === null ? null : `<${typeof value}>`
}

/** Merges two shapes; a member that is missing in one of them gets a `?`. */
function merge (a: unknown, b: unknown): unknown {
  if (a === undefined || b === undefined) return a ?? b
  if (JSON.stringify(a) === JSON.stringify(b)) return a
  if (Array.isArray(a) && Array.isArray(b)) return mergeAll([...a, ...b])
  if (isObject(a) && isObject(b)) return mergeObjects(a, b)
  const kinds = new Set([...String(a).split(' | '), ...String(b).split(' | ')])
  return [...kinds].sort().join(' | ')
}

const memberOf = (shape: Record<string, unknown>, name: string) => name in shape ? shape[name] : shape[`${name}?`]

function mergeObjects (a: Record<string, unknown>, b: Record<string, unknown>): unknown {
  const names = new Set([...Object.keys(a), ...Object.keys(b)].map(name => name.replace(/\?$/, '')))
  return Object.fromEntries([...names].map(name => {
    const isOptional = !(name in a && name in b)
    return [isOptional ? `${name}?` : name, merge(memberOf(a, name), memberOf(b, name))]
  }))
}

/** The shape of array elements: at most one. */
function mergeAll (shapes: readonly unknown[]): unknown[] {
  return shapes.length === 0 ? [] : [shapes.reduce((merged, shape) => merge(merged, shape), undefined)]
}

/** The shape of a JSON value, with types in place of values and one element per array. */
export function shapeOf (value: unknown): unknown {
  if (Array.isArray(value)) return mergeAll(value.map(shapeOf))
  if (!isObject(value)) return typeOf(value)
  // The details of an alert depend on its rule.
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, key === 'details' ? '<object>' : shapeOf(child)]))
}

/** The common shape of frames or bodies. */
export const sharedShape = (values: readonly unknown[]) => sortKeys(mergeAll(values.map(shapeOf))[0])

function normaliseMember (key: string, value: unknown): unknown {
  if (measuredMembers.has(key)) return shapeOf(value)
  if (variableMembers.has(key) && !isObject(value)) return typeOf(value)
  return textMembers.has(key) && typeof value === 'string' ? textOf(value) : normalise(value)
}

/** A frame with placeholders for values that differ between runs and for texts that may change. */
export function normalise (value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normalise)
  if (typeof value === 'string') return uuid.test(value) ? '<uuid>' : shorten(value)
  if (!isObject(value)) return value
  const frame = Object.fromEntries(Object.entries(value).map(([key, child]) => [key, normaliseMember(key, child)]))
  if (value.type === 'error') frame.message = errorText.test(String(value.message)) ? value.message : '<text>'
  return frame
}

const isRecord = (value: unknown) => isObject(value) && 'agent_id' in value && 'public_key' in value

/** Records the first agent record in full, and the differences of all others. */
export class RecordAbbreviator {
  #first: Record<string, unknown> | undefined

  abbreviate (value: unknown): unknown {
    if (Array.isArray(value)) return value.map(child => this.abbreviate(child))
    if (!isObject(value)) return value
    if (isRecord(value)) return this.#record(value)
    return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, this.abbreviate(child)]))
  }

  /** The record with which others are compared. */
  get first (): unknown { return this.#first }

  #record (record: Record<string, unknown>): Record<string, unknown> {
    const first = this.#first ??= record
    const { agent_id: id } = record
    const expected: Record<string, unknown> = isObject(first.metrics) ? { ...first, metrics: { ...first.metrics, agent_id: id } } : first
    const absent = Object.keys(first).filter(key => !(key in record))
    const differing = Object.entries(record).filter(([key, child]) => JSON.stringify(child) !== JSON.stringify(expected[key]))
    return { record: id, ...Object.fromEntries(differing.filter(([key]) => key !== 'agent_id')), ...(absent.length > 0 && { absent }) }
  }
}
