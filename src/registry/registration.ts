import { validationFailed, type FieldError } from '../errors.js'
import { AgentRegistration } from '../protocol/schemas/agent.js'
import { isPoisonousKey, isReservedAgentId } from '../protocol/schemas/common.js'
import { isJson, isObject, isShallow } from '../lib/json.js'
import { fieldErrors } from '../protocol/validation.js'
import { normalizeRegistration } from './normalize.js'

const maxDepth = 32

export interface RegistrationRules {
  /** Values of agent_type that may register; `*` allows all. */
  allowedAgentTypes: readonly string[]
  /** Bytes of the registration as JSON. */
  maxRecordBytes: number
}

/** A registration that keeps every rule, and the JSON that is stored of it. */
export interface ParsedRegistration { readonly registration: AgentRegistration, readonly body: string }

/**
 * Makes a registration of untrusted input, the same way whether it came over HTTP, from the host or from a patch.
 * @throws validation-failed with one entry per wrong field
 */
export function parseRegistration (input: unknown, rules: RegistrationRules): ParsedRegistration {
  assertTree(input)
  const value = normalizeRegistration(input)
  // Again: requirements may have come as JSON text.
  assertTree(value)
  const errors = new Map([...ruleErrors(value, rules), ...fieldErrors(AgentRegistration, value)].map(error => [error.path, error]))
  if (errors.size > 0) throw validationFailed([...errors.values()])
  if (!isJson(value)) throw validationFailed([{ path: '', message: 'Expected finite numbers and nothing that JSON cannot say' }])
  const body = JSON.stringify(value)
  if (Buffer.byteLength(body) > rules.maxRecordBytes) {
    throw validationFailed([{ path: '', message: `The record is larger than ${rules.maxRecordBytes} bytes` }])
  }
  return { registration: value as AgentRegistration, body }
}

/** @throws validation-failed for what is no object, or nested so deep that it would end the stack */
export function assertTree (input: unknown): asserts input is Record<string, unknown> {
  if (!isObject(input)) throw validationFailed([{ path: '', message: 'Expected object' }])
  if (!isShallow(input, maxDepth)) throw validationFailed([{ path: '', message: `Nested deeper than ${maxDepth} levels` }])
}

/** What a schema cannot say. */
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
  if (isObject(requirements.user_configuration)) yield * keyErrors('/requirements/user_configuration', Object.keys(requirements.user_configuration))
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

/** JSON Pointers of the members of a patch that would change the shape of what it is merged into. */
export function * poisonousMembers (patch: unknown, path = ''): Generator<string> {
  if (!isObject(patch)) return
  for (const [key, value] of Object.entries(patch)) {
    const pointer = `${path}/${key}`
    if (isPoisonousKey(key)) yield pointer
    else yield * poisonousMembers(value, pointer)
  }
}
