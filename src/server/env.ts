import type { TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { readValue } from './env-values.js'
import { OptionsError } from '../errors.js'
import { OptionsSchema, type AgentRegistryOptions } from '../options.js'
import { ServerSettingsSchema, type ServerSettings } from './server-settings.js'

export type Environment = Record<string, string | undefined>

/** One setting that environment variables can give. */
export interface EnvSetting {
  /** Where it stands in the options: `['lease', 'durationMs']`. */
  path: string[]
  /** Variables that are looked at, in this order. */
  names: string[]
  /** What one unit of the variable is in the setting's own unit. */
  factor: number
  schema: TSchema
}

/** Where the stand-alone server's defaults differ from the plugin's. */
export const standAloneDefaults = { routes: { root: true, docs: true, v1: true }, storage: 'level' } satisfies AgentRegistryOptions

/** Whoever says where Redis is wants it to be used, unless STORE says otherwise. */
const redisVariables = ['REDIS_URL', 'REDIS_HOST', 'REDIS_SENTINELS', 'REDIS_CLUSTER']

/** Every setting below `schema` that has environment variables, in the order of the schema. */
export function settingsOf (schema: TSchema, path: string[] = []): EnvSetting[] {
  if (schema.env !== undefined) return [{ path, names: schema.env, factor: schema.envFactor ?? 1, schema }]
  const properties: Record<string, TSchema> = schema.properties ?? {}
  return Object.entries(properties).flatMap(([name, child]) => settingsOf(child, [...path, name]))
}

/** The description of a setting, in the unit of its variables: seconds where the option has milliseconds. */
export function describeSetting ({ schema, factor }: EnvSetting): string {
  const unit = factor === 1000 ? '(s)' : factor === 60_000 ? '(min)' : `(× ${factor} ms)`
  const text: string = schema.description ?? ''
  return factor === 1 ? text : text.replace('(ms)', unit)
}

function isSet (env: Environment, name: string): boolean {
  return (env[name] ?? '').trim() !== ''
}

/** A value as an error message may show it: not at all where it may be a secret. */
function shown (name: string, text: string): string {
  return /SECRET|PASSWORD|KEY|TOKEN|URL/.test(name) ? 'the value' : `'${text}'`
}

function put (target: Record<string, unknown>, path: string[], value: unknown): void {
  const [head, ...rest] = path
  if (head === undefined) return
  if (rest.length === 0) target[head] = value
  else put((target[head] ??= {}) as Record<string, unknown>, rest, value)
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
 * Options of the plugin and settings of the stand-alone server from environment variables. Of a setting with several
 * variables the first that is set wins; a blank one counts as unset; unknown ones are ignored.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS with one line for every wrong variable: its name, what is wrong, what is right.
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
