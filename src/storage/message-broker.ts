import type { Clock } from '../lib/clock.js'

/** Where a log stands. Offsets of one epoch grow by one; another epoch means that what was counted before is not known. */
export interface LogPosition { readonly epoch: string, readonly offset: number }

/** A message that has its place in a log. */
export interface LogEntry {
  readonly offset: number
  /** Who sent it, as authenticated. */
  readonly from: string
  /** JSON text. */
  readonly data: string
  /** JSON text of what was known of the sender. */
  readonly metadata?: string | undefined
  /** Which connection it came by, so that it is not sent back there. */
  readonly origin?: string | undefined
  /** Epoch milliseconds, by the broker's clock. */
  readonly at: number
}

export interface AppendCommand extends Pick<LogEntry, 'from' | 'data' | 'metadata' | 'origin'> {
  readonly log: string
  /** The same of the same sender within five minutes is stored once. */
  readonly msgId?: string | undefined
}

export interface Appended extends LogPosition {
  /** It was there before: the position is that of the first. */
  readonly duplicate: boolean
}

/** Entries of a log, the oldest first, and where the log stands. */
export interface LogPage extends LogPosition {
  readonly entries: readonly LogEntry[]
  /** Whether everything after `since` is in here or, when the page is full, follows it. Otherwise these are what is left. */
  readonly recovered: boolean
}

/** Somebody in a place, by one process. */
export interface PresenceMember {
  readonly peerId: string
  readonly process: string
  /** JSON text. */
  readonly metadata: string
}

/** How a place changed. */
export interface PresenceChange extends PresenceMember {
  readonly op: 'enter' | 'update' | 'leave'
  /** In no other process before an enter, or after a leave: the peer itself joined or left. */
  readonly isWhole: boolean
  /** Grows with each change, of whatever place; never falls, also when what is shared was lost. */
  readonly revision: number
}

/** Who is in a place. Its next change has a greater revision. */
export interface Roster { readonly revision: number, readonly members: readonly PresenceMember[] }

/** What happens elsewhere, in order and never from inside a call of the broker. */
export interface BrokerListener {
  /** The next entry of a log that is followed: in order, each once. */
  appended (log: string, epoch: string, entry: LogEntry): void
  /** Entries of a followed log cannot be had any more; it goes on after this position. */
  logGap (log: string, position: LogPosition): void
  presenceChanged (place: string, change: PresenceChange): void
  /** Changes of a followed place may have been missed: this is how it stands. */
  presenceReloaded (place: string, roster: Roster): void
  /** A process said something to this one. */
  processMessage (from: string, body: string): void
}

/** How much is kept; the oldest goes first. */
export interface BrokerLimits {
  /** Of a log. */
  entries: number
  /** Of a log: UTF-8 bytes, roughly. The newest entry stays whatever its size. */
  bytes: number
  /** Of a log: milliseconds. One that is idle for so long, and that nobody follows, is forgotten. */
  ageMs: number
  /** How long a `msgId` is remembered (ms). */
  msgIdMs: number
}

export const defaultBrokerLimits: BrokerLimits = { entries: 1000, bytes: 4 * 1024 * 1024, ageMs: 3_600_000, msgIdMs: 300_000 }

/**
 * What peers share, in one process or many: logs of messages (channels `c:<channel>`, inboxes `i:<peerId>`), who is in
 * which place, and words between processes. All promises reject with `storage-unavailable` when what is shared cannot be
 * reached, or this is not open; what was entered, followed and watched comes back by itself.
 */
export interface MessageBroker {
  /** This process among those that share a broker; unguessable. */
  readonly process: string
  readonly now: Clock
  open (listener: BrokerListener): Promise<void>
  /** Everybody who entered by this process leaves. */
  close (): Promise<void>

  /**
   * Appends of one tick share a round trip; their order is that of the calls. One that rejects may have been stored: with
   * its `msgId` it can be tried again.
   */
  append (command: AppendCommand): Promise<Appended>
  /** At most `limit` entries: the oldest of those after `since` (all, where that is of another epoch), without it the newest. */
  read (log: string, query: { since?: LogPosition | undefined, limit: number }): Promise<LogPage>
  /** From the position that this resolves with on, `appended` is told of every entry. Again: where it stands by now. */
  follow (log: string): Promise<LogPosition>
  unfollow (log: string): void
  /** The same for every log whose channel matches (see `PatternTrie`). `appended` is told once of an entry, however many match. */
  followPattern (pattern: string): Promise<void>
  unfollowPattern (pattern: string): void

  /** Again by the same process: the metadata is replaced. One that rejects has not entered. */
  enter (place: string, peerId: string, metadata: string): Promise<void>
  /** One that rejects has left nevertheless, as soon as that can be told. */
  leave (place: string, peerId: string): Promise<void>
  /** Who is there now. */
  roster (place: string): Promise<Roster>
  /** As `roster`; from there on `present` is told of every change. */
  watch (place: string): Promise<Roster>
  unwatch (place: string): void

  /** Says something to a process, at most once, in order; whether it is there is not known. */
  sendToProcess (process: string, body: string): void
}
