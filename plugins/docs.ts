import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import { implementation } from '../src/identity.js'
import { collectMethods } from './methods.js'

const description = `A live registry of AI agents: they register, show signs of life and are discovered.

Tokens: \`POST /auth/agent/request_temp_token\` with an agent key, then \`POST /agents/register\` with the temporary
token; what that answers is the agent's access token. Every error is a problem document (RFC 9457).
The WebSocket tiers are described in docs/protocol.md.`

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

/** `/docs` and `/openapi.json`. */
export default async function docs (scope: FastifyInstance) {
  // swagger-ui asks for the document by this name; a host's own stays untouched above this scope.
  scope.swagger = scope[decorator]
  await scope.register(swaggerUi, { routePrefix: '/docs' })
  const refuseOtherMethods = collectMethods(scope)
  scope.get('/openapi.json', { schema: { hide: true } }, async function getOpenapi () { return scope[decorator]() })
  refuseOtherMethods()
}
