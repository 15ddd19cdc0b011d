import { problem } from '../../errors.js'
import type { Deadlines } from '../../lib/deadlines.js'
import { EncodedMessage } from '../../protocol/encoded-message.js'
import { payloadText } from '../../protocol/validation.js'
import type { Peer, Peers } from '../peer.js'
import type { RequestChannel, RequesterMessage, ResponseContent } from './request-channel.js'

interface ResponderOptions {
  channel: RequestChannel
  peers: Peers
  deadlines: Deadlines
  maxDataBytes: number
  /** The time that a response waits for its verdict (ms). */
  verdictMs?: number
}

type OfferMessage = Extract<RequesterMessage, { op: 'offer' }>

interface Response { rid: string, by: string, content: ResponseContent, data: string }

const defaultVerdictMs = 5000
/** The process of the requester and a random part. */
const ridShape = /^([\w-]{1,64})\.[\w-]{36}$/

/** The agents' side of requests: sends offers to the agents of this process, and their responses to the requesters. */
export class Responder {
  readonly #options: ResponderOptions
  /** Responses that wait for their verdict. */
  readonly #responses = new Map<number, (counts: boolean) => void>()
  #lastId = 0

  constructor (options: ResponderOptions) {
    this.#options = options
    options.channel.onRequesterMessage((from, message, data) => { this.#received(from, message, data) })
  }

  /**
   * Sends the response of an agent, and waits until its verdict arrives.
   * @throws unknown-request when the request does not exist, or is not, or no longer, assigned to this agent
   */
  async respond ({ peerId: by }: Peer, rid: string, content: ResponseContent, data = ''): Promise<void> {
    const process = ridShape.exec(rid)?.[1]
    if (process === undefined || !await this.#send(process, { rid, by, content, data })) {
      throw problem('unknown-request', 'No open request with this rid is addressed to you')
    }
  }

  /** @throws missing-data, request-too-large, unknown-request */
  async reply (peer: Peer, rid: string, data: unknown): Promise<void> {
    await this.respond(peer, rid, { op: 'reply' }, payloadText(data, this.#options.maxDataBytes))
  }

  close (): void {
    for (const settle of [...this.#responses.values()]) settle(false)
  }

  #send (process: string, { rid, by, content, data }: Response): Promise<boolean> {
    const { channel, deadlines, verdictMs = defaultVerdictMs } = this.#options
    const id = ++this.#lastId
    return new Promise(resolve => {
      const deadline = deadlines.after(verdictMs, () => { settle(false) })
      const settle = (counts: boolean) => {
        deadlines.cancel(deadline)
        this.#responses.delete(id)
        resolve(counts)
      }
      this.#responses.set(id, settle)
      channel.sendToRequester(process, { rid, by, id, ...content }, data)
    })
  }

  #received (from: string, message: RequesterMessage, data: string) {
    if (message.op === 'offer') this.#offered(from, message, data)
    else if (message.op === 'withdraw') this.#withdrawn(message)
    else this.#responses.get(message.id)?.(message.counts)
  }

  #offered (process: string, { rid, to, from, deadline }: OfferMessage, data: string) {
    const peer = this.#connectionsOf(to).at(-1)
    if (!peer) return this.#options.channel.sendToRequester(process, { op: 'declined', rid })
    const frame = `{"type":"request","rid":"${rid}","from":${JSON.stringify(from)},"data":${data},"deadline":${deadline}}`
    peer.push(new EncodedMessage(frame))
  }

  /** Notifies all connections of the agent: it may continue on another one than it began on. */
  #withdrawn ({ rid, to }: { rid: string, to: string }) {
    const frame = new EncodedMessage(JSON.stringify({ type: 'request_cancelled', rid }))
    for (const peer of this.#connectionsOf(to)) peer.push(frame)
  }

  /** The connections that take requests, the newest last. */
  #connectionsOf (peerId: string): Peer[] {
    return this.#options.peers.of(peerId).filter(({ isOpen, dialect, observes, rights }) => {
      return isOpen && dialect === 'agents' && !observes && rights.mayAnywhere('serve')
    })
  }
}
