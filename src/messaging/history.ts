import type { LogEntry, LogPage, LogPosition } from '../storage/message-broker.js'
import { shownName } from '../protocol/channel-names.js'
import { messageText } from './delivery.js'
import type { Dialect } from '../protocol/channel-names.js'

/** Leaves room for the rest of a frame, which common clients limit to 1 MiB. */
const maxBytes = 900_000

/** What was published in a channel. */
export interface History {
  /** As no dialect writes it. */
  readonly channel: string
  /** After which it was asked for. */
  readonly since: LogPosition | undefined
  readonly page: LogPage
}

/** A part of a history, as JSON texts of its messages. */
export interface HistoryTexts { readonly messages: readonly string[], readonly truncated: boolean }

/** As many messages as fit: the oldest where somebody goes on from a position, else the newest. */
export function historyTexts ({ since, page: { entries, epoch } }: History): HistoryTexts {
  const texts: string[] = []
  let bytes = 0
  for (const entry of since ? entries : entries.toReversed()) {
    const text = textOf(entry, epoch)
    bytes += Buffer.byteLength(text)
    if (bytes > maxBytes && texts.length > 0) break
    texts.push(text)
  }
  return { messages: since ? texts : texts.reverse(), truncated: texts.length < entries.length }
}

const textOf = (entry: LogEntry, epoch: string) => `{${messageText(entry, epoch, true)}`

/** The `history` frame. */
export function historyFrame (history: History, dialect: Dialect, requestId: string | undefined): string {
  const { channel, page: { epoch, offset, recovered } } = history
  const { messages, truncated } = historyTexts(history)
  const head = JSON.stringify({ type: 'history', ...(requestId !== undefined && { requestId }), channel: shownName(channel, dialect), epoch, offset, recovered, ...(truncated && { truncated }) })
  return `${head.slice(0, -1)},"messages":[${messages.join()}]}`
}
