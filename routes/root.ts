import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import { isProblemType, problem, problemTypes } from '../src/errors.js'
import { publicUrlOf } from '../src/http/requests.js'
import type { ResolvedOptions } from '../src/options.js'
import { implementation, protocol } from '../src/protocol/identity.js'
import { answers } from '../src/protocol/schemas/rest.js'

const tags = ['service']

const Root = Type.Object({
  service: Type.String(),
  version: Type.String({ description: 'Version of the protocol' }),
  status: Type.String(),
  dashboard: Type.String(),
  docs: Type.String(),
  implementation: Type.Object({ name: Type.String(), version: Type.String() })
})

const ProblemTypeInfo = Type.Object({ type: Type.String(), title: Type.String(), status: Type.Integer() })

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
const KeySet = Type.Object({ keys: Type.Array(Type.Unknown()) })

type Routes = FastifyPluginAsyncTypebox<{ options: ResolvedOptions }>

/** `GET /` if it is enabled, and `GET /problems/:type`, to which the type URIs of problem documents refer. */
const rootRoutes: Routes = async function rootRoutes (scope, { options: { prefix, routes } }) {
  if (routes.root) {
    scope.get('/', { schema: { tags, summary: 'Describe the service', response: { 200: Root } } }, async function getRoot () {
      const { name, version } = protocol
      return { service: name, version, status: 'healthy', dashboard: `${prefix}/dashboard`, docs: `${prefix}/docs`, implementation }
    })
  }

  scope.get('/problems/:type', {
    schema: { tags, summary: 'Describe a problem type', params: Type.Object({ type: Type.String() }), response: answers(ProblemTypeInfo) }
  }, async function getProblemType ({ params: { type } }) {
    if (!isProblemType(type)) throw problem('not-found', 'Unknown problem type')
    const [title, status] = problemTypes[type]
    return { type, title, status }
  })
}

/** `/.well-known/*`, at the origin. */
export const wellKnownRoutes: Routes = async function wellKnownRoutes (scope, { options }) {
  scope.get('/.well-known/arcp-configuration', {
    schema: { tags, summary: 'List the endpoints', response: { 200: Configuration } }
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
    schema: { tags, summary: 'List the public keys: none, since tokens are signed with a secret', response: { 200: KeySet } }
  }, async function getKeys (_request, reply) {
    reply.header('cache-control', 'public, max-age=3600')
    return { keys: [] }
  })
}

export default rootRoutes
