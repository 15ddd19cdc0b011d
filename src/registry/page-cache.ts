import type { Replica } from './replica.js'

/** Texts that were made of the replica, for as long as nothing in it has changed: many readers ask for the same page. */
export class PageCache {
  readonly #replica: Pick<Replica, 'version'>
  readonly #limit: number
  readonly #texts = new Map<string, string>()
  #version = -1

  constructor (replica: Pick<Replica, 'version'>, limit = 64) {
    this.#replica = replica
    this.#limit = limit
  }

  /** The text under `key`, made when it is not there or not of now. */
  get (key: string, make: () => string): string {
    if (this.#version !== this.#replica.version) this.#texts.clear()
    this.#version = this.#replica.version
    const known = this.#texts.get(key)
    if (known !== undefined) return known
    const text = make()
    if (this.#texts.size < this.#limit) this.#texts.set(key, text)
    return text
  }
}
