import { Multiset } from '../../lib/multiset.js'
import { unavailable, type Link } from './connections.js'

type SubscriptionCommands = readonly [join: 'subscribe' | 'psubscribe', leave: 'unsubscribe' | 'punsubscribe']

const namesPerCommand = 500

function * chunksOf (names: readonly string[]): Generator<readonly string[]> {
  for (let first = 0; first < names.length; first += namesPerCommand) yield names.slice(first, first + namesPerCommand)
}

/** Reference-counted subscriptions to Redis channels or globs. Changes of one tick share a command. */
export class Subscriptions {
  readonly #link: Link
  readonly #commands: SubscriptionCommands
  readonly #counts = new Multiset()
  #changed = new Set<string>()
  #flushing: Promise<void> | undefined

  constructor (link: Link, commands: SubscriptionCommands) {
    this.#link = link
    this.#commands = commands
  }

  get size () { return this.#counts.size }

  has (name: string): boolean {
    return this.#counts.has(name)
  }

  /** Resolves when messages are received. A rejected call is counted too. */
  join (name: string): Promise<void> {
    this.#counts.add(name)
    return this.#change(name)
  }

  leave (name: string): void {
    if (this.#counts.delete(name) === 0) this.#change(name)
  }

  /** Repeats all subscriptions on a new connection. */
  async renew (): Promise<void> {
    await this.#subscribe([...this.#counts.keys()])
  }

  clear (): void {
    const names = [...this.#counts.keys()]
    this.#counts.clear()
    this.#unsubscribe(names)
  }

  #change (name: string): Promise<void> {
    this.#changed.add(name)
    this.#flushing ??= new Promise((resolve, reject) => { setImmediate(() => { this.#flush().then(resolve, reject) }) })
    return this.#flushing
  }

  async #flush (): Promise<void> {
    const changed = [...this.#changed]
    this.#changed = new Set()
    this.#flushing = undefined
    this.#unsubscribe(changed.filter(name => !this.has(name)))
    await this.#subscribe(changed.filter(name => this.has(name)))
  }

  #unsubscribe (names: readonly string[]) {
    // Without a connection there are no subscriptions to end.
    for (const chunk of chunksOf(names)) Promise.allSettled([this.#link.client[this.#commands[1]](...chunk)])
  }

  async #subscribe (names: readonly string[]): Promise<void> {
    try {
      await Promise.all(Array.from(chunksOf(names), chunk => this.#link.client[this.#commands[0]](...chunk)))
    } catch (error) {
      throw unavailable(error)
    }
  }
}
