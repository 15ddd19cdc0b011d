import { validationFailed, type FieldError } from '../errors.js'
import { booleanWords } from '../lib/coerce.js'
import { isJson, isObject, isPoisonousKey, isShallow } from '../lib/json.js'
import { AgentRegistration, AgentRequirements } from '../protocol/schemas/agent.js'
import { isReservedAgentId, textFault } from '../protocol/schemas/common.js'
import { fieldErrors, matches } from '../protocol/validation.js'

const maxDepth = 32

export interface RegistrationRules {
  /** Agent types that may register, in any case; `*` allows all. */
  allowedAgentTypes: readonly string[]
  /** Maximum size of a registration as JSON. */
  maxRecordBytes: number
}

/** A valid registration, and the JSON that is stored for it. */
export interface ParsedRegistration { readonly registration: AgentRegistration, readonly body: string }

/**
 * Parses untrusted input, whether it comes over HTTP, from the host application or from a patch.
 * @throws validation-failed with one entry per wrong field
 */
export function parseRegistration (input: unknown, rules: RegistrationRules): ParsedRegistration {
  assertTree(input)
  const value = normalizeRegistration(input)
  // Again, because `requirements` may have been JSON text.
  assertTree(value)
  const isValid = matches(AgentRegistration, value)
  const allErrors = [...ruleErrors(value, rules), ...(isValid ? [] : fieldErrors(AgentRegistration, value))]
  const errors = new Map(allErrors.map(error => [error.path, error]))
  if (!isValid || errors.size > 0) throw validationFailed([...errors.values()])
  if (!isJson(value)) throw validationFailed([{ path: '', message: 'Expected finite numbers and values that JSON can represent' }])
  const body = JSON.stringify(value)
  if (Buffer.byteLength(body) > rules.maxRecordBytes) {
    throw validationFailed([{ path: '', message: `The record is larger than ${rules.maxRecordBytes} bytes` }])
  }
  return { registration: value, body }
}

/** @throws validation-failed for a value that is not an object, or is nested so deep that recursion would overflow the stack */
export function assertTree (input: unknown): asserts input is Record<string, unknown> {
  if (!isObject(input)) throw validationFailed([{ path: '', message: 'Expected object' }])
  if (!isShallow(input, maxDepth)) throw validationFailed([{ path: '', message: `Nested deeper than ${maxDepth} levels` }])
}

/** Rules that the schema cannot express. */
function * ruleErrors (value: Record<string, unknown>, rules: RegistrationRules): Generator<FieldError> {
  if (typeof value.agent_id === 'string' && isReservedAgentId(value.agent_id)) yield { path: '/agent_id', message: 'This name is reserved' }
  if (typeof value.agent_type === 'string') yield * typeErrors(value.agent_type, rules.allowedAgentTypes)
  yield * keyErrors('/capabilities', value.capabilities)
  if (isObject(value.metadata)) yield * keyErrors('/metadata', Object.keys(value.metadata))
  if (isObject(value.requirements)) yield * requirementErrors(value.requirements)
}

function * typeErrors (type: string, allowed: readonly string[]): Generator<FieldError> {
  if (isPoisonousKey(type)) yield { path: '/agent_type', message: 'This name is reserved' }
  else if (!allowed.some(name => name === '*' || name.toLowerCase() === type.toLowerCase())) {
    yield { path: '/agent_type', message: `Expected one of ${allowed.join(', ')}` }
  }
}

function * keyErrors (path: string, keys: unknown): Generator<FieldError> {
  if (!Array.isArray(keys)) return
  for (const key of keys) if (isPoisonousKey(key)) yield { path: `${path}/${key}`, message: 'This name is reserved' }
}

function * requirementErrors (requirements: Record<string, unknown>): Generator<FieldError> {
  const { network_ports: ports, required_fields: required, optional_fields: optional } = requirements
  for (const [index, port] of asArray(ports).entries()) {
    if (!isPortRange(port)) yield { path: `/requirements/network_ports/${index}`, message: 'Expected ports from 1 to 65535' }
  }
  yield * patternErrors('/requirements/required_fields', required)
  yield * patternErrors('/requirements/optional_fields', optional)
  if (isObject(requirements.user_configuration)) {
    yield * keyErrors('/requirements/user_configuration', Object.keys(requirements.user_configuration))
  }
}

const asArray = (value: unknown): unknown[] => Array.isArray(value) ? value : []

function isPortRange (text: unknown): boolean {
  return typeof text === 'string' && text.split('-').every(part => Number(part) >= 1 && Number(part) <= 65_535)
}

function * patternErrors (path: string, fields: unknown): Generator<FieldError> {
  for (const [index, field] of asArray(fields).entries()) {
    if (isObject(field) && typeof field.validation === 'string' && !isRegExp(field.validation)) {
      yield { path: `${path}/${index}/validation`, message: 'Expected a regular expression' }
    }
  }
}

