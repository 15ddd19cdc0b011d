import { createHash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { problem } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import { RunOnce } from '../lib/run-once.js'
import type { KeyValueKind, KeyValueStore } from '../storage/kv-store.js'
import { headerOf } from './requests.js'

const keptMs = 3_600_000
/** Added to the time that a request may take: after that its process must have ended. */
const graceMs = 60_000
/** Limits on stored responses per process. Within an hour each caller can use 10,000 keys. */
const limits = { maxRecords: 100_000, maxBytes: 67_108_864, maxRecordsPerOwner: 10_000 }

const maxKeyLength = 255
/** A string of Structured Fields (RFC 8941 §3.3.3), or one without quotes, as many clients send it. */
const keyPattern = /^(?:"((?:[ !#-[\]-~]|\\["\\])+)"|([!#-~]+))$/

const digestOf = (...texts: string[]) => createHash('sha256').update(JSON.stringify(texts)).digest('base64url')

interface IdempotentRequest {
  /** The client; keys of different clients are independent. */
  caller: string
  key: string
  /** The content of the request: a key may be used for one request only. */
  request: string
  /** How long the request may take (ms). */
  withinMs: number
}

/**
 * Runs requests with an `Idempotency-Key` once, at any process, and repeats the response for an hour
 * (draft-ietf-httpapi-idempotency-key-header). A failed request can be repeated with the same key.
 */
export class Idempotency {
  readonly #runOnce: RunOnce<KeyValueKind>

  constructor ({ kv, now }: { kv: KeyValueStore, now: Clock }) {
    this.#runOnce = new RunOnce({ store: kv, kind: 'idempotency', now, keptMs, limits })
  }

  /**
   * @returns the result of `run`, or of the first request with this key as JSON represents it
   * @throws idempotency-key-reused for a different request; request-in-progress while the first one runs; what `run` throws
   */
  async once<T> ({ caller, key, request, withinMs }: IdempotentRequest, run: () => Promise<T>): Promise<T> {
    const digest = digestOf(request)
    const claim = await this.#runOnce.claim({ key: digestOf(caller, key), request: digest, owner: caller, runMs: withinMs + graceMs })
    if (claim.request !== digest) throw problem('idempotency-key-reused', 'This Idempotency-Key was used for another request')
    if (claim.state === 'running') throw problem('request-in-progress', 'The first request with this Idempotency-Key is still running')
    // The same request has recorded a result of the same type.
    return claim.state === 'done' ? claim.value as T : this.#runOnce.run(claim, run, result => result)
  }

  /** Runs an HTTP request once if it has an `Idempotency-Key`. */
  async onceFor<T> (
    { request, caller, withinMs = 10_000 }: { request: FastifyRequest, caller: string, withinMs?: number }, run: () => Promise<T>
  ): Promise<T> {
    const key = idempotencyKeyOf(request)
    if (key === undefined) return run()
    const { method, url, body } = request
    return this.once({ caller, key, request: JSON.stringify([method, url, body]), withinMs }, run)
  }
}

/** @throws request-error for a malformed key */
export function idempotencyKeyOf (request: FastifyRequest): string | undefined {
  const text = headerOf(request, 'idempotency-key')
  if (text === undefined) return undefined
  const [, quoted, bare] = (text.length <= maxKeyLength ? keyPattern.exec(text) : null) ?? []
  const key = quoted ?? bare
  if (key === undefined) throw problem('request-error', `An Idempotency-Key is a string of 1 to ${maxKeyLength} printable characters`)
  return key
}

/** The id of a message. The key gives retries the same id, since a message may be stored although the request failed. */
export function messageIdOf (request: FastifyRequest, given: string | undefined): string | undefined {
  const key = idempotencyKeyOf(request)
  return given ?? (key && createHash('sha256').update(key).digest('base64url'))
}
