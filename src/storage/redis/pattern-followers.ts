import { nameOfChannel } from '../message-broker.js'
import { PatternTrie } from '../../lib/pattern-trie.js'
import type { Subscriptions } from './subscriptions.js'
import { globOf } from './texts.js'

/** `from` and `until`: when it was followed, and when no more, in the order of such calls. */
export interface PatternFollowed { readonly glob: string, readonly from: number, until: number, readonly joined: Promise<void> }

/** Redis tries every glob with every message: with more of them all messages are taken and looked at here. */
const maxGlobs = 64

/** Patterns that are followed, and what is subscribed to for them: globs that let in their channels, and maybe others. */
export class PatternsFollowed {
  readonly #prefix: string
  readonly #subscriptions: Subscriptions
  readonly #followed = new PatternTrie<PatternFollowed>()
  #turns = 0

  /** @param prefix begins the Redis channel of every log */
  constructor (prefix: string, subscriptions: Subscriptions) {
    this.#prefix = prefix + nameOfChannel('')
    this.#subscriptions = subscriptions
  }

  /** One of those that let in a channel. */
  find (channel: string): PatternFollowed | undefined {
    return this.#followed.find(channel)
  }

  async follow (pattern: string): Promise<void> {
    const followed = this.#followed.get(pattern) ?? this.#add(pattern)
    try {
      await followed.joined
    } catch (error) {
      if (this.#followed.get(pattern) === followed) this.unfollow(pattern)
      throw error
    }
  }

  unfollow (pattern: string): void {
    const followed = this.#followed.get(pattern)
    if (!followed) return
    this.#followed.delete(pattern)
    this.#subscriptions.leave(followed.glob)
    followed.until = this.#turns++
  }

  clear (): void {
    this.#followed.clear()
  }

  #add (pattern: string): PatternFollowed {
    const own = globOf(this.#prefix, pattern)
    const glob = this.#subscriptions.size < maxGlobs || this.#subscriptions.has(own) ? own : globOf(this.#prefix, '**')
    const followed = { glob, from: this.#turns++, until: Infinity, joined: this.#subscriptions.join(glob) }
    this.#followed.set(pattern, followed)
    return followed
  }
}
