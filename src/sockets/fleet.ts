import { randomUUID } from 'node:crypto'
import type { KeyValueReplica, KeyValueCopy } from '../storage/shared-state.js'
import type { Clock } from '../lib/clock.js'
import { isAway } from '../errors.js'
import type { KeyValueEntry } from '../storage/kv-store.js'
import type { TierName } from './tiers.js'

export interface FleetSocketsOptions {
  state: KeyValueReplica
  now: Clock
  /** Sockets of this process that count against the limit of their tier. */
  countOf: (tier: TierName) => number
  onError: (error: unknown) => void
}

/** Of a process of another version perhaps not all. */
type Counts = Partial<Record<TierName, number>>

const intervalMs = 500
/** What a process says holds for so long: one that is gone is soon forgotten. */
const lifeMs = 10 * intervalMs
const names: readonly TierName[] = ['public', 'agents', 'dashboard', 'v1']

/**
 * How many sockets the processes of a registry have together. Each says how many it has, twice a second when that has
 * changed, so that a limit for all of them is kept as far as that goes.
 */
export class FleetSockets implements KeyValueCopy {
  readonly #options: FleetSocketsOptions
  readonly #process = randomUUID()
  readonly #others = new Map<string, { counts: Counts, until: number }>()
  #timer: NodeJS.Timeout | undefined
  #said = ''
  #saidUntil = 0

  constructor (options: FleetSocketsOptions) {
    this.#options = options
    options.state.attach('sockets', this)
  }

  /** Sockets of a tier in all processes. */
  countOf (tier: TierName): number {
    const now = this.#options.now()
    let sum = this.#options.countOf(tier)
    for (const { counts, until } of this.#others.values()) if (until > now) sum += counts[tier] ?? 0
    return sum
  }

  start (): void {
    this.#timer = setInterval(() => { this.#say().catch(error => { this.#failed(error) }) }, intervalMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  put ({ key, value, until }: KeyValueEntry & { value: string }): void {
    if (key !== this.#process) this.#others.set(key, { counts: JSON.parse(value) as Counts, until })
  }

  removed (key: string): void {
    this.#others.delete(key)
  }

  keys (): Iterable<string> {
    return [...this.#others.keys()]
  }

  /** A store that is away is told of elsewhere. */
  #failed (error: unknown) {
    this.#said = ''
    if (!isAway(error)) this.#options.onError(error)
  }

  async #say (): Promise<void> {
    const now = this.#options.now()
    for (const [key, { until }] of this.#others) if (until <= now) this.#others.delete(key)
    const value = JSON.stringify(Object.fromEntries(names.map(name => [name, this.#options.countOf(name)])))
    if (value === this.#said && this.#saidUntil - now > lifeMs / 2) return
    this.#said = value
    this.#saidUntil = now + lifeMs
    await this.#options.state.store.put({ kind: 'sockets', key: this.#process, value, until: this.#saidUntil })
  }
}
