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

type Json = null | boolean | number | string | Json[] | { [member: string]: Json }
type JsonObject = { [member: string]: Json }

/** Schemas that these modules export become components of the document, under their exported names. */
const modules: ReadonlyArray<Readonly<Record<string, unknown>>> = [commonSchemas, agent, dashboard, messaging, commonFrames]

const refTo = (...path: string[]): { $ref: string } => ({ $ref: `#/${path.join('/')}` })

const plain = (schema: TSchema): JsonObject => JSON.parse(JSON.stringify(schema))

function namesByText (): Map<string, string> {
  const names = new Map<string, string>()
  for (const [name, schema] of modules.flatMap(module => Object.entries(module))) {
    if (!KindGuard.IsSchema(schema)) continue
    const text = JSON.stringify(schema)
    // A reference must be shorter than the schema.
    const isWorthIt = text.length > JSON.stringify(refTo('components', 'schemas', name)).length
    if (isWorthIt && !names.has(text)) names.set(text, name)
  }
  return names
}

/** Schemas of a document. Shared schemas are placed in `components` and referenced. */
class SchemaComponents {
  readonly #names = namesByText()
  /** Schemas that are referenced, by name. */
  readonly schemas: { [name: string]: Json } = {}

  /** A schema as JSON. Named parts of it are replaced by references. */
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

function described (code: Json, { meaning, advice }: Meaning): JsonObject {
  return { const: code, description: meaning, ...(advice && { 'x-advice': advice }) }
}

/** The schema of the codes of `error` frames. */
function errorCodeSchema (description: string): JsonObject {
  return { type: 'string', description, oneOf: errorCodes.map(code => described(code, errorMeanings[code])) }
}

/** The schema of the close codes. */
function closeCodeSchema (): JsonObject {
  const names = Object.keys(closeCodes) as Array<keyof typeof closeCodes>
  const oneOf = names.map(name => described(closeCodes[name], closeMeanings[name]))
  return { type: 'integer', description: 'Close code', oneOf }
}

const summaryOf = (description: Json | undefined): JsonObject => description ? { summary: description } : {}

type Example = (schema: TSchema) => Json

/** Required members, and those that have an example. */
function objectExample ({ properties = {}, required = [] }: TSchema): JsonObject {
  const members = Object.entries<TSchema>(properties).filter(([name, { examples }]) => required.includes(name) || examples)
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

/** A short valid value of a schema. Examples of the schema are preferred. */
export function exampleOf (schema: TSchema): Json {
  if (schema.examples) return schema.examples[0]
  if ('const' in schema) return schema.const
  if (schema.anyOf) return exampleOf(schema.anyOf[0])
  return byType[schema.type]?.(schema) ?? null
}

/** The side that sends a message. */
type Sender = 'client' | 'server'
interface NamedMessage { readonly name: string, readonly schema: TSchema }

/** All messages that one side may send. */
function messagesOf (messages: Messages, sender: Sender): NamedMessage[] {
  const typed: NamedMessage[] = Object.values<TSchema>(messages[sender]).map(schema => ({ name: schema.properties.type.const, schema }))
  const untyped = Object.entries(messages.untyped[sender]).map(([name, schema]) => ({ name, schema }))
  return [...typed, ...untyped]
}

const senders: readonly Sender[] = ['client', 'server']
const owners: ReadonlyArray<readonly [prefix: string, Messages]> = [
  ['', common],
  ...Object.entries(catalogues).map(([tier, catalogue]) => [`${tier}.`, catalogue] as const)
]

/** A key per message, independent of the served tiers: `client.watch` is shared by all, `agents.client.auth` belongs to one. */
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

/** Message objects of a document, created when they are first referenced. */
class MessageComponents {
  readonly #keys = { client: keysOfMessages('client'), server: keysOfMessages('server') }
  readonly #components: SchemaComponents
  readonly messages: { [key: string]: Json } = {}

  constructor (components: SchemaComponents) {
    this.#components = components
  }

  /** The `messages` of the channel of a tier. */
  ofTier (tier: Messages): JsonObject {
    return Object.fromEntries(senders.flatMap(sender => messagesOf(tier, sender).map(message => {
      const key = this.keyOf(sender, message)
      this.messages[key] ??= this.#messageObject(message)
      return [key, refTo('components', 'messages', key)]
    })))
  }

  keyOf (sender: Sender, { name, schema }: NamedMessage): string {
    const key = this.#keys[sender].get(schema)
    if (key === undefined) throw new Error(`No tier has the message ${name}`)
    return key
  }

  #messageObject ({ name, schema }: NamedMessage): JsonObject {
    const { description, examples, answers, unasked, ...payload } = this.#components.whole(schema)
    return {
      name,
      ...summaryOf(description),
      ...(schema.type === 'string' && { contentType: 'text/plain' }),
      payload,
      examples: [{ payload: exampleOf(schema) }]
    }
  }
}

interface Credential {
  readonly name: string
  readonly scheme: { readonly type: string, readonly description: string, readonly [member: string]: string }
  readonly isAcceptedBy: (tier: DescribedTier) => boolean
}

const always = () => true

/** The credentials of an upgrade request, in order of precedence. */
const allCredentials: readonly Credential[] = [
  {
    name: 'bearer',
    scheme: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'The `Authorization` header of the upgrade request' },
    isAcceptedBy: always
  },
  {
    name: 'subprotocol',
    scheme: {
      type: 'httpApiKey',
      in: 'header',
      name: 'Sec-WebSocket-Protocol',
      description: '`bearer.<token>`, offered together with a subprotocol of the server'
    },
    isAcceptedBy: always
  },
  {
    name: 'ticket',
    scheme: { type: 'httpApiKey', in: 'query', name: 'ticket', description: 'From `POST /ws-tickets`, valid for one connection' },
    isAcceptedBy: ({ name }) => name !== 'v1'
  },
  {
    name: 'token',
    scheme: {
      type: 'httpApiKey',
      in: 'query',
      name: 'token',
      description: 'An access token. Servers log URLs, so prefer another credential'
    },
    isAcceptedBy: tier => tier.acceptsQueryToken
  },
  {
    name: 'key',
    scheme: { type: 'httpApiKey', in: 'query', name: 'key', description: 'A publishable key, for web pages without a token' },
    isAcceptedBy: ({ name }) => name === 'v1'
  }
]

