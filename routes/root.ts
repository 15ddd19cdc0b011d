import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { Core } from '../src/core.js'
import { implementation, protocol } from '../src/protocol/identity.js'

const Root = Type.Object({
  service: Type.String(),
  version: Type.String({ description: 'Version of the protocol' }),
  status: Type.String(),
  dashboard: Type.String(),
  docs: Type.String(),
  implementation: Type.Object({ name: Type.String(), version: Type.String() })
})

/** `GET /`: what this is. */
export default async function rootRoutes (scope: FastifyInstance, { core: { options: { prefix } } }: { core: Core }) {
  scope.get('/', { schema: { tags: ['service'], summary: 'What this is', response: { 200: Root } } }, async function getRoot () {
    return { service: protocol.name, version: protocol.version, status: 'healthy', dashboard: `${prefix}/dashboard`, docs: `${prefix}/docs`, implementation }
  })
}
