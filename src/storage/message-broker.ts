import type { Clock } from '../lib/clock.js'

/** A position in a log. Offsets of one epoch grow by one; a new epoch means that earlier positions are not comparable. */
export interface LogPosition { readonly epoch: string, readonly offset: number }

/** A message that is stored in a log. */
export interface LogEntry {
  readonly offset: number
  /** The authenticated sender. */
  readonly from: string
  /** JSON text. */
  readonly data: string
  /** JSON text: the metadata of the sender. */
  readonly metadata?: string | undefined
  /** The connection that sent the message, which does not receive it. */
  readonly origin?: string | undefined
  /** Epoch milliseconds, by the clock of the broker. */
  readonly at: number
}

export interface AppendCommand extends Pick<LogEntry, 'from' | 'data' | 'metadata' | 'origin'> {
  readonly log: string
  /** A second message with this id from the same sender to the same log is not stored, within `BrokerLimits.msgIdMs`. */
  readonly msgId?: string | undefined
}

export interface Appended extends LogPosition {
  /** The message was stored before: this is the position of the first one. */
  readonly duplicate: boolean
}

/** Entries of a log, oldest first, and the newest position of the log. */
export interface LogPage extends LogPosition {
  readonly entries: readonly LogEntry[]
  /** Whether no entry after `since` is missing before or between these; otherwise these are the ones that are left. */
  readonly recovered: boolean
}

/** A peer that one process has entered into a presence set. */
export interface PresenceMember {
  readonly peerId: string
  readonly process: string
  /** JSON text. */
  readonly metadata: string
}

/** A change of a presence set. */
export interface PresenceChange extends PresenceMember {
  readonly op: 'enter' | 'update' | 'leave'
  /** No other process had the peer in the set before an enter, or has it there after a leave. */
  readonly isWhole: boolean
  /** Grows with each change of any set, also after the shared state was lost. */
  readonly revision: number
}

/** The members of a presence set. The next change of the set has a greater revision. */
export interface Roster { readonly revision: number, readonly members: readonly PresenceMember[] }

/** Events of the broker, in order and never during a call of the broker. */
export interface BrokerListener {
  /** The next entry of a followed log: in order, each once. */
  appended (log: string, epoch: string, entry: LogEntry): void
  /** Entries of a followed log are lost; it continues after this position. */
  logGap (log: string, position: LogPosition): void
  presenceChanged (set: string, change: PresenceChange): void
  /** Changes of a watched set may have been missed: this is its current state. */
  presenceReloaded (set: string, roster: Roster): void
  /** Another process sent a message to this one with `sendToProcess`. */
  processMessage (from: string, body: string): void
}

/** How much of a log is kept. The oldest entries are dropped first. */
export interface BrokerLimits {
  entries: number
  /** Approximate UTF-8 bytes. The newest entry is kept whatever its size. */
  bytes: number
  /** Milliseconds. A log that is idle for this time and has no followers is deleted. */
  ageMs: number
  /** How long a `msgId` is remembered (ms). */
  msgIdMs: number
}

export const defaultBrokerLimits: BrokerLimits = { entries: 1000, bytes: 4 * 1024 * 1024, ageMs: 3_600_000, msgIdMs: 300_000 }

/**
 * The state that peers share, in one process or many: logs of messages (channels `c:<channel>`, inboxes `i:<peerId>`),
 * presence sets, and messages between processes. Every promise rejects with `storage-unavailable` when the shared state
 * cannot be reached or the broker is not open. After an outage the broker itself restores what was entered, followed and
 * watched.
 */
export interface MessageBroker {
  /** The unguessable id of this process among those that share the broker. */
  readonly process: string
  readonly now: Clock
  open (listener: BrokerListener): Promise<void>
  /** Removes every peer that this process has entered. */
  close (): Promise<void>

  /**
   * Appends of one tick share a round trip and are stored in the order of the calls. A rejected append may have been
   * stored: it can be repeated with its `msgId`.
   */
  append (command: AppendCommand): Promise<Appended>
  /**
   * Reads at most `limit` entries: the oldest ones after `since` (the oldest of all when it is of another epoch), or the
   * newest ones without `since`.
   */
  read (log: string, query: { since?: LogPosition | undefined, limit: number }): Promise<LogPage>
  /**
   * `appended` is called for every entry after the returned position. A repeated call returns the newest position.
   */
  follow (log: string): Promise<LogPosition>
  unfollow (log: string): void
  /** Follows every log whose channel matches (see `PatternTrie`). Each entry is delivered once, however many patterns match. */
  followPattern (pattern: string): Promise<void>
  unfollowPattern (pattern: string): void

  /** Adds a peer to a set, or replaces its metadata. A rejected call has no effect. */
  enter (set: string, peerId: string, metadata: string): Promise<void>
  /** A rejected call takes effect as soon as the shared state can be reached. */
  leave (set: string, peerId: string): Promise<void>
  roster (set: string): Promise<Roster>
  /** As `roster`; after it `presenceChanged` is called for every change of the set. */
  watch (set: string): Promise<Roster>
  unwatch (set: string): void

  /** Sends a message to a process: at most once, in order, and without a confirmation. */
  sendToProcess (process: string, body: string): void
}

/** Joins log, sender and message id into one key that is different for each combination. */
export function messageKey (log: string, from: string, msgId: string): string {
  return `${log.length}:${from.length}:${log}${from}${msgId}`
}
