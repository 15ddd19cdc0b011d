import { isStorageUnavailable } from '../../errors.js'
import type { Deadlines } from '../../lib/deadlines.js'
import type { Dialect } from '../../protocol/channel-names.js'
import { EncodedMessage } from '../../protocol/encoded-message.js'
import type { LogEntry, LogPage, LogPosition, MessageBroker } from '../../storage/message-broker.js'
import type { Peer } from '../peer.js'

/** The frame in which a direct message was sent: `send`, or `message` of the small dialect, which has other members. */
export type DirectFormat = 'direct' | 'small'

const formatTags: Record<DirectFormat, string> = { direct: 'd', small: 's' }

/** The data of an inbox entry: the tag of its format followed by JSON text. */
export function taggedData (format: DirectFormat, json: string): string {
  return formatTags[format] + json
}

/** An entry of an inbox, or a broadcast, for the connections that receive it. Each variant of its frame is encoded once. */
export class DirectDelivery {
  readonly epoch: string
  readonly entry: LogEntry
  readonly #to: string | null
  #small: EncodedMessage | undefined
  #direct: EncodedMessage | undefined

  /** @param to null for a broadcast */
  constructor (to: string | null, epoch: string, entry: LogEntry) {
    this.#to = to
    this.epoch = epoch
    this.entry = entry
  }

  frame (dialect: Dialect): EncodedMessage {
    if (dialect === 'agents' && this.entry.data.startsWith(formatTags.small)) return (this.#small ??= this.#encodeSmall())
    return (this.#direct ??= this.#encodeDirect())
  }

  #encodeSmall (): EncodedMessage {
    const { from, data, at } = this.entry
    const ends = `"from":${JSON.stringify(from)},"to":${JSON.stringify(this.#to)}`
    return new EncodedMessage(`{"type":"message",${ends},"content":${data.slice(1)},"timestamp":${at / 1000}}`)
  }

  #encodeDirect (): EncodedMessage {
    const { from, data, metadata, offset, at } = this.entry
    const metadataText = metadata === undefined ? '' : `,"fromMetadata":${metadata}`
    const position = `,"epoch":${JSON.stringify(this.epoch)},"offset":${offset},"timestamp":${at / 1000}`
    return new EncodedMessage(`{"type":"direct","from":${JSON.stringify(from)},"data":${data.slice(1)}${metadataText}${position}}`)
  }
}

/** Messages of the inbox are lost; those after this position follow. */
function inboxGapFrame ({ epoch, offset }: LogPosition): EncodedMessage {
  return new EncodedMessage(JSON.stringify({ type: 'inbox_gap', epoch, offset, recovered: false }))
}

interface InboxReaderOptions {
  peer: Peer
  log: string
  broker: MessageBroker
  deadlines: Deadlines
  /** Whether a stored message is for the current owner of the peer's name: an agent may have registered after it. */
  isFor: (entry: LogEntry) => boolean
  /** A message that was read from the log was sent to the connection. */
  onDelivered: (entry: LogEntry) => void
  onError: (error: unknown) => void
}

/** Missed messages that are ready to be sent. */
export interface Replay extends LogPosition {
  readonly recovered: boolean
  /** Sends them, and then live messages. The caller sends the `ack` first. */
  start (): void
}

const pageSize = 100
/** About so many characters are sent before the connection has to have taken them. */
const burstChars = 262_144
const retryMs = 1000
const beginning: LogPosition = { epoch: '', offset: 0 }

/** The inbox of a peer as one of its connections receives it: each message once and in order, live or read from the log. */
export class InboxReader {
  readonly #options: InboxReaderOptions
  /** The messages of this epoch from `first` to `last` were sent. */
  #epoch = ''
  #first = 1
  #last = 0
  /** The lowest offset that the current replay has sent below that range. */
  #lowest = Infinity
  /** The end of the inbox when it was last read. */
  #end = beginning
  #isReading = false
  /** A live message arrived that the replay has to read. */
  #isBehind = false
  /** Live events that wait until the first page is read. */
  #held: Array<() => void> | null = null
  /** Resolves when all replays so far were sent, or failed. */
  #replays: Promise<void> = Promise.resolve()

  constructor (options: InboxReaderOptions) {
    this.#options = options
  }

