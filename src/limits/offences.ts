const abuseMs = 10_000
/** Time without an offence after which a sender has a clean sheet. */
const forgivenMs = 1000
/** So many refusals within so long are still answered as they come. */
const maxRefusals = 100
const refusalsMs = 100

/** What a sender did whose frames were refused. */
export class Offences {
  #since = 0
  #at = -Infinity
  /** When it was told to come again. */
  #retryAt = -Infinity
  #countedSince = -Infinity
  #refusals = 0

  /** It has gone on for too long to be let go on. */
  get isAbuse (): boolean { return this.#at - this.#since > abuseMs }

  /** So much is refused that answering all of it would be a burden. */
  get isFlood (): boolean { return this.#refusals > maxRefusals }

  /** @param isOwn over its own rate, not just over what others behind its address have left */
  refused (now: number, retryAfterMs: number, isOwn: boolean): void {
    // Whoever comes when it was told to is not to blame for its neighbours.
    if (isOwn || now < this.#retryAt) this.#offended(now)
    this.#retryAt = now + retryAfterMs
    this.#count(now)
  }

  /** A sender over the limit still gets a frame through now and then: only a pause ends the count. */
  #offended (now: number) {
    if (now - this.#at > forgivenMs) this.#since = now
    this.#at = now
  }

  #count (now: number) {
    if (now - this.#countedSince >= refusalsMs) {
      this.#countedSince = now
      this.#refusals = 0
    }
    this.#refusals++
  }
}
