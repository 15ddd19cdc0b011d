import { Batch } from './batch.js'
import type { Outbox } from './outbox.js'
import type { EncodedMessage } from '../protocol/encoded-message.js'

/** Writes, at the end of a tick, what all sockets of a registry are owed: each of them once. */
export class Flusher {
  #dirty: Outbox[] = []
  #first: Batch | undefined
  #immediate: NodeJS.Immediate | undefined
  readonly #onError: (error: unknown) => void

  constructor (onError: (error: unknown) => void) {
    this.#onError = onError
  }

  /** The batch of those that are owed this message first. */
  begin (message: EncodedMessage): Batch {
    if (this.#first?.last !== message) this.#first = new Batch(message, null)
    return this.#first
  }

  add (outbox: Outbox): void {
    this.#dirty.push(outbox)
    this.#immediate ??= setImmediate(() => { this.#flush() })
  }

  /** What goes wrong for one socket keeps nothing from the others. */
  failed (error: unknown): void {
    this.#onError(error)
  }

  /** What is owed meanwhile is written in the next tick. */
  #flush () {
    const dirty = this.#dirty
    this.#dirty = []
    this.#first = this.#immediate = undefined
    for (const outbox of dirty) {
      try { outbox.flush() } catch (error) { this.failed(error) }
    }
  }
}
