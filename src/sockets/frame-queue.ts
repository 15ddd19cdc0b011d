export interface QueuedFrame { readonly frame: unknown, readonly bytes: number }

/** Frames that wait: so many, and so many bytes together. */
export class FrameQueue {
  readonly #maxFrames: number
  readonly #maxBytes: number
  #frames: QueuedFrame[] = []
  #bytes = 0

  constructor (maxFrames: number, maxBytes: number) {
    this.#maxFrames = maxFrames
    this.#maxBytes = maxBytes
  }

  get size (): number { return this.#frames.length }

  /** @returns whether there was room */
  add (queued: QueuedFrame): boolean {
    if (this.size >= this.#maxFrames || this.#bytes + queued.bytes > this.#maxBytes) return false
    this.#bytes += queued.bytes
    this.#frames.push(queued)
    return true
  }

  next (): QueuedFrame | undefined {
    const queued = this.#frames.shift()
    if (queued !== undefined) this.#bytes -= queued.bytes
    return queued
  }

  /** Puts what waits in another before all that waits here. */
  prepend (other: FrameQueue): void {
    this.#frames = [...other.#frames, ...this.#frames]
    this.#bytes += other.#bytes
  }
}
