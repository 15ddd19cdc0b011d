import type { Replica } from './replica.js'

/** What was made of the replica, for as long as nothing in it has changed: many readers ask for the same page. */
export class PageCache<T = string> {
  readonly #replica: Pick<Replica, 'version'>
  readonly #limit: number
  readonly #pages = new Map<string, T>()
  #version = -1

  constructor (replica: Pick<Replica, 'version'>, limit = 64) {
    this.#replica = replica
    this.#limit = limit
  }

  /** What is under `key`, made when it is not there or not of now. */
  get (key: string, make: () => T): T {
    if (this.#version !== this.#replica.version) this.#pages.clear()
    this.#version = this.#replica.version
    const known = this.#pages.get(key)
    if (known !== undefined) return known
    const page = make()
    if (this.#pages.size < this.#limit) this.#pages.set(key, page)
    return page
  }
}
