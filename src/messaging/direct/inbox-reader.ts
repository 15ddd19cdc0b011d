import { isAway } from '../../errors.js'
import type { MessageBroker, LogEntry, LogPage, LogPosition } from '../../storage/message-broker.js'
import type { Deadlines } from '../../lib/deadlines.js'
import { DirectFrames, inboxGap } from './frames.js'
import type { Peer } from '../peer.js'

export interface InboxReaderOptions {
  peer: Peer
  log: string
  broker: MessageBroker
  deadlines: Deadlines
  /** Whether a message that was kept is for whoever has this name now. */
  isFor: (entry: LogEntry) => boolean
  /** A message that was read was given to the connection. */
  onGiven: (entry: LogEntry) => void
  onError: (error: unknown) => void
}

/** What was missed, about to be sent. */
export interface Replay extends LogPosition {
  readonly recovered: boolean
  /** Sends it, and then what comes; call it once whoever asked has its answer. */
  start (): void
}

const pageSize = 100
/** So much is sent before it has to have left. */
const sliceLength = 262_144
const retryMs = 1000
const beginning: LogPosition = { epoch: '', offset: 0 }

/** What one connection has had of the inbox of its peer: each message once, in order, whether it came live or was read. */
export class InboxReader {
  readonly #options: InboxReaderOptions
  /** The messages of this epoch from `first` to `last` were given. */
  #epoch = ''
  #first = 1
  #last = 0
  /** The first of what is being read, where that lies before the range. */
  #lowest = Infinity
  /** Where the inbox stood when it was last read. */
  #stands = beginning
  #isReading = false
  /** Something came that the reading has to come to yet. */
  #isBehind = false
  /** Live messages that wait for the first page. */
  #held: Array<() => void> | null = null
  #running: Promise<void> = Promise.resolve()

  constructor (options: InboxReaderOptions) {
    this.#options = options
  }

  /** A live message. @returns whether the connection was given it: if not, it is read with what came before it */
  give (epoch: string, entry: LogEntry, frames: DirectFrames): boolean {
    if (this.#isReading) return this.#wait(() => { this.give(epoch, entry, frames) })
    if (!this.#has(epoch, entry)) this.#push(epoch, entry, frames)
    return true
  }

  /** Messages up to this position cannot be had any more. */
  lost (position: LogPosition): void {
    if (this.#isReading) this.#wait(() => { this.lost(position) })
    else this.#options.peer.push(inboxGap(position))
  }

  /**
   * Reads what came after a position, or all that is kept. Messages that come meanwhile are sent after that.
   * @throws storage-unavailable; then it is as if nobody had asked
   */
  async replay (since: LogPosition | undefined): Promise<Replay> {
    await this.#running
    this.#isReading = true
    this.#lowest = Infinity
    this.#held = []
    try {
      const page = await this.#read(since ?? beginning)
      this.#isBehind = this.#held.length > 0
      this.#held = null
      const { epoch, offset } = page
      return { epoch, offset, recovered: since === undefined || page.recovered, start: () => { this.#start(page) } }
    } catch (error) {
      this.#giveHeld()
      throw error
    }
  }

  #wait (go: () => void): false {
    if (this.#held) this.#held.push(go)
    else this.#isBehind = true
    return false
  }

  #giveHeld () {
    const held = this.#held!
    this.#held = null
    this.#isReading = false
    for (const give of held) give()
  }

  #start (page: LogPage) {
    this.#running = this.#run(page).catch(error => { this.#failed(error) })
  }

  /** What was not read is lost to this connection, which has to know. */
  #failed (error: unknown) {
    this.#isReading = false
    this.#options.peer.push(inboxGap(this.#stands))
    this.#options.onError(error)
  }

  async #run (first: LogPage): Promise<void> {
    let position = await this.#send(first)
    while (this.#options.peer.isOpen && (this.#isBehind || position.isPart)) {
      this.#isBehind = false
      const page = await this.#readOn(position)
      if (!page.recovered) this.#options.peer.push(inboxGap(before(page)))
      position = await this.#send(page)
    }
    this.#first = Math.min(this.#first, this.#lowest)
    this.#isReading = false
  }

  #read (since: LogPosition): Promise<LogPage> {
    return this.#options.broker.read(this.#options.log, { since, limit: pageSize })
  }

  /** A broker that is away for a while only makes this slower. */
  async #readOn (since: LogPosition): Promise<LogPage> {
    for (;;) {
      try {
        return await this.#read(since)
      } catch (error) {
        if (!isAway(error)) throw error
        await new Promise<void>(resolve => { this.#options.deadlines.after(retryMs, resolve) })
      }
    }
  }

  /** @returns how far this came, and whether there is more to be read */
  async #send (page: LogPage): Promise<LogPosition & { isPart: boolean }> {
    const { epoch, entries } = page
    this.#stands = { epoch, offset: page.offset }
    let length = 0
    for (const entry of entries) {
      if (this.#has(epoch, entry) || !this.#options.isFor(entry)) continue
      length += entry.data.length
      this.#push(epoch, entry, new DirectFrames(this.#options.peer.peerId, epoch, entry))
      this.#options.onGiven(entry)
      if (length < sliceLength) continue
      length = 0
      await this.#sent()
    }
    const isPart = entries.length === pageSize && entries.at(-1)!.offset < page.offset
    const offset = isPart ? entries.at(-1)!.offset : page.offset
    return { epoch, offset, isPart }
  }

  #sent (): Promise<void> {
    return new Promise(resolve => { this.#options.peer.whenSent('inbox', resolve) })
  }

  #has (epoch: string, { offset }: LogEntry): boolean {
    return epoch === this.#epoch && offset >= this.#first && offset <= this.#last
  }

  #push (epoch: string, entry: LogEntry, frames: DirectFrames) {
    const { peer } = this.#options
    this.#note(epoch, entry.offset)
    peer.push(frames.in(peer.dialect))
  }

  /** What is read of the time before the range joins it when all of that was sent. */
  #note (epoch: string, offset: number) {
    if (epoch !== this.#epoch || this.#last < this.#first) {
      this.#epoch = epoch
      this.#lowest = Infinity
      this.#first = this.#last = offset
    } else if (offset > this.#last) this.#last = offset
    else this.#lowest = Math.min(this.#lowest, offset)
  }
}

function before ({ epoch, offset, entries: [first] }: LogPage): LogPosition {
  return { epoch, offset: first ? first.offset - 1 : offset }
}
