import { Type, type Static, type TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { OptionsError } from '../errors.js'
import { booleanWords } from '../lib/coerce.js'
import { isObject } from '../lib/json.js'
import type { AgentRegistryOptions } from '../agent-registry-options.js'
import { OptionsSchema } from '../options.js'

const levels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
const address = '^(loopback|linklocal|uniquelocal|[0-9a-fA-F.:]+(/[0-9]{1,3})?)$'

/** Settings of the stand-alone server that are not options of the plugin, annotated like `OptionsSchema`. */
export const ServerSettingsSchema = Type.Object({
  host: Type.String({
    minLength: 1,
    default: '127.0.0.1',
    pattern: '^[^\\s/]+$',
    description: 'Address to listen on; 0.0.0.0 or :: for all',
    env: ['ARCP_HOST', 'HOST']
  }),
  port: Type.Integer({
    minimum: 0,
    maximum: 65_535,
    default: 8001,
    description: 'Port to listen on; 0 selects a free port',
    env: ['ARCP_PORT', 'PORT']
  }),
  logLevel: Type.Union(levels.map(level => Type.Literal(level)), {
    default: 'info',
    description: 'Minimum severity that is logged: fatal, error, warn, info, debug, trace or silent',
    env: ['LOG_LEVEL'],
    envAliases: { warning: 'warn', critical: 'fatal' }
  }),
  trustProxy: Type.Union([Type.Boolean(), Type.Array(Type.String({ pattern: address }), { minItems: 1 })], {
    default: false,
    description: 'Proxies whose X-Forwarded-* headers are trusted: true, false, or a list of addresses and CIDR ranges',
    env: ['TRUST_PROXY']
  }),
  headersTimeoutMs: Type.Integer({
    minimum: 100,
    maximum: 600_000,
    default: 10_000,
    description: 'Timeout for the head of a request or upgrade (ms)',
    env: ['HEADERS_TIMEOUT'],
    envFactor: 1000
  }),
  requestTimeoutMs: Type.Integer({
    minimum: 100,
    maximum: 3_600_000,
    default: 60_000,
    description: 'Timeout for a whole request (ms)',
    env: ['REQUEST_TIMEOUT'],
    envFactor: 1000
  })
}, { additionalProperties: false })

export type ServerSettings = Static<typeof ServerSettingsSchema>

/** The parsed value of a variable, or the fault of its text. */
type Reading = { value: unknown } | { wrong: string }

function literalsOf (schema: TSchema): string[] {
  const branches: TSchema[] = schema.anyOf ?? []
  return branches.flatMap(branch => typeof branch.const === 'string' ? [branch.const] : [])
}

function branchOf (schema: TSchema, type: string): TSchema | undefined {
  const branches: TSchema[] = schema.anyOf ?? [schema]
  return branches.find(branch => branch.type === type)
}

function readNumber (schema: TSchema, text: string, factor: number): Reading {
  if (!/^[+-]?\d+(\.\d+)?$/.test(text.trim())) return { wrong: 'is not a number' }
  // Rounded to seven decimals, so that products such as 0.2 × 9000 have no rounding error.
  const value = Math.round(Number(text) * factor * 1e7) / 1e7
  if (schema.minimum !== undefined && value < schema.minimum) return { wrong: `is too small, the minimum is ${schema.minimum / factor}` }
  if (schema.maximum !== undefined && value > schema.maximum) return { wrong: `is too large, the maximum is ${schema.maximum / factor}` }
  if (schema.type === 'integer' && !Number.isInteger(value)) return { wrong: `is not a whole multiple of ${1 / factor}` }
  return { value }
}

function readBoolean (text: string): Reading {
  const value = booleanWords.get(text.trim().toLowerCase())
  return value === undefined ? { wrong: `is not one of ${[...booleanWords.keys()].join(', ')}` } : { value }
}

function readLiteral (literals: string[], text: string, aliases: Record<string, string> = {}): Reading {
  const word = text.trim().toLowerCase()
  const wanted = aliases[word] ?? word
  const value = literals.find(literal => literal.toLowerCase() === wanted)
  return value === undefined ? { wrong: `is not one of ${literals.join(', ')}` } : { value }
}

function isJsonList (text: string): boolean {
  return text.trimStart().startsWith('[')
}

function readJsonList (text: string): Reading {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return { wrong: 'begins with [ but is not a JSON list' }
  }
}