function isRegExp (source: string): boolean {
  try {
    return new RegExp(source) instanceof RegExp
  } catch {
    return false
  }
}

/** JSON Pointers of the members of a patch that would change the prototype of the merged object. */
export function * poisonousMembers (patch: unknown, path = ''): Generator<string> {
  if (!isObject(patch)) return
  for (const [key, value] of Object.entries(patch)) {
    const pointer = `${path}/${key}`
    if (isPoisonousKey(key)) yield pointer
    else yield * poisonousMembers(value, pointer)
  }
}

const trim = (value: unknown) => typeof value === 'string' ? value.trim() : value
const lower = (value: unknown) => typeof value === 'string' ? value.trim().toLowerCase() : value
const blankToNull = (value: unknown) => value === '' || value === undefined ? null : value

function toNumber (value: unknown): unknown {
  if (typeof value !== 'string' || value.trim() === '') return blankToNull(trim(value))
  const number = Number(value)
  return Number.isFinite(number) ? number : value
}

function toBoolean (value: unknown): unknown {
  if (typeof value !== 'string') return value
  return booleanWords.get(value.trim().toLowerCase()) ?? value
}

/** Keeps strings of this length, and values of other types, which the schema refuses later. */
const hasLength = (minLength: number, maxLength: number) => (item: unknown) =>
  typeof item !== 'string' || textFault({ minLength, maxLength }, item) === undefined

/** Trims the items of a list. Omits blank items and those longer than `maxLength`. */
function texts (value: unknown, maxLength = Infinity): unknown {
  if (value === null || value === undefined) return []
  if (!Array.isArray(value)) return value
  return value.map(trim).filter(hasLength(1, maxLength))
}

/** Does not change a list with too many items, so that the schema refuses it even if some items would be omitted. */
function limitedTexts (value: unknown, maxItems: number, maxLength: number): unknown {
  return Array.isArray(value) && value.length > maxItems ? value : texts(value, maxLength)
}

function languages (value: unknown): unknown {
  if (!Array.isArray(value) || value.length > 20) return value ?? null
  const kept = value.map(lower).filter(hasLength(2, 5))
  return kept.length > 0 ? kept : null
}

function fromJsonText (value: unknown): unknown {
  if (typeof value !== 'string') return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

function pick (value: unknown, properties: object): unknown {
  if (!isObject(value)) return value
  return Object.fromEntries(Object.keys(properties).filter(key => Object.hasOwn(value, key)).map(key => [key, value[key]]))
}

function configFields (value: unknown, properties: object): unknown {
  return Array.isArray(value) ? value.map(field => pick(field, properties)) : value ?? []
}

function requirements (input: unknown): unknown {
  const value = fromJsonText(blankToNull(trim(input)))
  if (!isObject(value)) return value
  const { properties } = AgentRequirements
  return {
    system_requirements: limitedTexts(value.system_requirements, 50, 200),
    permissions: limitedTexts(value.permissions, 30, 100),
    dependencies: limitedTexts(value.dependencies, 100, 200),
    minimum_system_version: blankToNull(trim(value.minimum_system_version)),
    minimum_memory_mb: toNumber(value.minimum_memory_mb),
    minimum_disk_space_mb: toNumber(value.minimum_disk_space_mb),
    requires_internet: toBoolean(value.requires_internet ?? true),
    network_ports: texts(value.network_ports),
    required_fields: configFields(value.required_fields, properties.required_fields.items.properties),
    optional_fields: configFields(value.optional_fields, properties.optional_fields.items.properties),
    user_configuration: value.user_configuration ?? {},
    schema_version: trim(value.schema_version ?? '1.0')
  }
}

const normalizers: Record<string, (value: unknown) => unknown> = {
  capabilities: value => value === undefined || !Array.isArray(value) ? value : texts(value),
  metadata: value => value,
  communication_mode: lower,
  features: value => limitedTexts(value, 100, 100),
  max_tokens: toNumber,
  language_support: languages,
  rate_limit: toNumber,
  requirements,
  policy_tags: value => limitedTexts(value, 20, 50),
  ai_context: value => blankToNull(trim(value))
}

/**
 * Normalizes a registration before it is validated: trims strings, reads numbers and booleans in strings, sets defaults and
 * drops unknown members. Values that cannot be normalized stay, so that the schema refuses them.
 * @returns the members of `AgentRegistration` in their order
 */
function normalizeRegistration (input: Record<string, unknown>): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const field of Object.keys(AgentRegistration.properties)) {
    const value = (normalizers[field] ?? trim)(Object.hasOwn(input, field) ? input[field] : undefined)
    if (value !== undefined) result[field] = value
  }
  return result
}
