import { createHash, randomUUID } from 'node:crypto'
import type { Clock } from '../lib/clock.js'
import { problem } from '../errors.js'
import type { KeyValueStore } from '../storage/kv-store.js'

/** A request that may come twice. */
export interface OnceOnly {
  /** Who asks: nobody meets the keys of somebody else. */
  caller: string
  /** What the client calls this request. */
  key: string
  /** What it asks for: something else under the same key is a mistake of the client. */
  request: string
  /** How long it may run (ms). */
  withinMs: number
}

/** What the store holds of a request: since when it runs and until when it may, or what it was answered with. */
interface Use { request: string, by: string, until?: number, answer?: { value: unknown } }

const kind = 'idempotency'
const keptMs = 3_600_000
/** Beyond the time that a request may run: a process that has not answered by then is gone. */
const graceMs = 60_000

const digestOf = (...texts: string[]) => createHash('sha256').update(JSON.stringify(texts)).digest('base64url')

/**
 * Requests that are repeated under one key are done once, by whichever process, and answered alike for an hour
 * (draft-ietf-httpapi-idempotency-key-header). What fails is not kept: it can be tried again under the same key.
 */
export class Idempotency {
  readonly #state: KeyValueStore
  readonly #now: Clock

  constructor ({ state, now }: { state: KeyValueStore, now: Clock }) {
    this.#state = state
    this.#now = now
  }

  /**
   * @param run what is done the first time
   * @returns what that led to, as JSON has it
   * @throws idempotency-key-reused for another request; request-in-progress while the first runs; whatever `run` throws
   */
  async once<T> ({ caller, key, request, withinMs }: OnceOnly, run: () => Promise<T>): Promise<T> {
    const id = digestOf(caller, key)
    const digest = digestOf(request)
    const mine = JSON.stringify({ request: digest, by: randomUUID(), until: this.#now() + withinMs + graceMs } satisfies Use)
    const earlier = await this.#claim(id, digest, mine)
    if (earlier) return earlier.value as T
    return await this.#run(id, { digest, mine }, run)
  }

  /** @returns the answer that was given before; undefined where this one is to run */
  async #claim (id: string, request: string, mine: string): Promise<{ value: unknown } | undefined> {
    for (let abandoned: string | null = null; !await this.#put(id, mine, abandoned);) {
      const text: string | undefined = await this.#state.get(kind, id)
      const use = text === undefined ? undefined : JSON.parse(text) as Use
      if (use !== undefined && use.request !== request) throw problem('idempotency-key-reused', 'This Idempotency-Key was used for another request')
      if (use?.answer) return use.answer
      if (use !== undefined && use.until! > this.#now()) throw problem('request-in-progress', 'The first request with this Idempotency-Key is still running')
      abandoned = text ?? null
    }
  }

  async #run<T> (id: string, { digest, mine }: { digest: string, mine: string }, run: () => Promise<T>): Promise<T> {
    let value: T
    try {
      value = await run()
    } catch (error) {
      // Where the store has gone meanwhile, the claim ends by itself.
      await this.#state.put({ kind, key: id, value: '', until: 0 }, mine).catch(() => {})
      throw error
    }
    const done: Use = { request: digest, by: '', answer: { value } }
    await this.#put(id, JSON.stringify(done), mine).catch(() => {})
    return value
  }

  #put (key: string, value: string, onlyIf: string | null): Promise<boolean> {
    return this.#state.put({ kind, key, value, until: this.#now() + keptMs }, onlyIf)
  }
}
