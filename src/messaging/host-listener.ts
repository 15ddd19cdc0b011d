import type { LogPosition } from '../storage/message-broker.js'
import { shownName } from '../protocol/channel-names.js'
import type { Delivery } from './delivery.js'
import type { Metadata } from './presence/profile.js'
import type { Subscriber } from './subscription.js'

/** A message of a channel, as the host is told it. */
export interface ChannelMessage {
  readonly channel: string
  readonly from: string
  readonly data: unknown
  /** What was known of the sender, where it took part. */
  readonly fromMetadata?: Metadata
  readonly epoch: string
  /** Grows by one with each message of an epoch: what is missing between two was lost. */
  readonly offset: number
  /** Epoch seconds. */
  readonly timestamp: number
}

export type MessageListener = (message: ChannelMessage) => void | Promise<void>

/** A listener of the host: what it throws, or rejects with, is for the log and for nobody else. */
export class HostListener implements Subscriber {
  readonly owner = this
  readonly #listener: MessageListener
  readonly #onError: (error: unknown) => void

  constructor (listener: MessageListener, onError: (error: unknown) => void) {
    this.#listener = listener
    this.#onError = onError
  }

  tell ({ channel, epoch, entry: { from, data, metadata, offset, at } }: Delivery): void {
    const fromMetadata = metadata === undefined ? {} : { fromMetadata: JSON.parse(metadata) as Metadata }
    this.#call({ channel: shownName(channel, 'agents'), from, data: JSON.parse(data), ...fromMetadata, epoch, offset, timestamp: at / 1000 }).catch(this.#onError)
  }

  /** The offsets say so. */
  lost (_channel: string, _position: LogPosition): void {}

  async #call (message: ChannelMessage) {
    await this.#listener(message)
  }
}
