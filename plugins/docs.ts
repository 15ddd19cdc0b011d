import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { collectMethods } from '../src/http/methods.js'
import { publicUrlOf } from '../src/http/requests.js'
import { subprotocols } from '../src/http/upgrade.js'
import type { ResolvedOptions } from '../src/options.js'
import { asyncapiDocument } from '../src/protocol/asyncapi.js'
import { implementation } from '../src/protocol/identity.js'
import type { Tier } from '../src/sockets/tiers.js'

const description = `A live registry of AI agents: agents register, send heartbeats and are discovered.

Tokens: \`POST /auth/agent/request_temp_token\` with an agent key, then \`POST /agents/register\` with the temporary
token. The response contains the access token of the agent. Every error is a problem document (RFC 9457).
The WebSocket tiers are described in the AsyncAPI document and in docs/protocol/websocket.md.`

/** The decorator of our own document: a host with @fastify/swagger keeps its document under the default name. */
const decorator = 'agentRegistryOpenapi'

declare module 'fastify' {
  interface FastifyInstance {
    agentRegistryOpenapi: FastifyInstance['swagger']
  }
}

interface DocsOptions { options: ResolvedOptions, tiers: readonly Tier[] }

const contentTypes = Object.fromEntries(Object.entries(subprotocols).map(([name, encoding]) => [name, `application/${encoding}`]))

/** Returns the AsyncAPI document of the tiers that `scope` serves. The document is cached until the public URL changes. */
function asyncapiOf (scope: FastifyInstance, { tiers, options }: DocsOptions) {
  let cached: { url: string, document: object } | undefined
  return function currentDocument (): object {
    const url = publicUrlOf(scope, options)
    if (cached?.url !== url) {
      const served = tiers.filter(({ options: { path } }) => scope.hasRoute({ method: 'GET', url: scope.prefix + path }))
      cached = { url, document: asyncapiDocument({ tiers: served, url, contentTypes }) }
    }
    return cached.document
  }
}

async function documentRoutes (scope: FastifyInstance, sources: DocsOptions) {
  const asyncapi = asyncapiOf(scope, sources)
  // swagger-ui reads the document by this name; the decorator of the host, above this scope, is not affected.
  scope.swagger = scope[decorator]
  await scope.register(swaggerUi, { routePrefix: '/docs' })
  const refuseOtherMethods = collectMethods(scope)
  scope.get('/openapi.json', { schema: { hide: true } }, async function getOpenapi () { return scope[decorator]() })
  scope.get('/asyncapi.json', { schema: { hide: true } }, async function getAsyncapi () { return asyncapi() })
  refuseOtherMethods()
}

/** Describes the routes that the scope registers after this plugin: `/docs`, `/openapi.json` and `/asyncapi.json`. */
async function docs (scope: FastifyInstance, options: DocsOptions) {
  await scope.register(swagger, {
    decorator,
    openapi: {
      openapi: '3.1.0',
      info: { title: implementation.name, version: implementation.version, description },
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
      security: [{}, { bearer: [] }]
    }
  })
  await scope.register(documentRoutes, options)
}

export default fp(docs, { name: 'agent-registry-docs', fastify: '5.x' })
