/** Reads numbers and texts one after the other, as LevelDB writes them. @throws RangeError past the end */
export class Reader {
  readonly #bytes: Buffer
  at: number

  constructor (bytes: Buffer, at = 0) {
    this.#bytes = bytes
    this.at = at
  }

  get done () { return this.at >= this.#bytes.length }

  /** Seven bits a byte, the lowest first; exact up to 2^53. */
  varint (): number {
    let value = 0
    let factor = 1
    let byte: number
    do {
      byte = this.#bytes.readUInt8(this.at++)
      value += (byte & 0x7f) * factor
      factor *= 128
    } while (byte >= 0x80 && factor <= 2 ** 56)
    if (byte >= 0x80) throw new RangeError('a number that does not end')
    return value
  }

  advance (length: number): void {
    this.at += length
    if (this.at > this.#bytes.length) throw new RangeError('past the end')
  }

  /** Bytes that their length stands before. */
  slice (): Buffer {
    const length = this.varint()
    this.advance(length)
    return this.#bytes.subarray(this.at - length, this.at)
  }
}
