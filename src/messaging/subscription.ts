import { formatChannel, type Dialect } from '../protocol/channel-names.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import type { LogEntry, LogPage, LogPosition } from '../storage/message-broker.js'
import type { Peer } from './peer.js'

/** The JSON text of a channel message from its member `from` to the closing brace. */
export function messageText ({ from, data, metadata, offset, at }: LogEntry, epoch: string, withMetadata: boolean): string {
  const metadataText = withMetadata && metadata !== undefined ? `,"fromMetadata":${metadata}` : ''
  const position = `"epoch":${JSON.stringify(epoch)},"offset":${offset},"timestamp":${at / 1000}`
  return `"from":${JSON.stringify(from)},"data":${data}${metadataText},${position}}`
}

/** An entry of a channel's log for its subscribers. Each variant of its frame is encoded once. */
export class Delivery {
  readonly channel: string
  readonly epoch: string
  readonly entry: LogEntry
  /** One object for all subscriptions that have reached this entry. */
  readonly position: LogPosition
  readonly #variants = new Map<Dialect | `${Dialect}+`, EncodedMessage>()

  constructor (channel: string, epoch: string, entry: LogEntry) {
    this.channel = channel
    this.epoch = epoch
    this.entry = entry
    this.position = { epoch, offset: entry.offset }
  }

  frame (dialect: Dialect, withMetadata: boolean): EncodedMessage {
    const variant = withMetadata ? `${dialect}+` as const : dialect
    const encoded = this.#variants.get(variant)
    if (encoded) return encoded
    const head = `{"type":"message","channel":${JSON.stringify(formatChannel(this.channel, dialect))}`
    const frame = new EncodedMessage(`${head},${messageText(this.entry, this.epoch, withMetadata)}`)
    this.#variants.set(variant, frame)
    return frame
  }
}

/** Messages of the channel are lost; those after this position follow. */
function channelGapFrame (channel: string, { epoch, offset }: LogPosition, dialect: Dialect): EncodedMessage {
  const frame = { type: 'channel_gap', channel: formatChannel(channel, dialect), epoch, offset, recovered: false }
  return new EncodedMessage(JSON.stringify(frame))
}

/** A receiver of channel messages: a subscription of a connection, or a listener of the host application. */
export interface Subscriber {
  /** An owner with several matching subscribers receives a message once. */
  readonly owner: object
  deliver (delivery: Delivery): void
  /** Messages of the channel are lost; those after this position follow. */
  reportGap (channel: string, position: LogPosition): void
}

/** The subscription of a connection to a pattern. */
export class PatternSubscription implements Subscriber {
  readonly owner: Peer
  /** Messages carry the metadata of their senders. */
  withMetadata = false
  /** The client has its `ack`. */
  isOpen = false

  constructor (peer: Peer) {
    this.owner = peer
  }

  deliver (delivery: Delivery): void {
    if (!this.isOpen || delivery.entry.origin === this.owner.id) return
    this.owner.push(delivery.frame(this.owner.dialect, this.withMetadata))
  }

  reportGap (channel: string, position: LogPosition): void {
    if (this.isOpen) this.owner.push(channelGapFrame(channel, position, this.owner.dialect))
  }
}

interface SubscriptionOptions {
  peer: Peer
  channel: string
  /** Messages carry the metadata of their senders. */
  withMetadata: boolean
  /** The last position that the client knows. */
  since?: LogPosition | undefined
  /** Reads the entries after a position. */
  read: (since: LogPosition) => Promise<LogPage>
  /** A read failed: the owner calls `resume` later. */
  onStalled: (subscription: Subscription) => void
}

/** Live messages that are held while missed ones are read. Beyond that number they are read from the log as well. */
const maxHeld = 256
/** About so many characters are sent before the connection has to have taken them. */
const burstChars = 262_144

/**
 * The subscription of a connection to one channel: first the missed messages, then the live ones, each once and in order.
 * While the connection catches up, this keeps no more for it than one page and a few live messages.
 */
export class Subscription implements Subscriber {
  readonly owner: Peer
  readonly channel: string
  withMetadata: boolean
  readonly #options: SubscriptionOptions
  #state: 'opening' | 'behind' | 'live' | 'ended' = 'opening'
  /** The position of the last message that was sent; before the first, of the last one that is not sent. */
  #position: LogPosition = { epoch: '', offset: 0 }
  #start: LogPosition = { epoch: '', offset: 0 }
  /** Missed messages that were read and are not sent yet. */
  #page: Delivery[] = []
  #held: Delivery[] = []
  /** The end of the log when it was last read. */
  #logEnd = 0
  /** The newest position that the broker reported since the subscription began. */
  #newest: LogPosition | null = null
  /** The offset of the last message that a pattern of the same connection delivered; infinite without such a pattern. */
  #patternOffset = Infinity

  constructor (options: SubscriptionOptions) {
    this.#options = options
    this.owner = options.peer
    this.channel = options.channel
    this.withMetadata = options.withMetadata
  }

