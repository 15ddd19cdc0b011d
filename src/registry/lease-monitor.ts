import { performance } from 'node:perf_hooks'
import { isAway } from '../errors.js'
import type { AgentStore } from '../storage/agent-store.js'

export interface SweeperOptions {
  store: AgentStore
  leaseMs: number
  cleanupIntervalMs: number
  onError: (error: unknown) => void
}

/**
 * Takes leases that have ended, often enough that a death is visible within a second of its deadline. When this
 * process stood still (a busy event loop, a suspended machine), every lease gets the time that was lost: agents could
 * not be heard, which is not their fault.
 */
export class Sweeper {
  readonly #store: AgentStore
  readonly #intervalMs: number
  readonly #cleanupIntervalMs: number
  readonly #onError: (error: unknown) => void
  #timer: NodeJS.Timeout | undefined
  #last = 0
  /** Time that was lost and not yet given to the leases. */
  #owed = 0
  #lastCleanup = 0
  #lag = 0
  #sweeping: Promise<void> | undefined
  #isAway = false
  /** That the store is away, since it was last there. */
  #wasTold = false

  constructor ({ store, leaseMs, cleanupIntervalMs, onError }: SweeperOptions) {
    this.#store = store
    this.#intervalMs = Math.max(20, Math.min(500, leaseMs / 4))
    this.#cleanupIntervalMs = cleanupIntervalMs
    this.#onError = onError
  }

  /** How late the last sweep was. */
  get lagMs (): number { return this.#lag }

  start (): void {
    this.#last = this.#lastCleanup = performance.now()
    this.#timer = setInterval(() => { this.#tick() }, this.#intervalMs).unref()
  }

  /**
   * While the store is away nobody is swept; agents could not be heard in that time, which is not their fault.
   * @param outageMs how long it was away, once it is back
   */
  available (isAvailable: boolean, outageMs = 0): void {
    this.#isAway = !isAvailable
    this.#owed += outageMs
  }

  async stop (): Promise<void> {
    clearInterval(this.#timer)
    await this.#sweeping
  }

  #tick () {
    const now = performance.now()
    const lost = now - this.#last - this.#intervalMs
    this.#last = now
    this.#lag = Math.max(0, lost)
    if (lost > this.#intervalMs) this.#owed += Math.ceil(lost)
    if (this.#isAway) return
    // One sweep at a time: a slow store is not asked again while it still works on the last one.
    this.#sweeping ??= this.#sweep(now)
      .then(() => { this.#wasTold = false }, error => { this.#report(error) })
      .finally(() => { this.#sweeping = undefined })
  }

  #report (error: unknown) {
    if (!isAway(error)) return this.#onError(error)
    if (!this.#wasTold) this.#onError(error)
    this.#wasTold = true
  }

  async #sweep (now: number): Promise<void> {
    await this.#extend()
    const cleanup = now - this.#lastCleanup >= this.#cleanupIntervalMs
    if (cleanup) this.#lastCleanup = now
    await this.#store.expire({ cleanup })
  }

  async #extend (): Promise<void> {
    const owed = this.#owed
    if (owed === 0) return
    await this.#store.extend(owed)
    this.#owed -= owed
  }
}
