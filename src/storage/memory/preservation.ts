const minimumFleet = 10
const share = 0.15
const leasesHeld = 3

/**
 * Self-preservation: when implausibly many leases end at once, the fault is more likely ours or the network's than the
 * agents', so their leases are held instead of taken. Unlike Eureka's it ends: after three leases, or on an admin's
 * word, what is held goes at a bounded rate, and small fleets never trip it.
 *
 * d = leases that ended within the last lease period, those that are due now among them; n = agents alive or held before
 * any of these is taken. Held when n >= 10 and d > max(3, 15 % of n); released at 15 % of n a second.
 */
export class Preservation {
  readonly #leaseMs: number
  readonly #enabled: boolean
  /** How many leases ended when, within the last lease period, oldest first. */
  #ended: Array<{ at: number, count: number }> = []
  /** Held ids and since when, oldest first. */
  readonly #held = new Map<string, number>()
  #releaseNow = false
  /** Agents that may go per millisecond, and how many of them that were not let go yet. */
  #rate = 0
  #credit = 0
  #creditedAt = 0

  constructor ({ leaseMs, enabled }: { leaseMs: number, enabled: boolean }) {
    this.#leaseMs = leaseMs
    this.#enabled = enabled
  }

  get heldCount () { return this.#held.size }

  /** Counts leases that ended at `now` and decides whether they are held; `fleet` is n. */
  holds (now: number, count: number, fleet: number): boolean {
    if (!this.#enabled || count === 0) return false
    this.#ended = [...this.#ended.filter(({ at }) => at > now - this.#leaseMs), { at: now, count }]
    const ended = this.#ended.reduce((sum, { count }) => sum + count, 0)
    return fleet >= minimumFleet && ended > Math.max(3, share * fleet)
  }

  hold (id: string, now: number): void {
    this.#held.set(id, now)
  }

  /** When the hold of an agent began. */
  heldSince (id: string): number | undefined {
    return this.#held.get(id)
  }

  forget (id: string): void {
    this.#held.delete(id)
    if (this.#held.size === 0) this.#releaseNow = false
  }

  /** Lets go of all that is held, at the bounded rate. */
  release (): void {
    this.#releaseNow = this.#held.size > 0
  }

  shift (ms: number): void {
    for (const [id, since] of this.#held) this.#held.set(id, since + ms)
    if (this.#creditedAt !== 0) this.#creditedAt += ms
  }

  /** Ids whose hold has ended, at most 15 % of `fleet` for each second since the last call. */
  due (now: number, fleet: number): string[] {
    const ready = this.#ready(now)
    if (ready.length === 0) {
      this.#creditedAt = 0
      return ready
    }
    return ready.slice(0, this.#allowance(now, fleet))
  }

  #ready (now: number): string[] {
    const ready: string[] = []
    for (const [id, since] of this.#held) {
      if (!this.#releaseNow && since + leasesHeld * this.#leaseMs > now) break
      ready.push(id)
    }
    return ready
  }

  /** Whole agents that may go now; the rate is fixed when a release begins, or it would never end. */
  #allowance (now: number, fleet: number): number {
    if (this.#creditedAt === 0) {
      this.#rate = Math.max(1, share * fleet) / 1000
      this.#credit = 1
    } else {
      this.#credit += (now - this.#creditedAt) * this.#rate
    }
    this.#creditedAt = now
    const allowance = Math.floor(this.#credit + 1e-9)
    this.#credit -= allowance
    return allowance
  }
}
