import { EncodedMessage } from '../protocol/encoded-message.js'
import type { LogEntry, LogPosition } from '../storage/message-broker.js'
import { shownName } from '../protocol/channel-names.js'
import type { Dialect } from '../protocol/channel-names.js'

/** A message of a channel as JSON text without its type and channel; every answer and frame shows it so. */
export function messageText ({ from, data, metadata, offset, at }: LogEntry, epoch: string, withMetadata: boolean): string {
  const known = withMetadata && metadata !== undefined ? `,"fromMetadata":${metadata}` : ''
  return `"from":${JSON.stringify(from)},"data":${data}${known},"epoch":${JSON.stringify(epoch)},"offset":${offset},"timestamp":${at / 1000}}`
}

/** An entry on its way to those who are subscribed: its frame is made once for all who see the same. */
export class Delivery {
  readonly channel: string
  readonly epoch: string
  readonly entry: LogEntry
  /** One for all subscriptions that are there by now. */
  readonly position: LogPosition
  readonly #made = new Map<Dialect | `${Dialect}+`, EncodedMessage>()

  constructor (channel: string, epoch: string, entry: LogEntry) {
    this.channel = channel
    this.epoch = epoch
    this.entry = entry
    this.position = { epoch, offset: entry.offset }
  }

  frame (dialect: Dialect, withMetadata: boolean): EncodedMessage {
    const kind = withMetadata ? `${dialect}+` as const : dialect
    const known = this.#made.get(kind)
    if (known) return known
    const frame = new EncodedMessage(`{"type":"message","channel":${JSON.stringify(shownName(this.channel, dialect))},${messageText(this.entry, this.epoch, withMetadata)}`)
    this.#made.set(kind, frame)
    return frame
  }
}

/** Says that messages of a channel are lost: it goes on after this position. */
export function gapFrame (channel: string, { epoch, offset }: LogPosition, dialect: Dialect): EncodedMessage {
  return new EncodedMessage(JSON.stringify({ type: 'channel_gap', channel: shownName(channel, dialect), epoch, offset, recovered: false }))
}
