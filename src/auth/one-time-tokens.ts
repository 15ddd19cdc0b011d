import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { ExpiringMap } from '../lib/expiring-map.js'
import { tokenInvalid } from './tokens.js'
import type { Clock } from '../lib/clock.js'
import type { KeyValueStore } from '../storage/kv-store.js'

/**
 * A request with a temporary token. `key` tells requests apart, such as a hash of method, path and body; `note` says
 * what another process needs to give the same answer, and `recall` gives it there.
 */
export interface SpendingRequest<T> {
  key: string
  run: () => Promise<T>
  note: (result: T) => unknown
  recall: (note: unknown) => Promise<T> | T
}

/** What the store holds of a token: who runs a request since when, or which one has succeeded when. */
interface Use { request: string, at: number, by: string, done?: { note: unknown } }
type Claim = { mine: string, earlier?: undefined } | { earlier: Use, mine?: undefined }
interface Shared { request: string, result: Promise<unknown> }

const kind = 'spent'
const tokenLifeMs = 900_000
const repeatMs = 60_000
/** How long a process may take, or have been gone, before another may use the token that it was using. */
const abandonedMs = 60_000
const pollMs = 50

const ignore = () => {}

/**
 * Temporary tokens are good for one request that succeeds, and for repeating that one within a minute, at whichever
 * process. A request claims its token in the store before it runs and marks it as spent before it is answered. A process
 * that ends in between leaves the claim, and the token cannot be used for a minute; after that it can, and what the
 * request did meets whoever repeats it: the registry decides then as if it were another token of the same key.
 */
export class SpentTokens {
  readonly #state: KeyValueStore
  readonly #now: Clock
  readonly #waitMs: number
  readonly #self = randomUUID()
  readonly #running = new Map<string, Shared>()
  readonly #done: ExpiringMap<Shared>

  /** @param options.waitMs how long a request waits for one that another process runs */
  constructor ({ state, now, waitMs = 10_000 }: { state: KeyValueStore, now: Clock, waitMs?: number }) {
    this.#state = state
    this.#now = now
    this.#waitMs = waitMs
    this.#done = new ExpiringMap(now)
  }

  /**
   * Runs a request with a temporary token. One that repeats what runs or has succeeded shares its result; another one
   * waits for that which runs.
   * @throws token-invalid when another request has spent the token; whatever `run` throws, which spends nothing.
   */
  async once<T> (tokenId: string, request: SpendingRequest<T>): Promise<T> {
    let running = this.#running.get(tokenId)
    while (running && running.request !== request.key) {
      await running.result.catch(ignore)
      running = this.#running.get(tokenId)
    }
    const same = running ?? this.#done.get(tokenId)
    if (same?.request === request.key) return same.result as Promise<T>
    const result = this.#share(tokenId, request)
    this.#running.set(tokenId, { request: request.key, result })
    return result
  }

  async #share<T> (tokenId: string, request: SpendingRequest<T>): Promise<T> {
    try {
      const { earlier, mine } = await this.#claim(tokenId, request.key)
      if (earlier) return await this.#repeat(earlier, request)
      const result = await this.#run(tokenId, mine, request)
      this.#done.set(tokenId, { request: request.key, result: Promise.resolve(result) }, this.#now() + repeatMs)
      return result
    } finally {
      this.#running.delete(tokenId)
    }
  }

  /** Ours, or what has spent the token. Waits for a while when another process is using it. */
  async #claim (tokenId: string, request: string): Promise<Claim> {
    const mine = JSON.stringify({ request, at: this.#now(), by: this.#self })
    let abandoned: string | null = null
    for (let polls = 0; polls < this.#waitMs / pollMs; polls++) {
      if (await this.#put(tokenId, mine, abandoned)) return { mine }
      const text: string | undefined = await this.#state.get(kind, tokenId)
      const use = text === undefined ? undefined : JSON.parse(text) as Use
      if (use?.done) return { earlier: use }
      const isRunning = use !== undefined && use.at + abandonedMs > this.#now()
      abandoned = isRunning ? null : text ?? null
      if (isRunning) await sleep(pollMs)
    }
    throw tokenInvalid('invalid', 'This temporary token is being used')
  }

  #repeat<T> ({ request, at, done }: Use, { key, recall }: SpendingRequest<T>): Promise<T> | T {
    if (request === key && at + repeatMs > this.#now()) return recall(done!.note)
    throw tokenInvalid('invalid', 'This temporary token has been used')
  }

  async #run<T> (tokenId: string, mine: string, { key, run, note }: SpendingRequest<T>): Promise<T> {
    let result: T
    try {
      result = await run()
    } catch (error) {
      // Where the store has gone meanwhile, the claim is abandoned in a minute.
      await this.#state.put({ kind, key: tokenId, value: '', until: 0 }, mine).catch(ignore)
      throw error
    }
    const done: Use = { request: key, at: this.#now(), by: this.#self, done: { note: note(result) } }
    await this.#put(tokenId, JSON.stringify(done)).catch(ignore)
    return result
  }

  #put (tokenId: string, value: string, onlyIf?: string | null): Promise<boolean> {
    return this.#state.put({ kind, key: tokenId, value, until: this.#now() + tokenLifeMs }, onlyIf)
  }
}
