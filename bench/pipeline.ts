// Requests on one connection, so many under way at a time, each answer compared byte by byte with what it has to be.
import { clientFrame, serverFrame } from './frames.js'
import type { LightClient } from './light-client.js'

/** `window` requests under way on each connection, for `ms` milliseconds. */
export interface PipelineWish { window: number, ms: number }

/** Ids come again after so many: none is in use twice. */
const idCount = 1024
const idOf = (index: number) => String(index).padStart(4, '0')
const request = (id: string) => `{"type":"unwatch","requestId":"${id}"}`

/** The frames of all ids one after the other, twice, so that any run of them is in one piece. */
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

  /** Whether `chunk` is what follows after so many bytes: it holds fewer frames than there are ids, since fewer are under way. */
  has (chunk: Buffer, after: number): boolean {
    const start = after % (idCount * this.frameLength)
    return chunk.equals(this.#bytes.subarray(start, start + chunk.length))
  }
}

const requests = new Cycle(id => clientFrame(request(id)))

/** The ack of the first id, as this server writes it. */
function learn (client: LightClient): Promise<string> {
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
    client.take(chunk => { this.#heard(chunk) })
  }

  static async on (client: LightClient): Promise<Pipeline> {
    const ack = await learn(client)
    return new Pipeline(client, new Cycle(id => serverFrame(ack.replace(idOf(0), id))))
  }

  /** @returns how many were answered */
  run (window: number, until: number): Promise<number> {
    const before = this.#answered
    this.#window = window
    this.#until = until
    this.#fill()
    return new Promise(resolve => { this.#ended = () => resolve(this.#answered - before) })
  }

  get #answered () { return Math.floor(this.#bytes / this.#acks.frameLength) }

  #fill () {
    const count = this.#answered + this.#window - this.#sent
    if (count > 0) this.#client.socket.write(requests.frames(this.#sent, count))
    this.#sent += Math.max(0, count)
  }

  #heard (chunk: Buffer) {
    if (!this.#acks.has(chunk, this.#bytes)) throw new Error(`not the acks that were due: ${chunk.toString('latin1', 0, 200)}`)
    this.#bytes += chunk.length
    if (performance.now() < this.#until) this.#fill()
    else if (this.#answered === this.#sent) this.#ended()
  }
}
