import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { problem, validationFailed, type ProblemError, retryAfter } from '../src/errors.js'
import { jittered } from '../src/lib/jitter.js'
import type { Registry } from '../src/registry/registry.js'
import { headerOf } from '../src/http/guard.js'

const header = 'x-min-revision'
/** How long a request waits for changes that were made elsewhere. */
const waitMs = 1_000

interface Wanted { readonly epoch: string, readonly n: number }

/** @throws validation-failed for what is no revision */
function wantedBy (text: string): Wanted {
  const [, epoch, n] = /^([\w-]{1,40}):(\d{1,15})$/.exec(text) ?? []
  if (epoch === undefined) throw validationFailed([{ path: '/headers/x-min-revision', message: 'Expected a revision' }])
  return { epoch, n: Number(n) }
}

/** Lets requests wait until the replica has what they have heard of. */
class Waiting {
  readonly #registry: Registry
  readonly #checks = new Set<() => void>()

  constructor (registry: Registry) {
    this.#registry = registry
    registry.on('difference', () => this.#look())
  }

  has ({ epoch, n }: Wanted): boolean {
    const { replica } = this.#registry
    return replica.epoch === epoch && replica.revision >= n
  }

  /** Calls `done` as soon as the revision is there, or with why it is not. */
  until (wanted: Wanted, done: (error?: ProblemError) => void): void {
    const finish = (error?: ProblemError) => {
      clearTimeout(timer)
      this.#checks.delete(check)
      done(error)
    }
    const check = () => { if (this.has(wanted)) finish() }
    const timer = setTimeout(() => finish(this.has(wanted) ? undefined : this.#objection(wanted)), waitMs).unref()
    this.#checks.add(check)
  }

  #objection ({ epoch }: Wanted): ProblemError {
    if (epoch !== this.#registry.replica.epoch) return problem('precondition-failed', 'The revision in X-Min-Revision is of another life of this registry: start anew')
    return problem('storage-unavailable', 'The revision in X-Min-Revision has not arrived here yet', retryAfter(jittered(waitMs, 0.5)))
  }

  #look () {
    for (const check of this.#checks) check()
  }
}

/**
 * Says of the answers of `scope` how new they are: which revision a read shows (`X-Registry-Revision`) and, while the
 * store is away, since when nothing new has come (`X-Registry-Stale`). A request with `X-Min-Revision` waits for it.
 */
export function addFreshness (scope: FastifyInstance, registry: Registry): void {
  const waiting = new Waiting(registry)

  function describe ({ method }: FastifyRequest, reply: FastifyReply) {
    if (method === 'GET' || method === 'HEAD') reply.header('x-registry-revision', registry.revision)
    if (registry.outage) reply.header('x-registry-stale', new Date(registry.outage.since).toISOString())
  }

  scope.addHook('preHandler', function awaitRevision (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) {
    const text = headerOf(request, header)
    const wanted = text === undefined ? undefined : wantedBy(text)
    function proceed (error?: ProblemError) {
      describe(request, reply)
      done(error)
    }
    if (!wanted || waiting.has(wanted)) proceed()
    else waiting.until(wanted, proceed)
  })
}
