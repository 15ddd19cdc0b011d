import type { TSchema } from '@sinclair/typebox'
import { catalogues, common, type Messages } from '../frames/catalogues.js'
import { refTo, type Json, type JsonObject, type SchemaComponents } from './components.js'
import { exampleOf } from './example.js'

/** Who sends: the other end receives. */
export type Sender = 'client' | 'server'
export interface NamedMessage { readonly name: string, readonly schema: TSchema }

/** All that one end may send, under the names that programs know. */
export function messagesOf (messages: Messages, sender: Sender): NamedMessage[] {
  const typed = Object.values<TSchema>(messages[sender]).map(schema => ({ name: schema.properties.type.const as string, schema }))
  const untyped = Object.entries(messages.untyped[sender]).map(([name, schema]) => ({ name, schema }))
  return [...typed, ...untyped]
}

const senders: readonly Sender[] = ['client', 'server']
const owners: ReadonlyArray<readonly [prefix: string, Messages]> = [
  ['', common],
  ...Object.entries(catalogues).map(([tier, catalogue]) => [`${tier}.`, catalogue] as const)
]

/** A key for each message, the same whichever tiers are served: `client.watch` is shared, `agents.client.auth` of one tier. */
function keysOfMessages (sender: Sender): Map<TSchema, string> {
  const keys = new Map<TSchema, string>()
  const taken = new Map<string, number>()
  for (const [prefix, messages] of owners) {
    for (const { name, schema } of messagesOf(messages, sender)) {
      if (keys.has(schema)) continue
      const key = `${prefix}${sender}.${name}`
      const count = (taken.get(key) ?? 0) + 1
      taken.set(key, count)
      keys.set(schema, count === 1 ? key : `${key}.${count}`)
    }
  }
  return keys
}

/** Message objects of a document, made when they are first referred to. */
export class MessageComponents {
  readonly #keys = { client: keysOfMessages('client'), server: keysOfMessages('server') }
  readonly #components: SchemaComponents
  readonly messages: { [key: string]: Json } = {}

  constructor (components: SchemaComponents) {
    this.#components = components
  }

  /** The messages of a tier for `channels`, by their keys. */
  ofTier (tier: Messages): JsonObject {
    return Object.fromEntries(senders.flatMap(sender => messagesOf(tier, sender).map(message => {
      const key = this.keyOf(sender, message)
      this.messages[key] ??= this.#messageObject(message)
      return [key, refTo('components', 'messages', key)]
    })))
  }

  keyOf (sender: Sender, { schema }: NamedMessage): string {
    return this.#keys[sender].get(schema)!
  }

  #messageObject ({ name, schema }: NamedMessage): JsonObject {
    const { description, examples, answers, unasked, ...payload } = this.#components.whole(schema)
    return {
      name,
      ...(description !== undefined && { summary: description }),
      ...(schema.type === 'string' && { contentType: 'text/plain' }),
      payload,
      examples: [{ payload: exampleOf(schema) as Json }]
    }
  }
}
