import { randomBytes } from 'node:crypto'
import { isStorageUnavailable, problem } from '../../errors.js'
import type { Deadlines } from '../../lib/deadlines.js'
import { payloadText } from '../../protocol/validation.js'
import type { AppendCommand, LogEntry, LogPosition, MessageBroker } from '../../storage/message-broker.js'
import { assertMay } from '../access.js'
import type { Peer, Peers, Sender } from '../peer.js'
import type { ProcessMessages } from '../process-messages.js'
import { DirectDelivery, InboxReader, taggedData, type DirectFormat, type Replay } from './inbox-reader.js'

interface DirectOptions {
  broker: MessageBroker
  processMessages: ProcessMessages
  deadlines: Deadlines
  peers: Peers
  maxDataBytes: number
  /** The time that a sender waits for the receipt of its message (ms). */
  receiptMs?: number
  /** The metadata of a connected peer as JSON text; undefined for a peer that is not connected. */
  metadataOf: (peerId: string) => string | undefined
  /** The registration time of a peer whose inbox keeps messages while it is not connected; undefined for other peers. */
  registeredAt: (peerId: string) => number | undefined
  onError: (error: unknown) => void
}

interface DirectMessage {
  to: string
  data: unknown
  /** A second message of the same sender with the same id within five minutes is not stored. */
  msgId?: string | undefined
  /** `delivered` waits until a connection of the receiver was sent the message. */
  level?: 'accepted' | 'delivered' | undefined
  format?: DirectFormat
}

export interface Sent {
  /** The offset of the message in the inbox of its receiver. */
  readonly offset: number
  /** Whether the receiver is connected; with the level `delivered`, whether it was sent this message in time. */
  readonly delivered: boolean
  readonly duplicate: boolean
}

const inboxPrefix = 'i:'
const broadcastLog = 'b:'
const defaultReceiptMs = 5000

/** Direct messages: each peer has an inbox, a log that also keeps messages for a registered peer while it is not connected. */
export class Direct {
  readonly #options: DirectOptions
  readonly #logs: FollowedLogs
  readonly #receipts: Receipts
  readonly #readers = new Map<Peer, InboxReader>()

  constructor (options: DirectOptions) {
    this.#options = options
    this.#logs = new FollowedLogs(options)
    this.#receipts = new Receipts(options)
  }

  open (): Promise<void> {
    return this.#logs.follow(broadcastLog)
  }

  close (): void {
    this.#receipts.close()
  }

  /** @param isFirst this is the first connection of its peer in this process */
  addPeer ({ peerId }: Peer, isFirst: boolean): void {
    if (isFirst) this.#logs.follow(inboxPrefix + peerId).catch(this.#options.onError)
  }

  /** @param isLast this was the last connection of its peer in this process */
  removePeer (peer: Peer, isLast: boolean): void {
    this.#readers.delete(peer)
    if (isLast) this.#logs.unfollow(inboxPrefix + peer.peerId)
  }

  /** @throws insufficient-permissions, and as `post` does */
  async send (sender: Sender, message: DirectMessage): Promise<Sent> {
    assertMay(sender, 'send')
    return this.post(sender.peerId, message)
  }