/** The credentials that a tier accepts; none for a public tier. */
export function credentials (tier: DescribedTier): readonly Credential[] {
  return !tier.requiresAuthentication ? [] : allCredentials.filter(({ isAcceptedBy }) => isAcceptedBy(tier))
}

export function security (tier: DescribedTier): Json[] {
  return credentials(tier).map(({ name }) => refTo('components', 'securitySchemes', name))
}

/** The credentials of these tiers, and a trait per tier whose operations require one of them. */
function securityComponents (tiers: readonly DescribedTier[]): { securitySchemes: JsonObject, operationTraits: JsonObject } {
  const guarded = tiers.filter(tier => security(tier).length > 0)
  const schemes = guarded.flatMap(tier => credentials(tier).map(({ name, scheme }) => [name, scheme] as const))
  return {
    securitySchemes: Object.fromEntries(schemes),
    operationTraits: Object.fromEntries(guarded.map(tier => [tier.name, { security: security(tier) }]))
  }
}

/** The part of a tier that the document describes. */
interface DescribedTier {
  readonly name: TierName
  readonly requiresAuthentication: boolean
  /** Whether the query of the upgrade may contain a token. */
  readonly acceptsQueryToken: boolean
  readonly options: { readonly path: string }
}

/** Content types of frames by subprotocol. */
type ContentTypes = Readonly<Record<string, string>>

function binding (tier: DescribedTier, contentTypes: ContentTypes): JsonObject {
  const inQuery = credentials(tier).filter(({ scheme }) => scheme.in === 'query')
  const query = Object.fromEntries(inQuery.map(({ name, scheme: { description } }) => [name, { type: 'string', description }]))
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

/** The channel object of a tier. */
function channelOf (tier: DescribedTier, base: string, contentTypes: ContentTypes, messages: MessageComponents): JsonObject {
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

/** The operations of a tier: `receive` for each frame of a client, with its replies, and `send` for all other server frames. */
function operationsOf (tier: DescribedTier, messages: MessageComponents): JsonObject {
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
    const reply = { channel, messages: refs('server', answering) }
    return { action: 'receive', channel, ...summaryOf(description), messages: refs('client', [message]), reply, ...traits }
  }

  function send ({ name, schema: { description } }: NamedMessage): JsonObject {
    const sameName = fromServer.filter(other => other.name === name)
    return { action: 'send', channel, ...summaryOf(description), messages: refs('server', sameName), ...traits }
  }

  const received = messagesOf(catalogue, 'client').map(message => [`${tier.name}.receive.${message.name}`, receive(message)])
  const sent = unasked(catalogue).map(message => [`${tier.name}.send.${message.name}`, send(message)])
  return Object.fromEntries([...received, ...sent])
}

/** Messages of the server that are not only replies. */
function unasked (catalogue: Catalogue): NamedMessage[] {
  const answers = new Set(messagesOf(catalogue, 'client').flatMap(({ schema }): string[] => schema.answers))
  return messagesOf(catalogue, 'server').filter(({ name, schema }) => schema.unasked || !answers.has(name))
}

const description = `The WebSocket tiers of a live registry of AI agents.

Each message is one frame: a JSON object with a \`type\`. The reply to a frame contains its \`requestId\`.
docs/protocol/websocket.md describes each tier. The OpenAPI document describes the REST endpoints.`

interface AsyncapiOptions {
  /** The enabled tiers. */
  tiers: readonly DescribedTier[]
  /** The URL of the registry, including its prefix. */
  url: string
  contentTypes: ContentTypes
}

function serverOf ({ protocol, host }: URL): JsonObject {
  return { host, protocol: protocol === 'https:' ? 'wss' : 'ws', protocolVersion: '13' }
}

/** Generates the AsyncAPI 3.0 document of tiers from the schemas of their frames. */
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
      schemas: { ...schemas.schemas, ErrorCode: errorCodeSchema(ErrorCode.description ?? ''), CloseCode: closeCodeSchema() },
      ...securityComponents(tiers)
    }
  }
}
