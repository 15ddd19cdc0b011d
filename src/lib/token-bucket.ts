/** Differences of sums of milliseconds are not exact: without this a wait that was kept might be a rounding error short. */
const roundingMs = 1e-6

/**
 * Lets `burst` through at once and `perSecond` for long: frames of a connection, registrations, upgrades. What was taken
 * is kept as a debt of time that goes by itself (the virtual scheduling of ITU-T I.371).
 */
export class TokenBucket {
  readonly #intervalMs: number
  readonly #mostMs: number
  #debtMs = 0
  #at: number

  constructor ({ perSecond, burst, now }: { perSecond: number, burst: number, now: number }) {
    this.#intervalMs = 1000 / perSecond
    this.#mostMs = (burst - 1) * this.#intervalMs + roundingMs
    this.#at = now
  }

  /** When nothing of what was taken is owed any more. */
  get fullAt (): number { return this.#at + this.#debtMs }

  /** @returns 0 when there is a token, or the milliseconds until there is one */
  wait (now: number): number {
    // A clock that was set back says nothing of the time that has passed.
    if (now > this.#at) this.#debtMs = Math.max(0, this.#debtMs - (now - this.#at))
    this.#at = now
    return this.#debtMs <= this.#mostMs ? 0 : Math.ceil(this.#debtMs - this.#mostMs)
  }

  /** Takes the token that `wait` has found. */
  spend (): void {
    this.#debtMs += this.#intervalMs
  }

  /** Takes one token. @returns 0, or the milliseconds until there is one */
  take (now: number): number {
    const wait = this.wait(now)
    if (wait === 0) this.spend()
    return wait
  }
}
