interface Waiting<T, R> { readonly command: T, readonly resolve: (result: R) => void, readonly reject: (error: unknown) => void }

/** Sends what is asked for in one tick together, in the order of the calls. */
export class Batch<T, R> {
  readonly #size: number
  readonly #send: (commands: readonly T[]) => Promise<readonly R[]>
  #waiting: Array<Waiting<T, R>> = []

  /** @param size how many go in one call at most */
  constructor (size: number, send: (commands: readonly T[]) => Promise<readonly R[]>) {
    this.#size = size
    this.#send = send
  }

  add (command: T): Promise<R> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.push({ command, resolve, reject }) === 1) setImmediate(() => { this.#flush() })
    })
  }

  /** What was not sent yet is not sent. */
  fail (error: unknown): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error)
  }

  #flush () {
    const waiting = this.#waiting
    this.#waiting = []
    for (let first = 0; first < waiting.length; first += this.#size) this.#call(waiting.slice(first, first + this.#size))
  }

  async #call (waiting: ReadonlyArray<Waiting<T, R>>): Promise<void> {
    try {
      const results = await this.#send(waiting.map(({ command }) => command))
      for (const [index, { resolve }] of waiting.entries()) resolve(results[index]!)
    } catch (error) {
      for (const { reject } of waiting) reject(error)
    }
  }
}
