import type { FastifyInstance, HTTPMethods } from 'fastify'
import { problem } from '../src/errors.js'

const methods: HTTPMethods[] = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/**
 * Notes the methods of every path that is added to `scope` from now on. The function that is returned answers the
 * others with 405 and `Allow`; call it after the last route. OPTIONS stays free: it is the host's, for CORS.
 */
export function collectMethods (scope: FastifyInstance): () => void {
  const served = new Map<string, Set<string>>()

  scope.addHook('onRoute', function collect ({ url, method }) {
    const known = served.get(url) ?? new Set()
    for (const name of [method].flat()) known.add(name)
    served.set(url, known)
  })

  return function refuseOthers () {
    for (const [url, known] of [...served]) {
      const allow = [...known].join(', ')
      scope.route({
        method: methods.filter(method => !known.has(method)),
        url: url.slice(scope.prefix.length) || '/',
        schema: { hide: true },
        // Before a body is read: it does not matter what is in it.
        onRequest: async function refuseMethod () {
          throw problem('method-not-allowed', `Allowed here: ${allow}`, { headers: { allow } })
        },
        handler: async function neverReached () {}
      })
    }
  }
}
