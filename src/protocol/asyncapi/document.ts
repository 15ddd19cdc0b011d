import { implementation } from '../identity.js'
import { ErrorCode } from '../frames/common.js'
import { channelOf, operationsOf, type ContentTypes, type DescribedTier } from './channels.js'
import { closeCodeSchema, errorCodeSchema } from './codes.js'
import { SchemaComponents, type JsonObject } from './components.js'
import { MessageComponents } from './messages.js'
import { securityComponents } from './security.js'

const description = `The WebSocket tiers of a live registry of AI agents.

A frame is one JSON object per message, with a \`type\`. A \`requestId\` comes back in the one answer.
What a tier shows and when is in docs/protocol.md, the REST endpoints are in the OpenAPI document.`

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
