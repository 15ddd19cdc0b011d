import { problem } from '../../errors.js'
import { EncodedMessage } from '../../protocol/encoded-message.js'
import type { Deadlines } from '../../lib/deadlines.js'
import { payloadText } from '../../protocol/payload.js'
import type { Peer } from '../peer.js'
import type { Peers } from '../peer.js'
import type { Content, Errand, RequestLine } from './request-channel.js'

export interface ServingOptions {
  line: RequestLine
  peers: Peers
  deadlines: Deadlines
  maxDataBytes: number
  /** How long an answer waits to hear whether it counts (ms). */
  verdictMs?: number
}

type Offer = Extract<Errand, { op: 'offer' }>

const usualVerdictMs = 5000
/** The process that a request began in, and what nobody can guess. */
const ridShape = /^([\w-]{1,64})\.[\w-]{36}$/

/** The side of the agents: what those of this process are asked, and what they answer. */
export class Serving {
  readonly #options: ServingOptions
  readonly #waiting = new Map<number, (counts: boolean) => void>()
  #answers = 0

  constructor (options: ServingOptions) {
    this.#options = options
    options.line.onErrand((from, errand, data) => { this.#hear(from, errand, data) })
  }

  /** Resolves when it counts. @throws unknown-request when the request is not, or no longer, this peer's */
  async answer ({ peerId: by }: Peer, rid: string, content: Content, data = ''): Promise<void> {
    const process = ridShape.exec(rid)?.[1]
    if (process === undefined || !await this.#ask(process, { rid, by, content, data })) {
      throw problem('unknown-request', 'This is no request that waits for you')
    }
  }

  /** @throws missing-data, request-too-large, unknown-request */
  async reply (peer: Peer, rid: string, data: unknown): Promise<void> {
    await this.answer(peer, rid, { op: 'reply' }, payloadText(data, this.#options.maxDataBytes))
  }

  close (): void {
    for (const settle of [...this.#waiting.values()]) settle(false)
  }

  #ask (process: string, { rid, by, content, data }: { rid: string, by: string, content: Content, data: string }): Promise<boolean> {
    const { line, deadlines, verdictMs = usualVerdictMs } = this.#options
    const answer = ++this.#answers
    return new Promise(resolve => {
      const deadline = deadlines.after(verdictMs, () => { settle(false) })
      const settle = (counts: boolean) => {
        deadlines.cancel(deadline)
        this.#waiting.delete(answer)
        resolve(counts)
      }
      this.#waiting.set(answer, settle)
      line.answer(process, { rid, by, answer, ...content }, data)
    })
  }

  #hear (from: string, errand: Errand, data: string) {
    if (errand.op === 'offer') this.#offered(from, errand, data)
    else if (errand.op === 'withdraw') this.#withdrawn(errand)
    else this.#waiting.get(errand.answer)?.(errand.counts)
  }

  #offered (asking: string, { rid, to, from, deadline }: Offer, data: string) {
    const peer = this.#serversOf(to).at(-1)
    if (!peer) return this.#options.line.answer(asking, { op: 'declined', rid })
    peer.push(new EncodedMessage(`{"type":"request","rid":"${rid}","from":${JSON.stringify(from)},"data":${data},"deadline":${deadline}}`))
  }

  /** On all connections: the agent may go on with what it had begun on another. */
  #withdrawn ({ rid, to }: { rid: string, to: string }) {
    const frame = new EncodedMessage(JSON.stringify({ type: 'request_cancelled', rid }))
    for (const peer of this.#serversOf(to)) peer.push(frame)
  }

  /** Connections that take requests, the newest last. */
  #serversOf (peerId: string): Peer[] {
    return [...this.#options.peers.of(peerId)].filter(({ isOpen, dialect, observes, rights }) => isOpen && dialect === 'agents' && !observes && rights.mayAnywhere('serve'))
  }
}
