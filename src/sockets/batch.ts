import type { Encoding, EncodedMessage } from '../protocol/encoded-message.js'

/**
 * Messages in the order in which they are owed. Sockets that are owed the same within a tick come to the same batch, one
 * message after the other, and share the bytes that are made of it.
 */
export class Batch {
  readonly last: EncodedMessage
  readonly before: Batch | null
  readonly count: number
  #next: Batch | undefined
  #text: Buffer | undefined
  #packed: Buffer | undefined

  constructor (last: EncodedMessage, before: Batch | null) {
    this.last = last
    this.before = before
    this.count = before === null ? 1 : before.count + 1
  }

  /** This batch and one message more. */
  and (message: EncodedMessage): Batch {
    if (this.#next?.last !== message) this.#next = new Batch(message, this)
    return this.#next
  }

  /** All of it as it goes over the wire. */
  bytes (encoding: Encoding): Buffer {
    if (this.count === 1) return this.last.frame(encoding)
    if (encoding === 'json') return (this.#text ??= this.#join(encoding))
    return (this.#packed ??= this.#join(encoding))
  }

  /** One message after the other. */
  messages (): EncodedMessage[] {
    return [...this.#backwards()].reverse()
  }

  #join (encoding: Encoding): Buffer {
    let at = 0
    for (const message of this.#backwards()) at += message.size(encoding)
    const joined = Buffer.allocUnsafe(at)
    for (const message of this.#backwards()) {
      at -= message.size(encoding)
      message.writeTo(joined, at, encoding)
    }
    return joined
  }

  * #backwards (): Generator<EncodedMessage> {
    yield this.last
    for (let batch = this.before; batch !== null; batch = batch.before) yield batch.last
  }
}
