import { performance } from 'node:perf_hooks'
import { isStorageUnavailable } from '../errors.js'
import type { AgentStore } from '../storage/agent-store.js'

interface LeaseMonitorOptions {
  store: AgentStore
  leaseMs: number
  cleanupIntervalMs: number
  onError: (error: unknown) => void
}

/**
 * Lets the store end expired leases (`AgentStore.expire`), often enough that a death is visible within one second of
 * its deadline. If this process stalled (busy event loop, suspended machine), it extends all leases by the lost time:
 * agents could not renew them meanwhile.
 */
export class LeaseMonitor {
  readonly #store: AgentStore
  readonly #intervalMs: number
  readonly #cleanupIntervalMs: number
  readonly #onError: (error: unknown) => void
  #timer: NodeJS.Timeout | undefined
  #lastTick = 0
  /** Lost time by which leases are still to be extended. */
  #pendingExtensionMs = 0
  #lastCleanup = 0
  #lag = 0
  #sweeping: Promise<void> | undefined
  #isStoreAway = false
  /** Whether the current outage of the store was reported. */
  #isOutageReported = false

  constructor ({ store, leaseMs, cleanupIntervalMs, onError }: LeaseMonitorOptions) {
    this.#store = store
    this.#intervalMs = Math.max(20, Math.min(500, leaseMs / 4))
    this.#cleanupIntervalMs = cleanupIntervalMs
    this.#onError = onError
  }

  /** How late the last sweep was, in milliseconds. */
  get lagMs (): number { return this.#lag }

  start (): void {
    this.#lastTick = this.#lastCleanup = performance.now()
    this.#timer = setInterval(() => { this.#tick() }, this.#intervalMs).unref()
  }

  /**
   * Pauses sweeps while the store is unavailable, since agents cannot renew their leases then.
   * @param outageMs how long the store was unavailable, once it is available again
   */
  setAvailable (isAvailable: boolean, outageMs = 0): void {
    this.#isStoreAway = !isAvailable
    this.#pendingExtensionMs += outageMs
  }

  async stop (): Promise<void> {
    clearInterval(this.#timer)
    await this.#sweeping
  }

  #tick () {
    const now = performance.now()
    const lost = now - this.#lastTick - this.#intervalMs
    this.#lastTick = now
    this.#lag = Math.max(0, lost)
    if (lost > this.#intervalMs) this.#pendingExtensionMs += Math.ceil(lost)
    if (this.#isStoreAway) return
    // One sweep at a time: a slow store gets no second request while the first one runs.
    this.#sweeping ??= this.#sweep(now)
      .then(() => { this.#isOutageReported = false }, error => { this.#report(error) })
      .finally(() => { this.#sweeping = undefined })
  }

  #report (error: unknown) {
    if (!isStorageUnavailable(error)) return this.#onError(error)
    if (!this.#isOutageReported) this.#onError(error)
    this.#isOutageReported = true
  }

  async #sweep (now: number): Promise<void> {
    await this.#extend()
    const cleanup = now - this.#lastCleanup >= this.#cleanupIntervalMs
    if (cleanup) this.#lastCleanup = now
    await this.#store.expire({ cleanup })
  }

  async #extend (): Promise<void> {
    const extensionMs = this.#pendingExtensionMs
    if (extensionMs === 0) return
    await this.#store.extend(extensionMs)
    this.#pendingExtensionMs -= extensionMs
  }
}
