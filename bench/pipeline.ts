// Pipelined requests on one connection. Each ack is compared byte by byte with the expected one.
import { clientFrame, serverFrame } from './frames.js'
import type { LightClient } from './light-client.js'

/** Keeps `window` requests open on each connection, for `ms` milliseconds. */
export interface PipelineCommand { window: number, ms: number }

/** Ids repeat after this number, which is larger than any window. */
const idCount = 1024
const idOf = (index: number) => String(index).padStart(4, '0')
const request = (id: string) => `{"type":"unwatch","requestId":"${id}"}`

/** The frames of all ids, twice in a row, so that any sequence of them is contiguous. */
class Cycle {
  readonly frameLength: number
  readonly #bytes: Buffer

  constructor (frameOf: (id: string) => Buffer) {
    const frames = Array.from({ length: 2 * idCount }, (_, index) => frameOf(idOf(index % idCount)))
    this.frameLength = frames[0]!.length
    this.#bytes = Buffer.concat(frames)
  }

  frames (from: number, count: number): Buffer {
    const start = from % idCount * this.frameLength
    return this.#bytes.subarray(start, start + count * this.frameLength)
  }

  /** Whether `chunk` is the expected continuation after `after` bytes. It has fewer frames than there are ids. */
  matches (chunk: Buffer, after: number): boolean {
    const start = after % (idCount * this.frameLength)
    return chunk.equals(this.#bytes.subarray(start, start + chunk.length))
  }
}

const requests = new Cycle(id => clientFrame(request(id)))

/** Returns the ack of the first id, as this server writes it. */
function sampleAck (client: LightClient): Promise<string> {
  client.send(request(idOf(0)))
  return new Promise(resolve => {
    client.onText = text => { if (String(text).startsWith('{"type":"ack"')) resolve(String(text)) }
  })
}

export class Pipeline {
  readonly #client: LightClient
  readonly #acks: Cycle
  #sent = 0
  #bytes = 0
  #window = 0
  #until = 0
  #ended: () => void = () => {}

  private constructor (client: LightClient, acks: Cycle) {
    this.#client = client
    this.#acks = acks
    client.readWith(chunk => { this.#onAcks(chunk) })
  }

  static async on (client: LightClient): Promise<Pipeline> {
    const ack = await sampleAck(client)
    return new Pipeline(client, new Cycle(id => serverFrame(ack.replace(idOf(0), id))))
  }

  /** @returns the number of acknowledged requests */
  run (window: number, until: number): Promise<number> {
    const before = this.#acknowledged
    this.#window = window
    this.#until = until
    this.#fill()
    return new Promise(resolve => { this.#ended = () => resolve(this.#acknowledged - before) })
  }

  get #acknowledged () { return Math.floor(this.#bytes / this.#acks.frameLength) }

  #fill () {
    const count = this.#acknowledged + this.#window - this.#sent
    if (count > 0) this.#client.socket.write(requests.frames(this.#sent, count))
    this.#sent += Math.max(0, count)
  }

  #onAcks (chunk: Buffer) {
    if (!this.#acks.matches(chunk, this.#bytes)) throw new Error(`unexpected acks: ${chunk.toString('latin1', 0, 200)}`)
    this.#bytes += chunk.length
    if (performance.now() < this.#until) this.#fill()
    else if (this.#acknowledged === this.#sent) this.#ended()
  }
}
