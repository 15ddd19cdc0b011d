import type { Principal } from './principal.js'

/**
 * Tokens whose signature and claims were found right, with whom they name: an agent sends the same one with each of its
 * heartbeats. What may end a token before its time (revocation, session, a newer instance) is not remembered here.
 *
 * Two generations instead of an order: when the newer one is full, it takes the place of the older one. What is asked for
 * stays, and nothing is ever deleted from the front of a large Map, which would have to look past all that went before.
 */
export class VerifiedTokens {
  readonly #limit: number
  #newer = new Map<string, Principal>()
  #older = new Map<string, Principal>()

  /** @param limit how many are remembered at least, once there were as many; at most twice as many */
  constructor (limit = 10_000) {
    this.#limit = limit
  }

  get (token: string): Principal | undefined {
    const known = this.#newer.get(token)
    if (known) return known
    const aged = this.#older.get(token)
    if (aged) this.set(token, aged)
    return aged
  }

  set (token: string, principal: Principal): void {
    if (this.#newer.size >= this.#limit) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(token, principal)
  }

  delete (token: string): void {
    this.#newer.delete(token)
    this.#older.delete(token)
  }
}
