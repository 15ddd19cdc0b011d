import { KindGuard, type TSchema } from '@sinclair/typebox'
import * as agent from '../schemas/agent.js'
import * as common from '../schemas/common.js'
import * as dashboard from '../schemas/dashboard.js'
import * as commonFrames from '../frames/common.js'
import * as messaging from '../schemas/messaging.js'

export type Json = null | boolean | number | string | Json[] | { [member: string]: Json }
export type JsonObject = { [member: string]: Json }

/** What may be referred to is what these export, under the same name. */
const modules: readonly object[] = [common, agent, dashboard, messaging, commonFrames]

export const refTo = (...path: string[]): { $ref: string } => ({ $ref: `#/${path.join('/')}` })

const plain = (schema: TSchema) => JSON.parse(JSON.stringify(schema)) as JsonObject

function namesByText (): Map<string, string> {
  const names = new Map<string, string>()
  for (const [name, schema] of modules.flatMap(module => Object.entries(module) as Array<[string, unknown]>)) {
    if (!KindGuard.IsSchema(schema)) continue
    const text = JSON.stringify(schema)
    // A reference is to save something.
    const isWorthIt = text.length > JSON.stringify(refTo('components', 'schemas', name)).length
    if (isWorthIt && !names.has(text)) names.set(text, name)
  }
  return names
}

/** Schemas of a document: what several frames share stands once in `components`, and is referred to. */
export class SchemaComponents {
  readonly #names = namesByText()
  /** Those that are referred to, by name. */
  readonly schemas: { [name: string]: Json } = {}

  /** A schema as JSON, its parts referred to where they have a name. */
  whole (schema: TSchema): JsonObject {
    return this.#members(plain(schema))
  }

  #members (value: JsonObject): JsonObject {
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, this.#part(member)]))
  }

  #part (value: Json): Json {
    if (Array.isArray(value)) return value.map(item => this.#part(item))
    if (typeof value !== 'object' || value === null) return value
    const name = this.#names.get(JSON.stringify(value))
    if (name === undefined) return this.#members(value)
    this.schemas[name] ??= this.#members(value)
    return refTo('components', 'schemas', name)
  }
}
