import { ExpiringMap } from '../expiring-map.js'
import { tokenInvalid } from './tokens.js'
import type { Clock } from '../clock.js'

interface Use { requestKey: string, result: Promise<unknown> }

const tokenLifeMs = 900_000
const repeatMs = 60_000

const ignore = () => {}

/** Temporary tokens are good for one request that succeeds, and for repeating that one within a minute. */
export class SpentTokens {
  readonly #now: Clock
  readonly #running = new Map<string, Use>()
  readonly #done: ExpiringMap<Use>
  readonly #spent: ExpiringMap<true>

  constructor ({ now }: { now: Clock }) {
    this.#now = now
    this.#done = new ExpiringMap(now)
    this.#spent = new ExpiringMap(now)
  }

  /**
   * Runs a request with a temporary token. `requestKey` tells requests apart, such as a hash of method, path and body.
   * A request that repeats one which runs or succeeded shares its result; another one waits for that which runs.
   * @throws token-invalid when another request has spent the token; whatever `run` throws, which spends nothing.
   */
  async once<T> (tokenId: string, requestKey: string, run: () => Promise<T>): Promise<T> {
    let running = this.#running.get(tokenId)
    while (running && running.requestKey !== requestKey) {
      await running.result.catch(ignore)
      running = this.#running.get(tokenId)
    }
    const same = running ?? this.#done.get(tokenId)
    if (same?.requestKey === requestKey) return same.result as Promise<T>
    if (this.#spent.get(tokenId)) throw tokenInvalid('invalid', 'This temporary token has been used')
    return this.#start(tokenId, requestKey, run)
  }

  #start<T> (tokenId: string, requestKey: string, run: () => Promise<T>): Promise<T> {
    const result = this.#settle(tokenId, requestKey, Promise.resolve().then(run))
    this.#running.set(tokenId, { requestKey, result })
    return result
  }

  async #settle<T> (tokenId: string, requestKey: string, result: Promise<T>): Promise<T> {
    try {
      const value = await result
      this.#done.set(tokenId, { requestKey, result }, this.#now() + repeatMs)
      this.#spent.set(tokenId, true, this.#now() + tokenLifeMs)
      return value
    } finally {
      this.#running.delete(tokenId)
    }
  }
}
