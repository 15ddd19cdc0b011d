import { Type } from '@sinclair/typebox'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { problem, problemTypes, type ProblemType } from '../src/errors.js'
import { answers } from '../src/protocol/schemas/rest.js'

const ProblemTypeInfo = Type.Object({ type: Type.String(), title: Type.String(), status: Type.Integer() })

/** `GET /problems/:type`: what the `type` of a problem document points at. */
const problemRoutes: FastifyPluginAsyncTypebox = async function problemRoutes (scope) {
  scope.get('/problems/:type', {
    schema: { tags: ['service'], summary: 'A problem type', params: Type.Object({ type: Type.String() }), response: answers(ProblemTypeInfo) }
  }, async function getProblemType ({ params: { type } }) {
    if (!Object.hasOwn(problemTypes, type)) throw problem('not-found', 'There is no such problem type')
    const [title, status] = problemTypes[type as ProblemType]
    return { type, title, status }
  })
}

export default problemRoutes
