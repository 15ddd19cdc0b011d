import { KindGuard, type TSchema } from '@sinclair/typebox'
import * as agent from './schemas/agent.js'
import * as commonSchemas from './schemas/common.js'
import * as dashboard from './schemas/dashboard.js'
import * as commonFrames from './frames/common.js'
import { ErrorCode } from './frames/common.js'
import * as messaging from './schemas/messaging.js'
import { closeCodes, closeMeanings, errorCodes, errorMeanings, type Meaning } from './codes.js'
import { type Catalogue, catalogues, common, type Messages, type TierName } from './frames/catalogues.js'
import { implementation } from './identity.js'

export type Json = null | boolean | number | string | Json[] | { [member: string]: Json }
export type JsonObject = { [member: string]: Json }

/** What may be referred to is what these export, under the same name. */
const modules: readonly object[] = [commonSchemas, agent, dashboard, messaging, commonFrames]

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

const described = (code: Json, { meaning, advice }: Meaning): JsonObject => ({ const: code, description: meaning, ...(advice && { 'x-advice': advice }) })

/** Codes of `error` frames; `description` is what the member says of itself. */
export function errorCodeSchema (description: string): JsonObject {
  return { type: 'string', description, oneOf: errorCodes.map(code => described(code, errorMeanings[code])) }
}

/** Codes with which connections are closed. */
export function closeCodeSchema (): JsonObject {
  const codes = Object.entries(closeCodes) as Array<[keyof typeof closeCodes, number]>
  return { type: 'integer', description: 'Code of a close frame', oneOf: codes.map(([name, code]) => described(code, closeMeanings[name])) }
}

type Example = (schema: TSchema) => unknown

/** Members that have to be there, and those that have an example of their own. */
function objectExample ({ properties = {}, required = [] }: TSchema): object {
  const members = Object.entries<TSchema>(properties).filter(([name, { examples }]) => (required as string[]).includes(name) || examples)
  return Object.fromEntries(members.map(([name, member]) => [name, exampleOf(member)]))
}

const byType: Readonly<Record<string, Example>> = {
  object: objectExample,
  array: ({ minItems = 0, items }) => Array.from({ length: minItems }, () => exampleOf(items)),
  string: () => '…',
  number: ({ minimum = 0 }) => minimum,
  integer: ({ minimum = 0 }) => minimum,
  boolean: () => true
}

/** A value that a schema allows, the shortest that says something: examples of the schema come first. */
export function exampleOf (schema: TSchema): unknown {
  if (schema.examples) return schema.examples[0]
  if ('const' in schema) return schema.const
  if (schema.anyOf) return exampleOf(schema.anyOf[0])
  return byType[schema.type]?.(schema) ?? null
}

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

interface Credential {
  readonly name: string
  readonly scheme: { readonly [member: string]: string }
  readonly isTakenBy: (tier: DescribedTier) => boolean
}

const always = () => true

/** How an upgrade says who comes, in the order in which it is looked at. */
const allCredentials: readonly Credential[] = [
  {
    name: 'bearer',
    scheme: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'The header `Authorization` of the upgrade' },
    isTakenBy: always
  },
  {
    name: 'subprotocol',
    scheme: { type: 'httpApiKey', in: 'header', name: 'Sec-WebSocket-Protocol', description: '`bearer.<token>`, offered beside a subprotocol that can be chosen' },
    isTakenBy: always
  },
  {
    name: 'ticket',
    scheme: { type: 'httpApiKey', in: 'query', name: 'ticket', description: 'From `POST /ws-tickets`, good for one socket' },
    isTakenBy: ({ name }) => name !== 'v1'
  },
  {
    name: 'token',
    scheme: { type: 'httpApiKey', in: 'query', name: 'token', description: 'An access token; URLs end up in logs, so prefer another way' },
    isTakenBy: tier => tier.takesQueryToken
  },
  {
    name: 'key',
    scheme: { type: 'httpApiKey', in: 'query', name: 'key', description: 'A publishable key, for pages without a token' },
    isTakenBy: ({ name }) => name === 'v1'
  }
]

/** What the upgrade of a tier may bring; nothing where anybody may come. */
export function credentials (tier: DescribedTier): readonly Credential[] {
  return !tier.requiresAuthentication ? [] : allCredentials.filter(({ isTakenBy }) => isTakenBy(tier))
}

export function security (tier: DescribedTier): Json[] {
  return credentials(tier).map(({ name }) => refTo('components', 'securitySchemes', name))
}

/** What the credentials of these tiers are, and the trait by which operations of a tier ask for one of them. */
export function securityComponents (tiers: readonly DescribedTier[]): { securitySchemes: JsonObject, operationTraits: JsonObject } {
  const guarded = tiers.filter(tier => security(tier).length > 0)
  const schemes = guarded.flatMap(tier => credentials(tier).map(({ name, scheme }) => [name, scheme] as const))
  return {
    securitySchemes: Object.fromEntries(schemes),
    operationTraits: Object.fromEntries(guarded.map(tier => [tier.name, { security: security(tier) }]))
  }
}

