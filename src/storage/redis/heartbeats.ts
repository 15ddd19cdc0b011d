import type { Heartbeat } from '../agent-store.js'

interface Waiting { sign: Heartbeat, resolve: (renewed: Renewed) => void, reject: (error: unknown) => void }

/** The revision of the agent and when it was seen, or why not. */
export interface Renewed { readonly n: number, readonly seen: number }

const signsPerCall = 1000

/**
 * Renews leases: what is asked for in one tick, or while the call before is on its way, goes in one call. The busier a
 * process is, the less a sign of life costs it and Redis.
 */
export class Signs {
  readonly #send: (signs: readonly Heartbeat[]) => Promise<readonly Renewed[]>
  #waiting: Waiting[] = []
  #isBusy = false

  constructor (send: (signs: readonly Heartbeat[]) => Promise<readonly Renewed[]>) {
    this.#send = send
  }

  add (sign: Heartbeat): Promise<Renewed> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ sign, resolve, reject })
      if (!this.#isBusy) this.#begin()
    })
  }

  #begin () {
    this.#isBusy = true
    setImmediate(() => { this.#work() })
  }

  async #work (): Promise<void> {
    while (this.#waiting.length > 0) {
      const waiting = this.#waiting
      this.#waiting = []
      const calls = []
      for (let first = 0; first < waiting.length; first += signsPerCall) calls.push(this.#renew(waiting.slice(first, first + signsPerCall)))
      await Promise.all(calls)
    }
    this.#isBusy = false
  }

  async #renew (waiting: readonly Waiting[]): Promise<void> {
    try {
      const renewed = await this.#send(waiting.map(({ sign }) => sign))
      waiting.forEach(({ resolve }, index) => { resolve(renewed[index]!) })
    } catch (error) {
      for (const { reject } of waiting) reject(error)
    }
  }
}