  get position (): LogPosition { return this.#position }

  /** Whether this alone delivers the channel, so that the patterns of the same connection skip it. */
  get isSoleSource () { return this.#state !== 'opening' || this.#options.since !== undefined }

  /** Whether every message after a position was delivered. */
  covers ({ epoch, offset }: LogPosition): boolean {
    return epoch === this.#start.epoch && offset >= this.#start.offset
  }

  /**
   * Starts after a position.
   * @param page the missed messages
   * @param onOpen is called when the position is known, before anything is sent
   */
  open (position: LogPosition, page: LogPage | undefined, onOpen: (position: LogPosition, recovered: boolean) => void): void {
    if (this.#state !== 'opening') return
    this.#state = 'behind'
    const { since } = this.#options
    const { epoch, offset } = page ?? position
    this.#position = this.#start = { epoch, offset: since && page ? lastKnownOffset(since, page) : offset }
    onOpen({ epoch, offset }, page?.recovered ?? true)
    if (page) this.#take(page)
    this.#sendBurst()
  }

  end (): void {
    this.#state = 'ended'
    this.#page = this.#held = []
  }

  deliver (delivery: Delivery): void {
    if (this.#state === 'live') return this.#deliverLive(delivery)
    this.#newest = delivery.position
    if (this.#held.length === maxHeld) this.#held = []
    this.#held.push(delivery)
  }

  /** A pattern of the same connection delivers the channel until this subscription is open. @param delivery the last one */
  deliveredByPattern (delivery?: Delivery): void {
    this.#patternOffset = delivery?.entry.offset ?? 0
  }

  reportGap (channel: string, position: LogPosition): void {
    this.#newest = position
    this.#held = []
    if (this.#state !== 'live') return
    this.#position = this.#start = position
    this.owner.push(channelGapFrame(channel, position, this.owner.dialect))
  }

  /** Reads the entries after the last message that was sent. */
  resume (): void {
    if (this.#state !== 'behind') return
    this.#options.read(this.#position).then(page => { this.#continueWith(page) }, () => { this.#options.onStalled(this) })
  }

  #continueWith (page: LogPage) {
    if (this.#state !== 'behind') return
    if (!page.recovered) this.#skip(page)
    this.#take(page)
    this.#sendBurst()
  }

  /** The entries between the position and the page are lost. */
  #skip ({ epoch, offset, entries: [first] }: LogPage) {
    this.#position = this.#start = { epoch, offset: first ? first.offset - 1 : offset }
    this.owner.push(channelGapFrame(this.channel, this.#position, this.owner.dialect))
  }

  #take ({ epoch, offset: logEnd, entries }: LogPage) {
    this.#logEnd = logEnd
    const next = entries.filter(({ offset }) => offset > this.#position.offset)
    this.#page = next.map(entry => new Delivery(this.channel, epoch, entry))
  }

  /** Sends a part of the page, and the rest when the connection has taken it. */
  #sendBurst () {
    let chars = 0
    let sent = 0
    for (const delivery of this.#page) {
      if (chars >= burstChars) break
      chars += delivery.entry.data.length
      sent++
      this.#advance(delivery)
    }
    this.#page = this.#page.slice(sent)
    if (this.#page.length === 0) return this.#catchUp()
    this.owner.whenSent(`channel ${this.channel}`, () => { if (this.#state === 'behind') this.#sendBurst() })
  }

  /** Goes live when the held messages follow the ones that were read; otherwise reads more. */
  #catchUp () {
    const held = this.#held
    this.#held = []
    const first = held.find(({ position }) => !isReached(position, this.#position))
    const isNext = first ? first.epoch === this.#position.epoch && first.entry.offset === this.#position.offset + 1 : this.#isAtEnd
    if (!isNext) return this.#readMore()
    this.#state = 'live'
    for (const delivery of held) this.#deliverLive(delivery)
  }

  get #isAtEnd () {
    return this.#position.offset >= this.#logEnd && (this.#newest === null || isReached(this.#newest, this.#position))
  }

  #readMore () {
    // After everything sent so far has left: nothing more is read for a connection that takes nothing.
    this.owner.whenSent(`channel ${this.channel}`, () => { this.resume() })
  }

  #deliverLive (delivery: Delivery) {
    if (!isReached(delivery.position, this.#position)) return this.#advance(delivery)
    // It was on its way when the subscription began, and the pattern would have delivered it.
    if (delivery.entry.offset <= this.#patternOffset) return
    this.deliveredByPattern(delivery)
    this.#push(delivery)
  }

  #advance (delivery: Delivery) {
    this.#position = delivery.position
    this.#push(delivery)
  }

  #push (delivery: Delivery) {
    if (delivery.entry.origin !== this.owner.id) this.owner.push(delivery.frame(this.owner.dialect, this.withMetadata))
  }
}

/** Whether a client at position `at` has passed another position. */
function isReached ({ epoch, offset }: LogPosition, at: LogPosition): boolean {
  return epoch === at.epoch && offset <= at.offset
}

/**
 * The offset after which a client continues that knows a position. A page that does not follow the position has the
 * entries that are left.
 */
function lastKnownOffset (since: LogPosition, { epoch, offset: logEnd, recovered, entries: [first] }: LogPage): number {
  if (recovered || (since.epoch === epoch && since.offset > logEnd)) return Math.min(since.offset, logEnd)
  return first ? first.offset - 1 : logEnd
}
