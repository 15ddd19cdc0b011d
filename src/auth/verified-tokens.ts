import type { Principal } from './principal.js'

/**
 * Tokens whose signature and claims were found right, with whom they name: an agent sends the same one with each of its
 * heartbeats. What may end a token before its time (revocation, session, a newer instance) is not remembered here.
 */
export class VerifiedTokens {
  readonly #limit: number
  /** The oldest first. */
  readonly #principals = new Map<string, Principal>()

  constructor (limit = 10_000) {
    this.#limit = limit
  }

  get (token: string): Principal | undefined {
    return this.#principals.get(token)
  }

  set (token: string, principal: Principal): void {
    if (this.#principals.size >= this.#limit) this.#principals.delete(this.#principals.keys().next().value!)
    this.#principals.set(token, principal)
  }

  delete (token: string): void {
    this.#principals.delete(token)
  }
}
