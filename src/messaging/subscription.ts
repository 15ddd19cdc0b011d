import type { LogPage, LogPosition } from '../storage/message-broker.js'
import { Delivery, gapFrame } from './delivery.js'
import type { Peer } from './peer.js'

/** Who hears of channels: a connection, or a listener of the host. One owner hears of a message once. */
export interface Subscriber {
  readonly owner: object
  tell (delivery: Delivery): void
  lost (channel: string, position: LogPosition): void
}

/** What a connection hears by a pattern. */
export class PatternSubscription implements Subscriber {
  readonly owner: Peer
  /** What is known of the sender stands in the message. */
  withMetadata = false
  /** The connection has its answer. */
  isOpen = false

  constructor (peer: Peer) {
    this.owner = peer
  }

  tell (delivery: Delivery): void {
    if (this.isOpen && delivery.entry.origin !== this.owner.id) this.owner.push(delivery.frame(this.owner.dialect, this.withMetadata))
  }

  lost (channel: string, position: LogPosition): void {
    if (this.isOpen) this.owner.push(gapFrame(channel, position, this.owner.dialect))
  }
}

export interface SubscriptionOptions {
  peer: Peer
  channel: string
  /** What is known of the sender stands in the message. */
  withMetadata: boolean
  /** The last position that the connection knows. */
  since?: LogPosition | undefined
  /** Reads what follows a position. */
  read: (since: LogPosition) => Promise<LogPage>
  /** What could not be read has to be read later, by `goOn`. */
  onStalled: (subscription: Subscription) => void
}

/** Live messages that wait while earlier ones are read; when there are more, they are read too. */
const maxWaiting = 256
/** About so much is sent before the connection has to have taken it. */
const burstChars = 262_144

/**
 * What a connection hears by the name of a channel: what it missed, and then what comes, each once and in order. While it
 * takes what it missed no more is kept for it than one page and a few live messages.
 */
export class Subscription implements Subscriber {
  readonly owner: Peer
  readonly channel: string
  withMetadata: boolean
  readonly #options: SubscriptionOptions
  #state: 'opening' | 'behind' | 'live' | 'ended' = 'opening'
  /** The last that was sent or, at first, the last that is not sent. */
  #at: LogPosition = { epoch: '', offset: 0 }
  #start: LogPosition = { epoch: '', offset: 0 }
  #page: Delivery[] = []
  #waiting: Delivery[] = []
  /** Where the channel stood when it was last read. */
  #end = 0
  /** The last that this process was told of, since it is subscribed. */
  #newest: LogPosition | null = null
  /** The last that a pattern of the same connection has told it; none does where this is the end of time. */
  #passed = Infinity

  constructor (options: SubscriptionOptions) {
    this.#options = options
    this.owner = options.peer
    this.channel = options.channel
    this.withMetadata = options.withMetadata
  }

