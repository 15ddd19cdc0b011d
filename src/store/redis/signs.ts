import type { Sign } from '../store.js'

interface Waiting { sign: Sign, resolve: (renewed: Renewed) => void, reject: (error: unknown) => void }

/** The revision of the agent and when it was seen, or why not. */
export interface Renewed { readonly n: number, readonly seen: number }

const signsPerCall = 1000

/** Renews leases: what is asked for in one tick goes in one call. */
export class Signs {
  readonly #send: (signs: readonly Sign[]) => Promise<readonly Renewed[]>
  #waiting: Waiting[] = []

  constructor (send: (signs: readonly Sign[]) => Promise<readonly Renewed[]>) {
    this.#send = send
  }

  add (sign: Sign): Promise<Renewed> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length === 0) setImmediate(() => { this.#flush() })
      this.#waiting.push({ sign, resolve, reject })
    })
  }

  #flush () {
    const waiting = this.#waiting
    this.#waiting = []
    for (let first = 0; first < waiting.length; first += signsPerCall) this.#renew(waiting.slice(first, first + signsPerCall))
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