  /** Sends a message without a check of rights. @throws missing-data, request-too-large, peer-not-found, storage-unavailable */
  async post (from: string, { to, data, msgId, level = 'accepted', format = 'direct' }: DirectMessage): Promise<Sent> {
    const { broker, metadataOf, registeredAt } = this.#options
    const text = taggedData(format, this.#text(data))
    const isConnected = metadataOf(to) !== undefined
    if (!isConnected && registeredAt(to) === undefined) throw problem('peer-not-found', `Peer '${to}' not found`)
    const command = { log: inboxPrefix + to, from, data: text, metadata: metadataOf(from), msgId }
    if (level === 'delivered' && isConnected) return this.#deliver(command)
    const { offset, duplicate } = await broker.append(command)
    return { offset, duplicate, delivered: isConnected && level === 'accepted' }
  }

  /** Sends a message to all connections of the tier except the origin. @throws as `send` does */
  async broadcast (sender: Sender, { data, origin }: { data: unknown, origin?: string | undefined }): Promise<void> {
    assertMay(sender, 'broadcast')
    await this.#options.broker.append({ log: broadcastLog, from: sender.peerId, data: taggedData('small', this.#text(data)), origin })
  }

  /** Reads the inbox of a peer for one of its connections. @throws storage-unavailable */
  replay (peer: Peer, since: LogPosition | undefined): Promise<Replay> {
    return this.#readerOf(peer).replay(since)
  }

  appended (log: string, epoch: string, entry: LogEntry): void {
    if (log === broadcastLog) return this.#deliverToAll(epoch, entry)
    const peerId = log.slice(inboxPrefix.length)
    const delivery = new DirectDelivery(peerId, epoch, entry)
    let isDelivered = false
    for (const peer of this.#options.peers.of(peerId)) isDelivered = this.#readerOf(peer).deliver(delivery) || isDelivered
    if (isDelivered) this.#sendReceipt(entry)
  }

  logGap (log: string, position: LogPosition): void {
    for (const peer of this.#options.peers.of(log.slice(inboxPrefix.length))) this.#readerOf(peer).reportGap(position)
  }

  #text (data: unknown): string {
    return payloadText(data, this.#options.maxDataBytes)
  }

  async #deliver (command: AppendCommand): Promise<Sent> {
    const receipt = this.#receipts.open()
    try {
      const { offset, duplicate } = await this.#options.broker.append({ ...command, origin: receipt.address })
      // The first message may have been delivered; this one is not.
      if (duplicate) receipt.cancel()
      return { offset, duplicate, delivered: await receipt.delivered }
    } finally {
      receipt.cancel()
    }
  }

  #deliverToAll (epoch: string, entry: LogEntry) {
    const delivery = new DirectDelivery(null, epoch, entry)
    for (const peer of this.#options.peers.all()) if (peer.id !== entry.origin) peer.push(delivery.frame(peer.dialect))
  }

  #sendReceipt ({ origin }: LogEntry) {
    if (origin !== undefined) this.#receipts.send(origin)
  }

  #readerOf (peer: Peer): InboxReader {
    const current = this.#readers.get(peer)
    if (current) return current
    const reader = new InboxReader({
      ...this.#options,
      peer,
      log: inboxPrefix + peer.peerId,
      isFor: ({ at }) => at >= (this.#options.registeredAt(peer.peerId) ?? 0),
      onDelivered: entry => { this.#sendReceipt(entry) }
    })
    this.#readers.set(peer, reader)
    return reader
  }
}

const retryMs = 1000

/** Follows logs, and tries again while the broker is not reachable. */
class FollowedLogs {
  readonly #options: DirectOptions
  readonly #followed = new Set<string>()
  readonly #retrying = new Set<string>()

  constructor (options: DirectOptions) {
    this.#options = options
  }

  /** Resolves after the first attempt; never rejects. */
  async follow (log: string): Promise<void> {
    this.#followed.add(log)
    try {
      await this.#options.broker.follow(log)
    } catch (error) {
      if (!isStorageUnavailable(error)) this.#options.onError(error)
      this.#retry(log)
    }
    // It may have been unfollowed meanwhile.
    if (!this.#followed.has(log)) this.#options.broker.unfollow(log)
  }

  unfollow (log: string): void {
    this.#followed.delete(log)
    this.#options.broker.unfollow(log)
  }

  #retry (log: string) {
    if (this.#retrying.has(log)) return
    this.#retrying.add(log)
    this.#options.deadlines.after(retryMs, () => {
      this.#retrying.delete(log)
      if (this.#followed.has(log)) this.follow(log).catch(this.#options.onError)
    })
  }
}

interface Receipt {
  /** The destination of the receipt, stored with the message. */
  readonly address: string
  /** False when no receipt arrived in time. */
  readonly delivered: Promise<boolean>
  cancel (): void
}

const receiptTopic = 'receipt'

/** Receipts of deliveries: the process of the receiver notifies the process of the sender. */
class Receipts {
  readonly #options: DirectOptions
  readonly #open = new Map<string, (isDelivered: boolean) => void>()

  constructor (options: DirectOptions) {
    this.#options = options
    options.processMessages.on(receiptTopic, (_from, id) => { this.#open.get(id)?.(true) })
  }

  open (): Receipt {
    const { broker: { process }, deadlines, receiptMs = defaultReceiptMs } = this.#options
    const id = randomBytes(9).toString('base64url')
    const delivered = new Promise<boolean>(resolve => {
      const deadline = deadlines.after(receiptMs, () => { end(false) })
      const end = (isDelivered: boolean) => {
        this.#open.delete(id)
        deadlines.cancel(deadline)
        resolve(isDelivered)
      }
      this.#open.set(id, end)
    })
    return { address: `${process} ${id}`, delivered, cancel: () => { this.#open.get(id)?.(false) } }
  }

  /** Confirms the delivery of the message that was stored with this address. */
  send (address: string): void {
    const [process = '', id = ''] = address.split(' ')
    this.#options.processMessages.send(process, receiptTopic, id)
  }

  close (): void {
    for (const end of [...this.#open.values()]) end(false)
  }
}