  get position (): LogPosition { return this.#at }

  /** Nothing else tells the connection of this channel: not even a pattern that it had before. */
  get isSole () { return this.#state !== 'opening' || this.#options.since !== undefined }

  /** Whether nothing after a position was withheld since it is subscribed. */
  covers ({ epoch, offset }: LogPosition): boolean {
    return epoch === this.#start.epoch && offset >= this.#start.offset
  }

  /**
   * Begins after a position; `page` has what was missed.
   * @param told is called when the position is known, before anything is sent
   */
  open (position: LogPosition, page: LogPage | undefined, told: (position: LogPosition, recovered: boolean) => void): void {
    if (this.#state !== 'opening') return
    this.#state = 'behind'
    const { since } = this.#options
    const { epoch, offset } = page ?? position
    this.#at = this.#start = { epoch, offset: since && page ? lastKnown(since, page) : offset }
    told({ epoch, offset }, page?.recovered ?? true)
    if (page) this.#take(page)
    this.#send()
  }

  end (): void {
    this.#state = 'ended'
    this.#page = this.#waiting = []
  }

  tell (delivery: Delivery): void {
    if (this.#state === 'live') return this.#tellLive(delivery)
    this.#newest = delivery.position
    if (this.#waiting.length === maxWaiting) this.#waiting = []
    this.#waiting.push(delivery)
  }

  /** The connection has a pattern that tells it of the channel until this is open. @param delivery what it has just told */
  share (delivery?: Delivery): void {
    this.#passed = delivery?.entry.offset ?? 0
  }

  lost (channel: string, position: LogPosition): void {
    this.#newest = position
    this.#waiting = []
    if (this.#state !== 'live') return
    this.#at = this.#start = position
    this.owner.push(gapFrame(channel, position, this.owner.dialect))
  }

  /** Reads what could not be read before. */
  goOn (): void {
    if (this.#state !== 'behind') return
    this.#options.read(this.#at).then(page => { this.#goOnWith(page) }, () => { this.#options.onStalled(this) })
  }

  #goOnWith (page: LogPage) {
    if (this.#state !== 'behind') return
    if (!page.recovered) this.#skip(page)
    this.#take(page)
    this.#send()
  }

  /** What follows cannot be had: the connection is told from where it goes on. */
  #skip ({ epoch, offset, entries: [first] }: LogPage) {
    this.#at = this.#start = { epoch, offset: first ? first.offset - 1 : offset }
    this.owner.push(gapFrame(this.channel, this.#at, this.owner.dialect))
  }

  #take ({ epoch, offset: end, entries }: LogPage) {
    this.#end = end
    this.#page = entries.filter(({ offset }) => offset > this.#at.offset).map(entry => new Delivery(this.channel, epoch, entry))
  }

  /** Sends some, and goes on when the connection has taken that. */
  #send () {
    let chars = 0
    while (this.#page.length > 0 && chars < burstChars) {
      const delivery = this.#page.shift()!
      chars += delivery.entry.data.length
      this.#pass(delivery)
    }
    if (this.#page.length > 0) return this.owner.whenSent(`channel ${this.channel}`, () => { if (this.#state === 'behind') this.#send() })
    this.#catchUp()
  }

  /** Goes over to what comes live when that follows what was read, and reads more where it does not. */
  #catchUp () {
    const [first] = this.#waiting.filter(delivery => !isKnown(delivery.position, this.#at))
    const isNext = first ? first.epoch === this.#at.epoch && first.entry.offset === this.#at.offset + 1 : this.#isAtEnd
    const waiting = this.#waiting
    this.#waiting = []
    if (!isNext) return this.#more()
    this.#state = 'live'
    for (const delivery of waiting) this.#tellLive(delivery)
  }

  get #isAtEnd () {
    return this.#at.offset >= this.#end && (this.#newest === null || isKnown(this.#newest, this.#at))
  }

  #more () {
    // After what was sent, so that a connection that takes nothing does not have more and more read for it.
    this.owner.whenSent(`channel ${this.channel}`, () => { this.goOn() })
  }

  #tellLive (delivery: Delivery) {
    if (!isKnown(delivery.position, this.#at)) return this.#pass(delivery)
    // It was under way when the subscription began: the pattern would have told it.
    if (delivery.entry.offset <= this.#passed) return
    this.share(delivery)
    this.#push(delivery)
  }

  #pass (delivery: Delivery) {
    this.#at = delivery.position
    this.#push(delivery)
  }

  #push (delivery: Delivery) {
    const { entry } = delivery
    if (entry.origin !== this.owner.id) this.owner.push(delivery.frame(this.owner.dialect, this.withMetadata))
  }
}

/** Whether whoever is at a position has that other one behind it. */
function isKnown ({ epoch, offset }: LogPosition, at: LogPosition): boolean {
  return epoch === at.epoch && offset <= at.offset
}

/** After which offset somebody is told that knows a position; a page that does not follow it has what is left. */
function lastKnown ({ epoch, offset }: LogPosition, { epoch: now, offset: end, recovered, entries: [first] }: LogPage): number {
  if (recovered || (epoch === now && offset > end)) return Math.min(offset, end)
  return first ? first.offset - 1 : end
}
