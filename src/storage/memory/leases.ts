interface Lease {
  readonly id: string
  deadline: number
  earlier: Lease | undefined
  later: Lease | undefined
}

/**
 * Ids in the order of their deadlines. All leases have the same length and the clock never goes back, so a renewed
 * lease is always the last one and a linked list is sufficient: renewal is O(1), and finding the due leases costs only
 * the due leases. (A Map has the same order, but it keeps deleted entries until it is rehashed: an id that is deleted
 * and set again and again makes its own bucket longer each time.)
 */
export class LeaseQueue {
  readonly #leases = new Map<string, Lease>()
  #earliest: Lease | undefined
  #latest: Lease | undefined
  #shift = 0

  get size () { return this.#leases.size }

  /** @param deadline epoch milliseconds, not before any other deadline in the queue */
  set (id: string, deadline: number): void {
    const lease = this.#leases.get(id) ?? this.#add(id)
    this.#unlink(lease)
    lease.deadline = deadline - this.#shift
    this.#append(lease)
  }

  delete (id: string): void {
    const lease = this.#leases.get(id)
    if (!lease) return
    this.#unlink(lease)
    this.#leases.delete(id)
  }

  /** @returns epoch milliseconds, or undefined for an id that is not in the queue */
  deadlineOf (id: string): number | undefined {
    const lease = this.#leases.get(id)
    return lease && lease.deadline + this.#shift
  }

  /** Moves every deadline by `ms`. */
  shift (ms: number): void {
    this.#shift += ms
  }

  /** The ids whose deadline is not after `now`, oldest first. The caller deletes them or sets them again. */
  * due (now: number): Generator<string> {
    const limit = now - this.#shift
    const due: Lease[] = []
    for (let lease = this.#earliest; lease && lease.deadline <= limit; lease = lease.later) due.push(lease)
    // The caller may delete or renew other leases than the yielded one.
    for (const lease of due) if (this.#leases.get(lease.id) === lease && lease.deadline <= limit) yield lease.id
  }

  #add (id: string): Lease {
    const lease: Lease = { id, deadline: 0, earlier: undefined, later: undefined }
    this.#leases.set(id, lease)
    return lease
  }

  #append (lease: Lease) {
    if (this.#latest) this.#latest.later = lease
    else this.#earliest = lease
    lease.earlier = this.#latest
    this.#latest = lease
  }

  /** Has no effect on a lease that is not in the list yet. */
  #unlink (lease: Lease) {
    if (lease.earlier) lease.earlier.later = lease.later
    else if (this.#earliest === lease) this.#earliest = lease.later
    if (lease.later) lease.later.earlier = lease.earlier
    else if (this.#latest === lease) this.#latest = lease.earlier
    lease.earlier = lease.later = undefined
  }
}

const minimumFleet = 10
const minimumExpired = 3
const share = 0.15
const leasesHeld = 3

/**
 * Self-preservation: when implausibly many leases end at once, a fault of the registry or the network is more likely
 * than a fault of that many agents, so the leases are held instead of ended. Unlike in Eureka, a hold is limited: after
 * three lease periods, or when an admin releases it, the held agents expire at a bounded rate. Small fleets never
 * trigger it.
 *
 * d = leases that ended within the last lease period, including those due now; n = agents alive or held before any of
 * them expires. Leases are held when n >= 10 and d > max(3, 15 % of n); held agents expire at 15 % of n per second.
 */
export class SelfPreservation {
  readonly #leaseMs: number
  readonly #enabled: boolean
  /** How many leases ended at which time, within the last lease period, oldest first. */
  #ended: Array<{ at: number, count: number }> = []
  /** The start of the hold by id, oldest first. */
  readonly #held = new Map<string, number>()
  #isReleased = false
  /** The number of agents that may expire per millisecond, and the part of it that is not used yet. */
  #rate = 0
  #credit = 0
  #creditedAt = 0

  constructor ({ leaseMs, enabled }: { leaseMs: number, enabled: boolean }) {
    this.#leaseMs = leaseMs
    this.#enabled = enabled
  }

  get heldCount () { return this.#held.size }

  /** Counts leases that ended at `now` and decides whether they are held. `fleet` is n. */
  holds (now: number, count: number, fleet: number): boolean {
    if (!this.#enabled || count === 0) return false
    this.#ended = [...this.#ended.filter(({ at }) => at > now - this.#leaseMs), { at: now, count }]
    const ended = this.#ended.reduce((sum, { count }) => sum + count, 0)
    return fleet >= minimumFleet && ended > Math.max(minimumExpired, share * fleet)
  }

  hold (id: string, now: number): void {
    this.#held.set(id, now)
  }

  /** @returns the start of the hold of an agent in epoch milliseconds */
  heldSince (id: string): number | undefined {
    return this.#held.get(id)
  }

  forget (id: string): void {
    this.#held.delete(id)
    if (this.#held.size === 0) this.#isReleased = false
  }

  /** Ends all current holds, at the bounded rate. */
  release (): void {
    this.#isReleased = this.#held.size > 0
  }

  shift (ms: number): void {
    for (const [id, since] of this.#held) this.#held.set(id, since + ms)
    if (this.#creditedAt !== 0) this.#creditedAt += ms
  }

  /** The ids whose hold has ended, at most 15 % of `fleet` for each second since the last call. */
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
      if (!this.#isReleased && since + leasesHeld * this.#leaseMs > now) break
      ready.push(id)
    }
    return ready
  }

  /** The number of agents that may expire now. The rate is fixed when a release begins; otherwise it would never end. */
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
