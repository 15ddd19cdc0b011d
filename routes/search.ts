import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { guard } from '../src/http/guard.js'
import type { Core } from '../src/core.js'
import { SearchBody, SearchQuery, SearchResponse } from '../src/protocol/schemas/search.js'
import { answers } from '../src/protocol/schemas/rest.js'

/** `GET` asks for fewer when it does not say, as existing clients expect. */
const queryTopK = 3

/** `/agents/search` for agents, `/public/search` for everybody: the same agents, by what everybody may see of them. */
const searchRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function searchRoutes (scope, { core: { search, authority, options } }) {
  const agent = guard(authority, { takes: ['agent', 'admin'], level: 'agent' })
  const { topK, minSimilarity } = options.search

  function find (request: SearchBody, topKDefault: number) {
    return search.search({ ...request, top_k: request.top_k ?? topKDefault, min_similarity: request.min_similarity ?? minSimilarity })
  }

  scope.post('/agents/search', {
    schema: { tags: ['agents'], summary: 'Agents that fit a query, best first', body: SearchBody, response: answers(SearchResponse) }, preValidation: agent
  }, async function searchAgents ({ body }) { return find(body, topK) })

  scope.get('/agents/search', {
    schema: { tags: ['agents'], summary: 'The same by query string', querystring: SearchQuery, response: answers(SearchResponse) }, preValidation: agent
  }, async function searchAgentsByQuery ({ query }) { return find(query, queryTopK) })

  scope.post('/public/search', {
    schema: { tags: ['public'], summary: 'Agents that fit a query, best first', body: SearchBody, response: answers(SearchResponse) }
  }, async function searchPublic ({ body }) { return find(body, topK) })
}

export default searchRoutes
