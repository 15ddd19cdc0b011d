interface Lease {
  readonly id: string
  deadline: number
  earlier: Lease | undefined
  later: Lease | undefined
}

/**
 * Ids in the order of their deadlines. All leases have the same length and the clock never goes back, so that a
 * renewed lease is always the last one and a linked list is all it takes: renewing is O(1), and finding what is due
 * costs only what is due. (The order of a Map would say the same, but a Map keeps what was deleted until it is rehashed:
 * an id that is deleted and set again and again makes its own bucket longer each time.)
 */
export class LeaseQueue {
  readonly #leases = new Map<string, Lease>()
  #earliest: Lease | undefined
  #latest: Lease | undefined
  #shift = 0

  get size () { return this.#leases.size }

  /** @param deadline epoch milliseconds, not before any other in the queue */
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

  /** Epoch milliseconds. */
  deadlineOf (id: string): number | undefined {
    const lease = this.#leases.get(id)
    return lease && lease.deadline + this.#shift
  }

  /** Moves every deadline `ms` later. */
  shift (ms: number): void {
    this.#shift += ms
  }

  /** Ids whose deadline is not after `now`, oldest first; the caller removes them or sets them again. */
  * due (now: number): Generator<string> {
    const limit = now - this.#shift
    const due: Lease[] = []
    for (let lease = this.#earliest; lease && lease.deadline <= limit; lease = lease.later) due.push(lease)
    // The reader may delete or renew others than the one that it was given.
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

  /** Also of one that is in no list yet. */
  #unlink (lease: Lease) {
    if (lease.earlier) lease.earlier.later = lease.later
    else if (this.#earliest === lease) this.#earliest = lease.later
    if (lease.later) lease.later.earlier = lease.earlier
    else if (this.#latest === lease) this.#latest = lease.earlier
    lease.earlier = lease.later = undefined
  }
}
