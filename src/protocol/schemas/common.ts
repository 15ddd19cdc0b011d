import { Kind, Type, TypeRegistry, type SchemaOptions, type StringOptions, type TSchema } from '@sinclair/typebox'
import { isPoisonousKey } from '../../lib/json.js'

type TextOptions = Pick<StringOptions, 'minLength' | 'maxLength' | 'pattern'>

const patterns = new Map<string, RegExp>()

function patternOf (source: string): RegExp {
  const known = patterns.get(source) ?? new RegExp(source)
  patterns.set(source, known)
  return known
}

/** The length of a text in code points rather than UTF-16 units. */
export const lengthOf = (text: string): number => [...text].length

/**
 * @returns the reason why a string does not match a schema, or undefined. The length is checked first, so that the pattern never
 * runs on an overlong string.
 */
export function textFault (schema: object, value: unknown): string | undefined {
  const { minLength = 0, maxLength = Infinity, pattern }: TextOptions = schema
  if (typeof value !== 'string') return 'Expected string'
  if (value.length > 2 * maxLength || (value.length > maxLength && lengthOf(value) > maxLength)) {
    return `Expected string length less or equal to ${maxLength}`
  }
  if (value.length < 2 * minLength && lengthOf(value) < minLength) return `Expected string length greater or equal to ${minLength}`
  return pattern === undefined || patternOf(pattern).test(value) ? undefined : `Expected string to match '${pattern}'`
}

TypeRegistry.Set<object>('Text', (schema, value) => textFault(schema, value) === undefined)

/** A string whose lengths count code points, as JSON Schema requires. `Type.String` counts UTF-16 units. */
export const Text = (options: StringOptions = {}) => Type.Unsafe<string>({ type: 'string', ...options, [Kind]: 'Text' })

/** `T` or null, as JSON Schema `anyOf`. */
export const Nullable = <T extends TSchema>(schema: T, options: SchemaOptions = {}) => Type.Union([schema, Type.Null()], options)

export const AgentId = Text({
  minLength: 3,
  maxLength: 100,
  pattern: '^[a-zA-Z0-9_-]+$',
  description: 'Id of an agent, case-sensitive',
  examples: ['agent-one']
})
export const AgentType = Text({
  minLength: 2,
  maxLength: 50,
  pattern: '^[a-zA-Z0-9_-]+$',
  description: 'Type of an agent: one of the allowed types, case-insensitive',
  examples: ['testing']
})
export const Capability = Text({ minLength: 2, maxLength: 100, pattern: '^[a-zA-Z0-9_\\-\\s]+$', examples: ['summarise'] })
export const Endpoint = Text({
  minLength: 1,
  maxLength: 2048,
  pattern: '^https?://[^\\s/$.?#].[^\\s]*$',
  description: 'URL of the agent',
  examples: ['http://127.0.0.1:4000']
})
export const Timestamp = Type.String({ description: 'RFC 3339, in UTC, with milliseconds', examples: ['2030-01-31T12:00:00.000Z'] })
export const Revision = Type.String({ description: 'Opaque `<epoch>:<n>`', examples: ['k3f9:42'] })
export const Token = Type.String({ description: 'A JSON Web Token' })

export const Status = Type.Union([Type.Literal('alive'), Type.Literal('dead')], {
  description: '`dead` if the state is `dead`, otherwise `alive`'
})
export const stateNames = ['starting', 'alive', 'suspect', 'dead', 'draining', 'maintenance'] as const
export const State = Type.Union(stateNames.map(name => Type.Literal(name)), { description: 'Detailed state of an agent' })
export type AgentState = typeof stateNames[number]

/** States that an agent may request. */
export const WantedState = Type.Union([Type.Literal('draining'), Type.Literal('maintenance'), Type.Literal('alive')])

/** First path segments below `/agents`, which an agent_id must not hide. */
const reserved = new Set(['register', 'search', 'stats', 'ws', 'report-metrics', 'changes', 'events'])

export const isReservedAgentId = (id: string) => reserved.has(id) || isPoisonousKey(id)