/** The part of a tier that the document describes. */
export interface DescribedTier {
  readonly name: TierName
  readonly requiresAuthentication: boolean
  /** Whether the query of the upgrade may contain a token. */
  readonly takesQueryToken: boolean
  readonly options: { readonly path: string }
}

/** Content types of frames, by the subprotocol that chooses them. */
export type ContentTypes = Readonly<Record<string, string>>

function binding (tier: DescribedTier, contentTypes: ContentTypes): JsonObject {
  const inQuery = credentials(tier).filter(({ scheme }) => scheme.in === 'query')
  const query = Object.fromEntries(inQuery.map(({ scheme: { name, description } }) => [name as string, { type: 'string', description: description! }]))
  const protocols = Object.entries(contentTypes).map(([name, type]) => ({ const: name, description: `Frames are ${type}` }))
  return {
    ws: {
      method: 'GET',
      ...(inQuery.length > 0 && { query: { type: 'object', properties: query } }),
      headers: { type: 'object', properties: { 'Sec-WebSocket-Protocol': { type: 'string', anyOf: protocols } } },
      bindingVersion: '0.1.0'
    }
  }
}

/** A tier as a channel. */
export function channelOf (tier: DescribedTier, base: string, contentTypes: ContentTypes, messages: MessageComponents): JsonObject {
  const catalogue = catalogues[tier.name]
  return {
    address: base + tier.options.path,
    title: tier.name,
    summary: catalogue.summary,
    messages: messages.ofTier(catalogue),
    bindings: binding(tier, contentTypes),
    'x-content-types': { ...contentTypes },
    'x-close-codes': refTo('components', 'schemas', 'CloseCode')
  }
}

/** What the server does on one tier: a `receive` for each frame of a client with its answers, a `send` for what comes by itself. */
export function operationsOf (tier: DescribedTier, messages: MessageComponents): JsonObject {
  const catalogue = catalogues[tier.name]
  const channel = refTo('channels', tier.name)
  const fromServer = messagesOf(catalogue, 'server')
  const traits: JsonObject = security(tier).length > 0 ? { traits: [refTo('components', 'operationTraits', tier.name)] } : {}

  function refs (sender: Sender, named: NamedMessage[]): Json[] {
    return named.map(message => refTo('channels', tier.name, 'messages', messages.keyOf(sender, message)))
  }

  function receive (message: NamedMessage): JsonObject {
    const { answers = [], description } = message.schema
    const answering = fromServer.filter(({ name }) => name === 'error' || answers.includes(name))
    return { action: 'receive', channel, ...(description && { summary: description }), messages: refs('client', [message]), reply: { channel, messages: refs('server', answering) }, ...traits }
  }

  function send ({ name, schema: { description } }: NamedMessage): JsonObject {
    return { action: 'send', channel, ...(description && { summary: description }), messages: refs('server', fromServer.filter(same => same.name === name)), ...traits }
  }

  const received = messagesOf(catalogue, 'client').map(message => [`${tier.name}.receive.${message.name}`, receive(message)])
  const sent = unasked(catalogue).map(message => [`${tier.name}.send.${message.name}`, send(message)])
  return Object.fromEntries([...received, ...sent])
}

/** Messages of the server that are not only answers. */
function unasked (catalogue: Catalogue): NamedMessage[] {
  const answers = new Set(messagesOf(catalogue, 'client').flatMap(({ schema }) => schema.answers as string[]))
  return messagesOf(catalogue, 'server').filter(({ name, schema }) => schema.unasked || !answers.has(name))
}

const description = `The WebSocket tiers of a live registry of AI agents.

A frame is one JSON object per message, with a \`type\`. A \`requestId\` comes back in the one answer.
What a tier shows and when is in docs/protocol/websocket.md, the REST endpoints are in the OpenAPI document.`

export interface AsyncapiOptions {
  /** Tiers that are served. */
  tiers: readonly DescribedTier[]
  /** Where the registry is, its prefix included. */
  url: string
  contentTypes: ContentTypes
}

function serverOf ({ protocol, host }: URL): JsonObject {
  return { host, protocol: protocol === 'https:' ? 'wss' : 'ws', protocolVersion: '13' }
}

/** The AsyncAPI 3.0 document of tiers, made of the schemas of their frames. */
export function asyncapiDocument ({ tiers, url, contentTypes }: AsyncapiOptions): JsonObject {
  const parsed = new URL(url)
  const base = parsed.pathname.replace(/\/+$/, '')
  const schemas = new SchemaComponents()
  const messages = new MessageComponents(schemas)
  const channels = Object.fromEntries(tiers.map(tier => [tier.name, channelOf(tier, base, contentTypes, messages)]))
  return {
    asyncapi: '3.0.0',
    info: { title: implementation.name, version: implementation.version, description, license: { name: 'Apache-2.0' } },
    defaultContentType: 'application/json',
    servers: { registry: serverOf(parsed) },
    channels,
    operations: Object.assign({}, ...tiers.map(tier => operationsOf(tier, messages))),
    components: {
      messages: messages.messages,
      schemas: { ...schemas.schemas, ErrorCode: errorCodeSchema(ErrorCode.description!), CloseCode: closeCodeSchema() },
      ...securityComponents(tiers)
    }
  }
}
