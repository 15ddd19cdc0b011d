import type { LogEntry, LogPage, LogPosition } from '../message-broker.js'
import { channelOf } from '../message-broker.js'
import type { Live } from './texts.js'

export interface TrackerOptions {
  /** Entries after a position; of another epoch those that nobody can have been told. */
  read: (log: string, since: LogPosition, limit: number) => Promise<LogPage>
  tell: (log: string, epoch: string, entry: LogEntry) => void
  lost: (log: string, position: LogPosition) => void
  /** Something could not be read: it is to be located again when that may work. */
  behind: () => void
}

const entriesPerRead = 500
const maxWaiting = 5000

/** Tells the entries of one log in order, each once, wherever they come from. */
export class Tracker {
  readonly log: string
  readonly channel: string | undefined
  readonly #options: TrackerOptions
  #epoch = ''
  #offset = 0
  /** What comes before it is known where the log stands, and while it is read what was missed. */
  #waiting: Live[] | undefined = []
  #isEnded = false

  constructor (log: string, options: TrackerOptions) {
    this.log = log
    this.channel = channelOf(log)
    this.#options = options
  }

  get epoch () { return this.#epoch }
  get offset () { return this.#offset }
  get isLocated () { return this.#epoch !== '' }

  /** Begins with an entry. */
  begin ({ epoch, entry }: Live): void {
    this.#epoch = epoch
    this.#offset = entry.offset - 1
    this.#goOn()
  }

  /** Nothing more is told. @returns what has not been told because it was not known where the log stands */
  end (): readonly Live[] {
    this.#isEnded = true
    return this.isLocated ? [] : this.#waiting!
  }

  offer (live: Live): void {
    const { epoch, entry } = live
    if (this.#waiting) this.#wait(this.#waiting, live)
    else if (epoch !== this.#epoch || entry.offset > this.#offset + 1) this.#fill()
    else if (entry.offset > this.#offset) this.#tell(entry)
  }

  /** The log stands there now. */
  async locate (position: LogPosition): Promise<void> {
    if (!this.isLocated) this.#settle(position)
    else if (!this.#waiting && (position.epoch !== this.#epoch || position.offset > this.#offset)) await this.#fill()
  }

  /** What came since it was subscribed to is told too. */
  #settle ({ epoch, offset }: LogPosition) {
    const [first] = this.#waiting!
    this.#epoch = epoch
    this.#offset = first?.epoch === epoch ? Math.min(offset, first.entry.offset - 1) : offset
    this.#goOn()
  }

  #tell (entry: LogEntry) {
    this.#offset = entry.offset
    if (!this.#isEnded) this.#options.tell(this.log, this.#epoch, entry)
  }

  /** Where too many wait, the last is enough to find that others are missing. */
  #wait (waiting: Live[], live: Live) {
    if (waiting.length >= maxWaiting) waiting.length = 0
    waiting.push(live)
  }

  /** Whatever came before this began is among what is read, or cannot be had. */
  async #fill (): Promise<void> {
    this.#waiting = []
    try {
      while (!this.#isEnded && await this.#readOn());
    } catch {
      this.#waiting = []
      this.#options.behind()
    }
    this.#goOn()
  }

  async #readOn (): Promise<boolean> {
    const { epoch, offset, entries, recovered } = await this.#options.read(this.log, { epoch: this.#epoch, offset: this.#offset }, entriesPerRead)
    if (!recovered) this.#lose({ epoch, offset: (entries[0]?.offset ?? offset + 1) - 1 })
    for (const entry of entries) this.#tell(entry)
    return entries.length === entriesPerRead
  }

  #lose (position: LogPosition) {
    this.#epoch = position.epoch
    this.#offset = position.offset
    if (!this.#isEnded) this.#options.lost(this.log, position)
  }

  #goOn () {
    const waiting = this.#waiting!
    this.#waiting = undefined
    for (const live of waiting) this.offer(live)
  }
}
