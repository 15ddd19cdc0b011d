import { shownName, type Dialect } from '../protocol/channel-names.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import type { LogEntry, LogPage, LogPosition } from '../storage/message-broker.js'

/** A limit for the messages of a `history` frame. It leaves room for the other members: common clients limit frames to 1 MiB. */
const maxHistoryBytes = 900_000

/** The JSON text of a channel message from its member `from` to the closing brace. */
function messageText ({ from, data, metadata, offset, at }: LogEntry, epoch: string, withMetadata: boolean): string {
  const known = withMetadata && metadata !== undefined ? `,"fromMetadata":${metadata}` : ''
  return `"from":${JSON.stringify(from)},"data":${data}${known},"epoch":${JSON.stringify(epoch)},"offset":${offset},"timestamp":${at / 1000}}`
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
    const head = `{"type":"message","channel":${JSON.stringify(shownName(this.channel, dialect))}`
    const frame = new EncodedMessage(`${head},${messageText(this.entry, this.epoch, withMetadata)}`)
    this.#variants.set(variant, frame)
    return frame
  }
}

/** Messages of the channel are lost; those after this position follow. */
export function channelGapFrame (channel: string, { epoch, offset }: LogPosition, dialect: Dialect): EncodedMessage {
  const frame = { type: 'channel_gap', channel: shownName(channel, dialect), epoch, offset, recovered: false }
  return new EncodedMessage(JSON.stringify(frame))
}

/** A subscription ended because the new token of its connection does not allow it. @param channel as the client writes it */
export function subscriptionEndedFrame (channel: string): EncodedMessage {
  const message = `The new token does not allow the subscription to ${channel}`
  return new EncodedMessage(JSON.stringify({ type: 'error', code: 'channel_not_authorized', message, channel }))
}

/** A page of a channel's log, read for a client. */
export interface History {
  readonly channel: string
  /** The position that the client asked for. */
  readonly since: LogPosition | undefined
  readonly page: LogPage
}

export function historyFrame (history: History, dialect: Dialect, requestId: string | undefined): string {
  const { channel, page: { epoch, offset, recovered } } = history
  const { messages, truncated } = fittingMessages(history)
  const head = JSON.stringify({
    type: 'history',
    ...(requestId !== undefined && { requestId }),
    channel: shownName(channel, dialect),
    epoch,
    offset,
    recovered,
    ...(truncated && { truncated })
  })
  return `${head.slice(0, -1)},"messages":[${messages.join()}]}`
}

/** As many messages as fit into a frame: the oldest after a position, without a position the newest. */
function fittingMessages ({ since, page: { entries, epoch } }: History): { messages: readonly string[], truncated: boolean } {
  const texts: string[] = []
  let bytes = 0
  for (const entry of since ? entries : entries.toReversed()) {
    const text = `{${messageText(entry, epoch, true)}`
    bytes += Buffer.byteLength(text)
    if (bytes > maxHistoryBytes && texts.length > 0) break
    texts.push(text)
  }
  return { messages: since ? texts : texts.reverse(), truncated: texts.length < entries.length }
}

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
    const known = metadata === undefined ? '' : `,"fromMetadata":${metadata}`
    const position = `,"epoch":${JSON.stringify(this.epoch)},"offset":${offset},"timestamp":${at / 1000}`
    return new EncodedMessage(`{"type":"direct","from":${JSON.stringify(from)},"data":${data.slice(1)}${known}${position}}`)
  }
}

/** Messages of the inbox are lost; those after this position follow. */
export function inboxGapFrame ({ epoch, offset }: LogPosition): EncodedMessage {
  return new EncodedMessage(JSON.stringify({ type: 'inbox_gap', epoch, offset, recovered: false }))
}
