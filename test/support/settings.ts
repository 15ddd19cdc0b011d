import type { TSchema } from '@sinclair/typebox'
import { type EnvSetting, optionsFromEnv, ServerSettingsSchema, settingsOf, standAloneDefaults } from '../../src/server/env.js'
import { OptionsSchema } from '../../src/options.js'
import { isObject } from './snapshot.js'

/** Keywords for people, and those of environment variables. */
const ignored = new Set(['description', 'env', 'envFactor', 'envAliases', 'examples', 'title', 'tsType'])

/** A schema without descriptions; a class or function is replaced with its type. */
function bare (value: unknown): unknown {
  if (Array.isArray(value)) return value.map(bare)
  if (!isObject(value)) return value
  return Object.fromEntries(Object.entries(value).filter(([key]) => !ignored.has(key)).map(([key, child]) => [key, bare(child)]))
}

function optionRows (schema: TSchema, path: string[] = []): Array<[path: string, option: unknown]> {
  const properties: Record<string, TSchema> = schema.properties
  const required: readonly string[] = schema.required ?? []
  return Object.entries(properties).flatMap(([name, child]) => {
    if (child.properties && Object.keys(child.properties).length > 0) return optionRows(child, [...path, name])
    const option = bare(JSON.parse(JSON.stringify(child)))
    return [[[...path, name].join('.'), isObject(option) ? { ...option, optional: !required.includes(name) } : option]]
  })
}

/** Each option by path, with type, default and bounds. */
export const optionTable = () => Object.fromEntries(optionRows(OptionsSchema))

function valueAt (value: unknown, path: readonly string[]): unknown {
  return path.reduce((parent, name) => isObject(parent) ? parent[name] : undefined, value)
}

/** Values for the variable that differ from its default, in its unit. */
function samplesOf ({ schema, factor }: EnvSetting): string[] {
  if (schema.type === 'boolean') return [String(!schema.default)]
  if (schema.type === 'integer' || schema.type === 'number') {
    const value = schema.default ?? factor
    return [value * 2, value / 2, value + 1].map(number => String(number / factor))
  }
  const choices: TSchema[] = schema.anyOf ?? []
  return choices.map(choice => choice.const).filter(choice => typeof choice === 'string' && choice !== schema.default)
}

/** The value that the stand-alone server reads from `text`; undefined if it refuses the text. */
function read ({ path }: EnvSetting, name: string, text: string): unknown {
  try {
    const { options, server } = optionsFromEnv({ [name]: text })
    return valueAt(options, path) ?? valueAt(server, path)
  } catch {
    return undefined
  }
}

function readingOf (setting: EnvSetting, name: string) {
  const readings = samplesOf(setting).map(text => ({ text, value: read(setting, name, text) }))
  const sample = readings.find(({ value }) => value !== undefined)
  return sample && { sample }
}

function variableRow (setting: EnvSetting, name: string, scope: string) {
  const { path, schema, factor, names } = setting
  const value = valueAt(standAloneDefaults, path) ?? schema.default
  const aliases = schema.envAliases && { aliases: schema.envAliases }
  return { [scope]: path.join('.'), default: value ?? null, factor, rank: names.indexOf(name), ...aliases, ...readingOf(setting, name) }
}

/** Each environment variable of the stand-alone server with its settings; `rank` 0 precedes 1. */
export function environmentTable (): Record<string, unknown[]> {
  const table: Record<string, unknown[]> = {}
  for (const [scope, schema] of [['option', OptionsSchema], ['server', ServerSettingsSchema]] as const) {
    for (const setting of settingsOf(schema)) {
      for (const name of setting.names) (table[name] ??= []).push(variableRow(setting, name, scope))
    }
  }
  return table
}
