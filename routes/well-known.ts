import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { publicUrlOf } from '../src/http/public-url.js'
import { protocol } from '../src/protocol/identity.js'
import type { ResolvedOptions } from '../src/options.js'

const Texts = Type.Array(Type.String())
const Configuration = Type.Object({
  issuer: Type.String(),
  jwks_uri: Type.String(),
  token_endpoint: Type.String(),
  validation_endpoint: Type.String(),
  registration_endpoint: Type.String(),
  token_endpoint_auth_methods_supported: Texts,
  id_token_signing_alg_values_supported: Texts,
  dpop_signing_alg_values_supported: Texts,
  response_types_supported: Texts,
  grant_types_supported: Texts,
  three_phase_registration_enabled: Type.Boolean(),
  service_version: Type.String()
})

/** `/.well-known/*`, at the origin. */
export default async function wellKnownRoutes (scope: FastifyInstance, { options }: { options: ResolvedOptions }) {
  scope.get('/.well-known/arcp-configuration', {
    schema: { tags: ['service'], summary: 'Where the endpoints are', response: { 200: Configuration } }
  }, async function getConfiguration () {
    const base = publicUrlOf(scope, options)
    return {
      issuer: base,
      jwks_uri: `${base}/.well-known/jwks.json`,
      token_endpoint: `${base}/auth/agent/request_temp_token`,
      validation_endpoint: `${base}/auth/agent/validate_compliance`,
      registration_endpoint: `${base}/agents/register`,
      token_endpoint_auth_methods_supported: ['client_secret_post'],
      id_token_signing_alg_values_supported: [options.jwt.algorithm],
      dpop_signing_alg_values_supported: [],
      response_types_supported: ['token'],
      grant_types_supported: ['client_credentials'],
      three_phase_registration_enabled: false,
      service_version: protocol.version
    }
  })

  scope.get('/.well-known/jwks.json', {
    schema: { tags: ['service'], summary: 'Public keys: none while tokens are signed with a secret', response: { 200: Type.Object({ keys: Type.Array(Type.Unknown()) }) } }
  }, async function getKeys (_request, reply) {
    reply.header('cache-control', 'public, max-age=3600')
    return { keys: [] }
  })
}