function readList (text: string): Reading {
  if (isJsonList(text)) return readJsonList(text)
  return { value: text.split(',').map(entry => entry.trim()).filter(entry => entry !== '') }
}

function textFault (schema: TSchema, value: string): string | null {
  if (value.length < (schema.minLength ?? 0)) return `is shorter than ${schema.minLength} characters`
  if (value.length > (schema.maxLength ?? Infinity)) return `is longer than ${schema.maxLength} characters`
  if (schema.pattern !== undefined && !new RegExp(schema.pattern).test(value)) return 'has the wrong format'
  return null
}

function listFault (schema: TSchema, value: unknown[]): string | null {
  if (value.length < (schema.minItems ?? 0)) return 'is an empty list'
  for (const [index, entry] of value.entries()) {
    const found = faultOf(schema.items, entry)
    if (found !== null) return `entry ${index + 1} ${found}`
  }
  return null
}

function objectFault (schema: TSchema, value: unknown): string | null {
  const found = Value.Errors(schema, Value.Default(schema, structuredClone(value))).First()
  return found === undefined ? null : `${found.path.slice(1) || 'value'}: ${found.message}`
}

/** The fault of a value, without the value itself, which may be a secret. */
function faultOf (schema: TSchema, value: unknown): string | null {
  const type = Array.isArray(value) ? 'array' : typeof value
  const branch = branchOf(schema, type)
  if (branch === undefined) return literalsOf(schema).length > 0 ? null : 'has the wrong type'
  if (Array.isArray(value)) return listFault(branch, value)
  if (typeof value === 'string') return textFault(branch, value)
  return objectFault(branch, value)
}

function readText (schema: TSchema, text: string): Reading {
  const literals = literalsOf(schema)
  if (literals.length > 0) return readLiteral(literals, text, schema.envAliases)
  if (branchOf(schema, 'boolean') && booleanWords.has(text.trim().toLowerCase())) return readBoolean(text)
  const plain = branchOf(schema, 'string')
  if (!branchOf(schema, 'array')) return { value: text }
  // If a single string is allowed too (a secret), it may contain commas, and only JSON is a list.
  return plain && !isJsonList(text) ? { value: text } : readList(text)
}

/**
 * Parses the text of an environment variable.
 * @param schema schema of the setting: integer, number, boolean, string, array, or a union of them or of literals
 * @param factor one unit of the text in the unit of the setting
 */
function readValue (schema: TSchema, text: string, factor = 1): Reading {
  if (schema.type === 'integer' || schema.type === 'number') return readNumber(schema, text, factor)
  if (schema.type === 'boolean') return readBoolean(text)
  const reading = readText(schema, text)
  const wrong = 'value' in reading ? faultOf(schema, reading.value) : null
  return wrong === null ? reading : { wrong }
}

export type Environment = Record<string, string | undefined>

/** A setting that can be given by environment variables. */
export interface EnvSetting {
  /** Path in the options: `['lease', 'durationMs']`. */
  path: string[]
  /** The names of the variables; the first one that is set is used. */
  names: string[]
  /** One unit of the variable in the unit of the setting. */
  factor: number
  schema: TSchema
}

/** Defaults of the stand-alone server that differ from those of the plugin. */
export const standAloneDefaults = { routes: { root: true, docs: true, v1: true }, storage: 'level' } satisfies AgentRegistryOptions

