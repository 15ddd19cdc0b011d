import type { FastifyBaseLogger, FastifyInstance, FastifyRequest } from 'fastify'

/** What is logged is an object; the types of Fastify know only strings. */
type Serializer = (request: FastifyRequest) => string

/** Where pino keeps the serializers of a logger; other loggers have none. */
const serializers = Symbol.for('pino.serializers')

const asLogged = (value: object) => value as unknown as string

function asPlain ({ method, url, host, ip }: FastifyRequest) {
  return asLogged({ method, url, host, remoteAddress: ip })
}

/** Requests as the host logs them, but without the query of the URL: tokens and tickets may stand in it. */
function withoutQueries (log: FastifyBaseLogger): Record<string, Serializer> {
  const { req: serialize = asPlain } = (log as unknown as Record<symbol, { req?: Serializer } | undefined>)[serializers] ?? {}
  return {
    req: function serializeRequest (request) {
      const path = request.url.split('?', 1)[0]!
      const cut = (value: unknown) => typeof value === 'string' ? value.replaceAll(request.url, path) : value
      const logged: unknown = serialize(request)
      if (typeof logged !== 'object' || logged === null) return cut(logged) as string
      return asLogged(Object.fromEntries(Object.entries(logged).map(([name, value]) => [name, cut(value)])))
    }
  }
}

/**
 * Keeps the queries of URLs out of what is logged of the requests of `scope`. With pino every logger of a request is made of
 * one that has the serializer already: to give it to each, as `logSerializers` does, copies all serializers each time.
 */
export function hideQueries (scope: FastifyInstance): void {
  const { childLoggerFactory, log } = scope
  const ours = withoutQueries(log)
  const base = serializers in log ? log.child({}, { serializers: ours }) : undefined
  scope.setChildLoggerFactory(function childOfBase (logger, bindings, options, raw) {
    if (base && !options.serializers) return childLoggerFactory.call(this, base, bindings, options, raw)
    // Those of the scope that the registry is in.
    const all = Object.assign(Object.create(options.serializers ?? null), ours)
    return childLoggerFactory.call(this, logger, bindings, { ...options, serializers: all }, raw)
  })
}
