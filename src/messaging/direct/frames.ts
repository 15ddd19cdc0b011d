import { EncodedMessage } from '../../protocol/encoded-message.js'
import type { LogEntry, LogPosition } from '../../storage/message-broker.js'
import type { Dialect } from '../../protocol/channel-names.js'

/** How a message was said: as `direct`, or in the small dialect, whose frames have other members. */
export type Manner = 'direct' | 'small'

const tags: Record<Manner, string> = { direct: 'd', small: 's' }

/** What an inbox keeps: JSON text, and before it how it was said. */
export function tagged (manner: Manner, json: string): string {
  return tags[manner] + json
}

/** A direct message as its receivers get it; for each dialect it is made once. */
export class DirectFrames {
  readonly #to: string | null
  readonly #epoch: string
  readonly #entry: LogEntry
  #small: EncodedMessage | undefined
  #direct: EncodedMessage | undefined

  /** @param to null for everybody */
  constructor (to: string | null, epoch: string, entry: LogEntry) {
    this.#to = to
    this.#epoch = epoch
    this.#entry = entry
  }

  in (dialect: Dialect): EncodedMessage {
    if (dialect === 'agents' && this.#entry.data.startsWith(tags.small)) return (this.#small ??= this.#makeSmall())
    return (this.#direct ??= this.#makeDirect())
  }

  #makeSmall (): EncodedMessage {
    const { from, data, at } = this.#entry
    return new EncodedMessage(`{"type":"message","from":${JSON.stringify(from)},"to":${JSON.stringify(this.#to)},"content":${data.slice(1)},"timestamp":${at / 1000}}`)
  }

  #makeDirect (): EncodedMessage {
    const { from, data, metadata, offset, at } = this.#entry
    const known = metadata === undefined ? '' : `,"fromMetadata":${metadata}`
    const place = `,"epoch":${JSON.stringify(this.#epoch)},"offset":${offset},"timestamp":${at / 1000}`
    return new EncodedMessage(`{"type":"direct","from":${JSON.stringify(from)},"data":${data.slice(1)}${known}${place}}`)
  }
}

/** Messages of an inbox cannot be had any more; it goes on after this position. */
export function inboxGap ({ epoch, offset }: LogPosition): EncodedMessage {
  return new EncodedMessage(JSON.stringify({ type: 'inbox_gap', epoch, offset, recovered: false }))
}