/** Each of these variables selects Redis as the store, unless STORE names another one. */
const redisVariables = ['REDIS_URL', 'REDIS_HOST', 'REDIS_SENTINELS', 'REDIS_CLUSTER']

/** All settings below `schema` that have environment variables, in the order of the schema. */
export function settingsOf (schema: TSchema, path: string[] = []): EnvSetting[] {
  if (schema.env !== undefined) return [{ path, names: schema.env, factor: schema.envFactor ?? 1, schema }]
  const properties: Record<string, TSchema> = schema.properties ?? {}
  return Object.entries(properties).flatMap(([name, child]) => settingsOf(child, [...path, name]))
}

const units = new Map([[1000, '(s)'], [60_000, '(min)']])

/** The description of a setting, in the unit of its variables: seconds where the option has milliseconds. */
export function describeSetting ({ schema, factor }: EnvSetting): string {
  const unit = units.get(factor) ?? `(× ${factor} ms)`
  const text: string = schema.description ?? ''
  return factor === 1 ? text : text.replace('(ms)', unit)
}

function isSet (env: Environment, name: string): boolean {
  return (env[name] ?? '').trim() !== ''
}

/** The value for an error message; hidden if it may be a secret. */
function shown (name: string, text: string): string {
  return /SECRET|PASSWORD|KEY|TOKEN|URL/.test(name) ? 'the value' : `'${text}'`
}

function put (target: Record<string, unknown>, path: string[], value: unknown): void {
  const [head, ...rest] = path
  if (head === undefined) return
  if (rest.length === 0) {
    target[head] = value
    return
  }
  const child = target[head]
  const group = isObject(child) ? child : {}
  target[head] = group
  put(group, rest, value)
}

function readSetting (setting: EnvSetting, env: Environment, target: Record<string, unknown>, findings: Map<string, string>): void {
  const name = setting.names.find(candidate => isSet(env, candidate))
  if (name === undefined) return
  const text = env[name] ?? ''
  const reading = readValue(setting.schema, text, setting.factor)
  if ('value' in reading) put(target, setting.path, reading.value)
  else if (!findings.has(name)) findings.set(name, `${shown(name, text)} ${reading.wrong}. Expected: ${describeSetting(setting)}`)
}

function readAll (schema: TSchema, env: Environment, target: Record<string, unknown>, findings: Map<string, string>): void {
  for (const setting of settingsOf(schema)) readSetting(setting, env, target, findings)
}

function requireInProduction (env: Environment, findings: Map<string, string>): void {
  if (env.NODE_ENV?.trim() !== 'production') return
  for (const setting of settingsOf(OptionsSchema)) {
    const name = setting.names.find(candidate => candidate === 'JWT_SECRET' || candidate === 'ADMIN_PASSWORD')
    if (name === undefined || isSet(env, name)) continue
    findings.set(name, `is missing, and NODE_ENV is production. Expected: ${describeSetting(setting)}`)
  }
}

/**
 * Reads the options of the plugin and the settings of the stand-alone server from environment variables. If a setting
 * has several variables, the first one that is set is used. Blank variables count as unset; unknown ones are ignored.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS with one line per invalid variable: its name, the fault and the expected value
 */
export function optionsFromEnv (env: Environment): { options: AgentRegistryOptions, server: ServerSettings } {
  const findings = new Map<string, string>()
  const options: Record<string, unknown> = structuredClone(standAloneDefaults)
  if (redisVariables.some(name => isSet(env, name))) options.storage = 'redis'
  const server: Record<string, unknown> = {}
  readAll(OptionsSchema, env, options, findings)
  readAll(ServerSettingsSchema, env, server, findings)
  requireInProduction(env, findings)
  if (findings.size > 0) throw new OptionsError([...findings].map(([name, finding]) => `\n  ${name}: ${finding}`).join(''))
  return { options, server: Value.Default(ServerSettingsSchema, server) as ServerSettings }
}
