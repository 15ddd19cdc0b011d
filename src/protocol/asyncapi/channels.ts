import { catalogues, type Catalogue } from '../frames/catalogues.js'
import type { Tier } from '../../sockets/tiers.js'
import { refTo, type Json, type JsonObject } from './components.js'
import { messagesOf, type MessageComponents, type NamedMessage, type Sender } from './messages.js'
import { credentials, security } from './security.js'

export type DescribedTier = Pick<Tier, 'name' | 'handshake' | 'takesQueryToken'> & { readonly options: Pick<Tier['options'], 'path'> }

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
