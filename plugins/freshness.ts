import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { problem, retryAfter, validationFailed, type ProblemError } from '../src/errors.js'
import { headerOf } from '../src/http/requests.js'
import { jittered } from '../src/lib/jitter.js'
import type { Registry } from '../src/registry/registry.js'

const header = 'x-min-revision'
/** Time that a request waits for changes made in other processes. */
const waitMs = 1_000

interface Revision { readonly epoch: string, readonly n: number }

/** @throws validation-failed for a malformed revision */
function parseRevision (text: string): Revision {
  const [, epoch, n] = /^([\w-]{1,40}):(\d{1,15})$/.exec(text) ?? []
  if (epoch === undefined) throw validationFailed([{ path: `/headers/${header}`, message: 'Expected a revision' }])
  return { epoch, n: Number(n) }
}

/** Requests that wait until the replica has reached a revision. */
class RevisionWaiters {
  readonly #registry: Registry
  readonly #checks = new Set<() => void>()

  constructor (registry: Registry) {
    this.#registry = registry
    registry.on('difference', () => this.#checkAll())
  }

  hasReached ({ epoch, n }: Revision): boolean {
    const { replica } = this.#registry
    return replica.epoch === epoch && replica.revision >= n
  }

  /** Calls `done` when the replica has reached the revision, or with an error after `waitMs`. */
  wait (revision: Revision, done: (error?: ProblemError) => void): void {
    const finish = (error?: ProblemError) => {
      clearTimeout(timer)
      this.#checks.delete(check)
      done(error)
    }
    const check = () => { if (this.hasReached(revision)) finish() }
    const timer = setTimeout(() => finish(this.hasReached(revision) ? undefined : this.#objection(revision)), waitMs).unref()
    this.#checks.add(check)
  }

  #objection ({ epoch }: Revision): ProblemError {
    if (epoch !== this.#registry.replica.epoch) {
      return problem('precondition-failed', 'The revision in X-Min-Revision belongs to another epoch of this registry')
    }
    const detail = 'The revision in X-Min-Revision has not arrived at this process yet'
    return problem('storage-unavailable', detail, retryAfter(jittered(waitMs, 0.5)))
  }

  #checkAll () {
    for (const check of this.#checks) check()
  }
}

/**
 * Adds the revision that a read shows (`X-Registry-Revision`) and, while the store is unreachable, the time of the last
 * known state (`X-Registry-Stale`). A request with `X-Min-Revision` waits until the replica has reached that revision.
 */
async function freshness (scope: FastifyInstance, { registry }: { registry: Registry }) {
  const waiters = new RevisionWaiters(registry)

  function addHeaders ({ method }: FastifyRequest, reply: FastifyReply) {
    if (method === 'GET' || method === 'HEAD') reply.header('x-registry-revision', registry.revision)
    if (registry.outage) reply.header('x-registry-stale', new Date(registry.outage.since).toISOString())
  }

  scope.addHook('preHandler', function awaitRevision (request, reply, done) {
    const text = headerOf(request, header)
    const revision = text === undefined ? undefined : parseRevision(text)
    function proceed (error?: ProblemError) {
      addHeaders(request, reply)
      done(error)
    }
    if (!revision || waiters.hasReached(revision)) proceed()
    else waiters.wait(revision, proceed)
  })
}

export default fp(freshness, { name: 'agent-registry-freshness', fastify: '5.x' })
