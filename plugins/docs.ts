import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import { asyncapiDocument } from '../src/protocol/asyncapi.js'
import { implementation } from '../src/protocol/identity.js'
import type { ResolvedOptions } from '../src/options.js'
import type { Tier } from '../src/sockets/tiers.js'
import { collectMethods } from '../src/http/methods.js'
import { publicUrlOf } from '../src/http/public-url.js'
import { subprotocols } from '../src/http/upgrade.js'

const description = `A live registry of AI agents: they register, show signs of life and are discovered.

Tokens: \`POST /auth/agent/request_temp_token\` with an agent key, then \`POST /agents/register\` with the temporary
token; what that answers is the agent's access token. Every error is a problem document (RFC 9457).
The WebSocket tiers are in the AsyncAPI document and in docs/protocol/websocket.md.`

/** Our own document: a host that has @fastify/swagger keeps its own, under its own name. */
const decorator = 'agentRegistryOpenapi' as const

declare module 'fastify' {
  interface FastifyInstance {
    agentRegistryOpenapi: FastifyInstance['swagger']
  }
}

/** Collects the routes that `scope` gets from now on. */
export async function collectOpenapi (scope: FastifyInstance): Promise<void> {
  await scope.register(swagger, {
    decorator,
    openapi: {
      openapi: '3.1.0',
      info: { title: implementation.name, version: implementation.version, description },
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
      security: [{}, { bearer: [] }]
    }
  })
}

const contentTypes = Object.fromEntries(Object.entries(subprotocols).map(([name, encoding]) => [name, `application/${encoding}`]))

/** Makes the document of the tiers that `scope` serves by now, once for the URL that it names. */
function asyncapiOf (scope: FastifyInstance, tiers: readonly Tier[], options: ResolvedOptions) {
  const served = tiers.filter(({ options: { path } }) => scope.hasRoute({ method: 'GET', url: scope.prefix + path }))
  let made: { url: string, document: object } | undefined
  return function currentDocument (): object {
    const url = publicUrlOf(scope, options)
    if (made?.url !== url) made = { url, document: asyncapiDocument({ tiers: served, url, contentTypes }) }
    return made.document
  }
}

/** `/docs`, `/openapi.json` and `/asyncapi.json`. */
export default async function docs (scope: FastifyInstance, { tiers, options }: { tiers: readonly Tier[], options: ResolvedOptions }) {
  const asyncapi = asyncapiOf(scope, tiers, options)
  // swagger-ui asks for the document by this name; a host's own stays untouched above this scope.
  scope.swagger = scope[decorator]
  await scope.register(swaggerUi, { routePrefix: '/docs' })
  const refuseOtherMethods = collectMethods(scope)
  scope.get('/openapi.json', { schema: { hide: true } }, async function getOpenapi () { return scope[decorator]() })
  scope.get('/asyncapi.json', { schema: { hide: true } }, async function getAsyncapi () { return asyncapi() })
  refuseOtherMethods()
}
