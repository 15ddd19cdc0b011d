import { unavailable, type Link } from './connections.js'

type Verbs = readonly [join: 'subscribe' | 'psubscribe', leave: 'unsubscribe' | 'punsubscribe']

const namesPerCommand = 500

function * chunksOf (names: readonly string[]): Generator<readonly string[]> {
  for (let first = 0; first < names.length; first += namesPerCommand) yield names.slice(first, first + namesPerCommand)
}

/** What is subscribed to, by how many; what is asked for in one tick goes in one command. */
export class Subscriptions {
  readonly #link: Link
  readonly #verbs: Verbs
  readonly #counts = new Map<string, number>()
  #touched = new Set<string>()
  #flushing: Promise<void> | undefined

  constructor (link: Link, verbs: Verbs) {
    this.#link = link
    this.#verbs = verbs
  }

  get size () { return this.#counts.size }

  has (name: string): boolean {
    return this.#counts.has(name)
  }

  /** Resolves when messages come; when it rejects it counts none the less. */
  join (name: string): Promise<void> {
    const count = this.#counts.get(name) ?? 0
    this.#counts.set(name, count + 1)
    return this.#touch(name)
  }

  leave (name: string): void {
    const count = this.#counts.get(name)! - 1
    if (count > 0) this.#counts.set(name, count)
    else {
      this.#counts.delete(name)
      this.#touch(name)
    }
  }

  /** On a connection that is new. */
  async renew (): Promise<void> {
    await this.#join([...this.#counts.keys()])
  }

  clear (): void {
    const names = [...this.#counts.keys()]
    this.#counts.clear()
    this.#leave(names)
  }

  #touch (name: string): Promise<void> {
    this.#touched.add(name)
    this.#flushing ??= new Promise((resolve, reject) => { setImmediate(() => { this.#flush().then(resolve, reject) }) })
    return this.#flushing
  }

  async #flush (): Promise<void> {
    const touched = [...this.#touched]
    this.#touched = new Set()
    this.#flushing = undefined
    this.#leave(touched.filter(name => !this.has(name)))
    await this.#join(touched.filter(name => this.has(name)))
  }

  #leave (names: readonly string[]) {
    // Without a connection there is nothing to leave.
    for (const chunk of chunksOf(names)) Promise.allSettled([this.#link.client[this.#verbs[1]](...chunk)])
  }

  async #join (names: readonly string[]): Promise<void> {
    try {
      await Promise.all(Array.from(chunksOf(names), chunk => this.#link.client[this.#verbs[0]](...chunk)))
    } catch (error) {
      throw unavailable(error)
    }
  }
}
