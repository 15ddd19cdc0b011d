/**
 * Makes of a registration what is stored: strings trimmed, numbers in strings read, empty things completed, unknown
 * members left out. What cannot be made right stays as it is, for the schema to refuse.
 */
import { AgentRegistration, AgentRequirements } from '../protocol/schemas/agent.js'
import { textFault } from '../protocol/schemas/common.js'
import { isObject } from '../lib/json.js'

type Members = Record<string, unknown>

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
  const text = value.trim().toLowerCase()
  if (['true', '1', 'yes', 'on'].includes(text)) return true
  return ['false', '0', 'no', 'off'].includes(text) ? false : value
}

/** Whether an item stays in a list: what is no text is kept, for the schema to refuse. */
const fits = (minLength: number, maxLength: number) => (item: unknown) => typeof item !== 'string' || textFault({ minLength, maxLength }, item) === undefined

/** Trimmed items; those that are blank or longer than `maxLength` are left out. */
function texts (value: unknown, maxLength = Infinity): unknown {
  if (value === null || value === undefined) return []
  if (!Array.isArray(value)) return value
  return value.map(trim).filter(fits(1, maxLength))
}

/** A list that is over its limit is refused as it came: leaving items out must not make it fit. */
function cut (value: unknown, maxItems: number, maxLength: number): unknown {
  return Array.isArray(value) && value.length > maxItems ? value : texts(value, maxLength)
}

function languages (value: unknown): unknown {
  if (!Array.isArray(value) || value.length > 20) return value ?? null
  const kept = value.map(lower).filter(fits(2, 5))
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

function known (value: unknown, properties: object): unknown {
  if (!isObject(value)) return value
  return Object.fromEntries(Object.keys(properties).filter(key => Object.hasOwn(value, key)).map(key => [key, value[key]]))
}

function configFields (value: unknown, properties: object): unknown {
  return Array.isArray(value) ? value.map(field => known(field, properties)) : value ?? []
}

function requirements (input: unknown): unknown {
  const value = fromJsonText(blankToNull(trim(input)))
  if (!isObject(value)) return value
  const { properties } = AgentRequirements
  return {
    system_requirements: cut(value.system_requirements, 50, 200),
    permissions: cut(value.permissions, 30, 100),
    dependencies: cut(value.dependencies, 100, 200),
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
  features: value => cut(value, 100, 100),
  max_tokens: toNumber,
  language_support: languages,
  rate_limit: toNumber,
  requirements,
  policy_tags: value => cut(value, 20, 50),
  ai_context: value => blankToNull(trim(value))
}

/** @returns an object with the members of `AgentRegistration` in their order, not validated */
export function normalizeRegistration (input: Members): Members {
  const result: Members = {}
  for (const field of Object.keys(AgentRegistration.properties)) {
    const value = (normalizers[field] ?? trim)(Object.hasOwn(input, field) ? input[field] : undefined)
    if (value !== undefined) result[field] = value
  }
  return result
}
