import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../lib/clock.js'
import { ExpiringMap } from '../lib/expiring-map.js'
import { RunOnce } from '../lib/run-once.js'
import type { KeyValueKind, KeyValueStore } from '../storage/kv-store.js'
import { tokenInvalid } from './tokens.js'

/** A request that uses up a temporary token. */
export interface OneTimeRequest<T, R> {
  /** Identifies the request, for instance a hash of method, path and body. */
  key: string
  run: () => Promise<T>
  /** The JSON value from which another process repeats the response. */
  record: (result: T) => R
  /** The response of another process, from its record. */
  replay: (recorded: R) => Promise<T> | T
}

interface SharedResult { request: string, result: Promise<unknown> }

const tokenLifeMs = 900_000
/** How long the request that used up a token may be repeated. */
const repeatMs = 60_000
/** How long a request may run before another process may use the token. */
const runMs = 60_000
const pollMs = 50

const ignore = () => {}

/**
 * Temporary tokens are valid for one successful request, and for repeating that request within a minute, at any process.
 * If a process ends while its request runs, the token can be used again after a minute; the registry then treats the
 * repeated request like one with another token of the same key. Records are not limited in number: a token whose record
 * was dropped could be used twice. The rate limit of registrations and the life of a token bound them.
 */
export class OneTimeTokens {
  readonly #runOnce: RunOnce<KeyValueKind>
  readonly #now: Clock
  readonly #waitMs: number
  readonly #running = new Map<string, SharedResult>()
  readonly #completed: ExpiringMap<SharedResult>

  /** @param options.waitMs how long a request waits for one that another process runs */
  constructor ({ state, now, waitMs = 10_000 }: { state: KeyValueStore, now: Clock, waitMs?: number }) {
    this.#runOnce = new RunOnce({ store: state, kind: 'spent', now, keptMs: tokenLifeMs })
    this.#now = now
    this.#waitMs = waitMs
    this.#completed = new ExpiringMap(now)
  }

  /**
   * Runs a request with a temporary token. The same request shares the result of one that runs or has succeeded; a
   * different one waits for the one that runs.
   * @throws token-invalid if another request has used the token; whatever `run` throws, which leaves the token unused
   */
  async use<T, R> (tokenId: string, request: OneTimeRequest<T, R>): Promise<T> {
    let running = this.#running.get(tokenId)
    while (running && running.request !== request.key) {
      await running.result.catch(ignore)
      running = this.#running.get(tokenId)
    }
    const shared = running ?? this.#completed.get(tokenId)
    // Equal keys mean equal requests, which have results of one type.
    if (shared?.request === request.key) return shared.result as Promise<T>
    const result = this.#run(tokenId, request)
    this.#running.set(tokenId, { request: request.key, result })
    return result
  }

  async #run<T, R> (tokenId: string, request: OneTimeRequest<T, R>): Promise<T> {
    try {
      const claim = await this.#claim(tokenId, request.key)
      if (claim.state === 'done') return await this.#repeat(claim, request)
      const result = await this.#runOnce.run(claim, request.run, request.record)
      this.#completed.set(tokenId, { request: request.key, result: Promise.resolve(result) }, this.#now() + repeatMs)
      return result
    } finally {
      this.#running.delete(tokenId)
    }
  }

  /** Waits while another process uses the token. */
  async #claim (tokenId: string, request: string) {
    for (let polls = 0; polls < this.#waitMs / pollMs; polls++) {
      const claim = await this.#runOnce.claim({ key: tokenId, request, owner: tokenId, runMs })
      if (claim.state !== 'running') return claim
      await sleep(pollMs)
    }
    throw tokenInvalid('invalid', 'This temporary token is in use')
  }

  #repeat<T, R> ({ request, at, value }: { request: string, at: number, value: unknown }, { key, replay }: OneTimeRequest<T, R>): Promise<T> | T {
    if (request !== key || at + repeatMs <= this.#now()) throw tokenInvalid('invalid', 'This temporary token has been used')
    // The record of the same request was made by the same `record` function.
    return replay(value as R)
  }
}