  /** Delivers a live message. @returns false when a replay sends it later, after the messages before it */
  deliver (delivery: DirectDelivery): boolean {
    if (this.#isReading) return this.#hold(() => { this.deliver(delivery) })
    if (!this.#isSent(delivery)) this.#push(delivery)
    return true
  }

  /** Messages of the inbox are lost; those after this position follow. */
  reportGap (position: LogPosition): void {
    if (this.#isReading) this.#hold(() => { this.reportGap(position) })
    else this.#options.peer.push(inboxGapFrame(position))
  }

  /**
   * Reads the messages after a position, or all stored ones. Live messages follow them. A second replay starts when the
   * messages of the first one were sent.
   * @throws storage-unavailable; live messages continue then as if there had been no replay
   */
  replay (since: LogPosition | undefined): Promise<Replay> {
    return new Promise((resolve, reject) => {
      const ready = ({ epoch, offset, recovered }: LogPage, start: () => void) => {
        resolve({ epoch, offset, recovered: since === undefined || recovered, start })
      }
      this.#replays = this.#replays.then(() => this.#readFirst(since ?? beginning)).then(page => this.#untilSent(page, ready), reject)
    })
  }

  /** Resolves when the caller has started the replay and its messages were sent. */
  #untilSent (page: LogPage, ready: (page: LogPage, start: () => void) => void): Promise<void> {
    return new Promise(resolve => {
      ready(page, () => { this.#run(page).catch(error => { this.#failed(error) }).finally(resolve) })
    })
  }

  /** Reads the first page of a replay, and holds live messages meanwhile. */
  async #readFirst (since: LogPosition): Promise<LogPage> {
    const held: Array<() => void> = []
    this.#isReading = true
    this.#lowest = Infinity
    this.#held = held
    try {
      const page = await this.#read(since)
      this.#isBehind = held.length > 0
      return page
    } catch (error) {
      this.#isReading = false
      for (const deliver of held) deliver()
      throw error
    } finally {
      this.#held = null
    }
  }

  #hold (deliver: () => void): false {
    if (this.#held) this.#held.push(deliver)
    else this.#isBehind = true
    return false
  }

  /** The messages that could not be read are lost to this connection. */
  #failed (error: unknown) {
    this.#isReading = false
    this.#options.peer.push(inboxGapFrame(this.#end))
    this.#options.onError(error)
  }

  async #run (first: LogPage): Promise<void> {
    let position = await this.#send(first)
    while (this.#options.peer.isOpen && (this.#isBehind || position.isPart)) {
      this.#isBehind = false
      const page = await this.#readWhenReachable(position)
      if (!page.recovered) this.#options.peer.push(inboxGapFrame(positionBefore(page)))
      position = await this.#send(page)
    }
    this.#first = Math.min(this.#first, this.#lowest)
    this.#isReading = false
  }

  #read (since: LogPosition): Promise<LogPage> {
    return this.#options.broker.read(this.#options.log, { since, limit: pageSize })
  }

  /** Tries again while the broker is not reachable. */
  async #readWhenReachable (since: LogPosition): Promise<LogPage> {
    for (;;) {
      try {
        return await this.#read(since)
      } catch (error) {
        if (!isStorageUnavailable(error)) throw error
        await new Promise<void>(resolve => { this.#options.deadlines.after(retryMs, resolve) })
      }
    }
  }

  /** @returns the position that was reached; `isPart` when the log has more entries */
  async #send (page: LogPage): Promise<LogPosition & { isPart: boolean }> {
    const { epoch, entries } = page
    this.#end = { epoch, offset: page.offset }
    let chars = 0
    for (const entry of entries) {
      const delivery = new DirectDelivery(this.#options.peer.peerId, epoch, entry)
      if (this.#isSent(delivery) || !this.#options.isFor(entry)) continue
      chars += entry.data.length
      this.#push(delivery)
      this.#options.onDelivered(entry)
      if (chars < burstChars) continue
      chars = 0
      await this.#allSent()
    }
    const lastRead = entries.at(-1)?.offset ?? page.offset
    const isPart = entries.length === pageSize && lastRead < page.offset
    return { epoch, offset: isPart ? lastRead : page.offset, isPart }
  }

  #allSent (): Promise<void> {
    return new Promise(resolve => { this.#options.peer.whenSent('inbox', resolve) })
  }

  #isSent ({ epoch, entry: { offset } }: DirectDelivery): boolean {
    return epoch === this.#epoch && offset >= this.#first && offset <= this.#last
  }

  #push (delivery: DirectDelivery) {
    const { peer } = this.#options
    this.#markSent(delivery.epoch, delivery.entry.offset)
    peer.push(delivery.frame(peer.dialect))
  }

  /** Messages below the range extend it when the replay has sent all of them. */
  #markSent (epoch: string, offset: number) {
    if (epoch !== this.#epoch || this.#last < this.#first) {
      this.#epoch = epoch
      this.#lowest = Infinity
      this.#first = this.#last = offset
    } else if (offset > this.#last) this.#last = offset
    else this.#lowest = Math.min(this.#lowest, offset)
  }
}

function positionBefore ({ epoch, offset, entries: [first] }: LogPage): LogPosition {
  return { epoch, offset: first ? first.offset - 1 : offset }
}
