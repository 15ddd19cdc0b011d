import { isAway } from '../../errors.js'
import type { MessageBroker } from '../../storage/message-broker.js'
import type { Deadlines } from '../../lib/deadlines.js'

export interface FollowedLogsOptions { broker: MessageBroker, deadlines: Deadlines, onError: (error: unknown) => void }

const retryMs = 1000

/** Logs that are to be followed for as long as somebody wants them, also when the broker was away at first. */
export class FollowedLogs {
  readonly #options: FollowedLogsOptions
  readonly #wanted = new Set<string>()
  readonly #waiting = new Set<string>()

  constructor (options: FollowedLogsOptions) {
    this.#options = options
  }

  /** Resolves when it was tried; never rejects. */
  async follow (log: string): Promise<void> {
    this.#wanted.add(log)
    try {
      await this.#options.broker.follow(log)
    } catch (error) {
      if (!isAway(error)) this.#options.onError(error)
      this.#retry(log)
    }
    // Nobody may want it any more.
    if (!this.#wanted.has(log)) this.#options.broker.unfollow(log)
  }

  unfollow (log: string): void {
    this.#wanted.delete(log)
    this.#options.broker.unfollow(log)
  }

  #retry (log: string) {
    if (this.#waiting.has(log)) return
    this.#waiting.add(log)
    this.#options.deadlines.after(retryMs, () => {
      this.#waiting.delete(log)
      if (this.#wanted.has(log)) this.follow(log).catch(this.#options.onError)
    })
  }
}
