import type { Principal } from '../auth/principal.js'
import { tokenInvalid } from '../auth/tokens.js'
import { answers } from '../registry/feed/delta.js'
import type { Place } from '../registry/feed/position.js'
import type { Reader, Readers } from '../registry/feed/subscribers.js'
import type { Visitor, Visitors } from '../limits/long-requests.js'

export interface PollOptions { place: Place, readers: Readers, visitors: Visitors, principal: Principal, address: string, waitMs: number }

/** A request for changes that waits until there are some, for `waitMs` at most. */
export class Poll implements Reader, Visitor {
  readonly place: Place
  readonly principal: Principal
  readonly address: string
  /** JSON of the answer; rejects when the right to read ends. */
  readonly answer: Promise<string>
  readonly #readers: Readers
  readonly #visitors: Visitors
  readonly #timer: NodeJS.Timeout
  #resolve!: (text: string) => void
  #reject!: (error: Error) => void

  constructor ({ place, readers, visitors, principal, address, waitMs }: PollOptions) {
    this.place = place
    this.principal = principal
    this.address = address
    this.#readers = readers
    this.#visitors = visitors
    this.answer = new Promise((resolve, reject) => { [this.#resolve, this.#reject] = [resolve, reject] })
    this.#timer = setTimeout(() => this.#settle(), waitMs).unref()
    visitors.add(this)
    readers.add(this)
    readers.park(this)
  }

  pump (): void {
    // Nobody is woken for nothing.
    this.#finish(taken(this.place)!)
  }

  end (reason: string): void {
    this.cut()
    this.#reject(tokenInvalid('revoked', reason))
  }

  goAway (): void {
    this.#settle()
  }

  tick (): void { /* its own timer ends it */ }

  /** Waits no more, for somebody who has gone. */
  cut (): void {
    clearTimeout(this.#timer)
    this.#readers.delete(this)
    this.#visitors.delete(this)
  }

  /** Answers with how far everything is, when nothing has come. */
  #settle () {
    this.#readers.settle(this)
    this.#finish(answers.changes([], this.place.revision))
  }

  #finish (text: string) {
    this.cut()
    this.#resolve(text)
  }
}

/** What there is for a poll now: changes, that they cannot be told, or null when there are none. */
export function taken (place: Place): string | null {
  if (place.canContinue()) return place.take(answers)
  place.renew()
  return answers.resync(place.revision)
}
