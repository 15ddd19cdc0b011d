import { problem } from '../../errors.js'
import type { MessageBroker, LogEntry, LogPosition } from '../../storage/message-broker.js'
import type { Deadlines } from '../../lib/deadlines.js'
import { DirectFrames, tagged, type Manner } from './frames.js'
import { FollowedLogs } from './followed-logs.js'
import { InboxReader, type Replay } from './inbox-reader.js'
import { payloadText } from '../../protocol/payload.js'
import type { Peer, Sender } from '../peer.js'
import type { Peers } from '../peer.js'
import { Receipts } from './receipts.js'
import type { Signals } from '../signals.js'
import { assertMay } from '../access.js'

export interface DirectOptions {
  broker: MessageBroker
  signals: Signals
  deadlines: Deadlines
  peers: Peers
  maxDataBytes: number
  /** How long a sender waits to hear that its message was given to the receiver (ms). */
  receiptMs?: number
  /** JSON text of what others learn of a peer that takes part; undefined where it does not. */
  metadataOf: (peerId: string) => string | undefined
  /** When a peer registered that need not be connected: it may come back and look what there is for it. */
  registeredAt: (peerId: string) => number | undefined
  onError: (error: unknown) => void
}

export interface DirectMessage {
  to: string
  data: unknown
  /** The same of the same sender within five minutes is stored once. */
  msgId?: string | undefined
  /** `delivered` waits until a connection of the receiver was given the message. */
  level?: 'accepted' | 'delivered' | undefined
  manner?: Manner
}

export interface Sent {
  /** Of the message in the inbox of its receiver. */
  readonly offset: number
  /** Whether the receiver is connected or, where that was asked for, was given the message by this sending. */
  readonly delivered: boolean
  readonly duplicate: boolean
}

const inboxPrefix = 'i:'
const broadcastLog = 'b:'
const usualReceiptMs = 5000

/** Messages from one peer to another, which wait in its inbox, and to all who are there. */
export class Direct {
  readonly #options: DirectOptions
  readonly #followed: FollowedLogs
  readonly #receipts: Receipts
  readonly #readers = new Map<Peer, InboxReader>()

  constructor (options: DirectOptions) {
    const { broker, signals, deadlines, receiptMs: waitMs = usualReceiptMs } = options
    this.#options = options
    this.#followed = new FollowedLogs(options)
    this.#receipts = new Receipts({ process: broker.process, signals, deadlines, waitMs })
  }

  open (): Promise<void> {
    return this.#followed.follow(broadcastLog)
  }

  close (): void {
    this.#receipts.close()
  }

  /** @param isFirst no other connection of this peer is here */
  join ({ peerId }: Peer, isFirst: boolean): void {
    if (isFirst) this.#followed.follow(inboxPrefix + peerId).catch(this.#options.onError)
  }

  /** @param isLast no other connection of this peer is here */
  leave (peer: Peer, isLast: boolean): void {
    this.#readers.delete(peer)
    if (isLast) this.#followed.unfollow(inboxPrefix + peer.peerId)
  }

  /** @throws insufficient-permissions, and as `post` */
  async send (sender: Sender, message: DirectMessage): Promise<Sent> {
    assertMay(sender, 'send')
    return this.post(sender.peerId, message)
  }

  /** Sends without asking anybody. @throws missing-data, request-too-large, peer-not-found, storage-unavailable */
  async post (from: string, { to, data, msgId, level = 'accepted', manner = 'direct' }: DirectMessage): Promise<Sent> {
    const text = tagged(manner, this.#text(data))
    const isConnected = this.#options.metadataOf(to) !== undefined
    if (!isConnected && this.#options.registeredAt(to) === undefined) throw problem('peer-not-found', `There is no peer '${to}'`)
    const command = { log: inboxPrefix + to, from, data: text, metadata: this.#options.metadataOf(from), msgId }
    if (level === 'delivered' && isConnected) return this.#deliver(command)
    const { offset, duplicate } = await this.#options.broker.append(command)
    return { offset, duplicate, delivered: isConnected && level === 'accepted' }
  }

  /** To all who take part at this moment but the connection that it comes from. @throws as `send` */
  async broadcast (sender: Sender, { data, origin }: { data: unknown, origin?: string | undefined }): Promise<void> {
    assertMay(sender, 'broadcast')
    await this.#options.broker.append({ log: broadcastLog, from: sender.peerId, data: tagged('small', this.#text(data)), origin })
  }

  /** What a peer missed, on one of its connections. @throws storage-unavailable */
  replay (peer: Peer, since: LogPosition | undefined): Promise<Replay> {
    return this.#readerOf(peer).replay(since)
  }

  appended (log: string, epoch: string, entry: LogEntry): void {
    if (log === broadcastLog) return this.#giveToAll(epoch, entry)
    const peerId = log.slice(inboxPrefix.length)
    const frames = new DirectFrames(peerId, epoch, entry)
    let isGiven = false
    for (const peer of this.#options.peers.of(peerId)) isGiven = this.#readerOf(peer).give(epoch, entry, frames) || isGiven
    if (isGiven) this.#confirm(entry)
  }

  lost (log: string, position: LogPosition): void {
    for (const peer of this.#options.peers.of(log.slice(inboxPrefix.length))) this.#readerOf(peer).lost(position)
  }

  #text (data: unknown): string {
    return payloadText(data, this.#options.maxDataBytes)
  }

  async #deliver (command: Parameters<MessageBroker['append']>[0]): Promise<Sent> {
    const receipt = this.#receipts.open()
    try {
      const { offset, duplicate } = await this.#options.broker.append({ ...command, origin: receipt.address })
      // The first one may have been given, but not by this sending.
      if (duplicate) receipt.cancel()
      return { offset, duplicate, delivered: await receipt.given }
    } finally {
      receipt.cancel()
    }
  }

  #giveToAll (epoch: string, entry: LogEntry) {
    const frames = new DirectFrames(null, epoch, entry)
    for (const peer of this.#options.peers.all()) if (peer.id !== entry.origin) peer.push(frames.in(peer.dialect))
  }

  #confirm ({ origin }: LogEntry) {
    if (origin !== undefined) this.#receipts.send(origin)
  }

  #readerOf (peer: Peer): InboxReader {
    const known = this.#readers.get(peer)
    if (known) return known
    const reader = new InboxReader({
      ...this.#options,
      peer,
      log: inboxPrefix + peer.peerId,
      isFor: ({ at }) => at >= (this.#options.registeredAt(peer.peerId) ?? 0),
      onGiven: entry => { this.#confirm(entry) }
    })
    this.#readers.set(peer, reader)
    return reader
  }
}
