import type { EncodedMessage } from '../protocol/encoded-message.js'
import type { ChannelAccess } from './access.js'
import type { Appended, LogEntry, LogPosition } from '../storage/message-broker.js'
import { channelNamed, isPattern, patternNamed, tierPlace } from '../protocol/channel-names.js'
import type { History } from './history.js'
import { HostListener, type MessageListener } from './host-listener.js'
import { nameOfChannel } from '../storage/message-broker.js'
import type { Peer, Sender } from './peer.js'
import { Subscribing, type OnSubscribed, type SubscribeRequest, type SubscribingOptions } from './subscribing.js'
import { Subscriptions } from './subscriptions.js'

export interface PublishRequest {
  /** As the dialect of the sender writes it. */
  channel: string
  /** JSON text. */
  data: string
  msgId?: string | undefined
  /** The connection that it came by and that is not sent it. */
  origin?: string | undefined
}

export interface HistoryRequest { channel: string, since?: LogPosition | undefined, limit: number }

export type ChannelsOptions = Omit<SubscribingOptions, 'subscriptions'> & { onError: (error: unknown) => void }

/** Channels: who is subscribed to them, what is published in them, and what was. */
export class Channels {
  readonly #options: ChannelsOptions
  readonly #access: ChannelAccess
  readonly #subscriptions: Subscriptions
  readonly #subscribing: Subscribing
  /** Where the host is asked, the last that each sender wanted to publish. */
  readonly #turns = new WeakMap<Sender, Promise<unknown>>()

  constructor (options: ChannelsOptions) {
    this.#options = options
    this.#access = options.access
    this.#subscriptions = new Subscriptions(options.broker)
    this.#subscribing = new Subscribing({ ...options, subscriptions: this.#subscriptions })
  }

  /**
   * Subscribes a connection to a channel, to all that a pattern matches, or to the presence of the tier. Where it is
   * subscribed already the last options win.
   * @param told is called before anything of it is sent; not at all when the connection has gone meanwhile
   * @throws invalid-channel, channel-reserved, channel-not-authorized, insufficient-permissions, channel-limit-exceeded,
   * hook-failed, storage-unavailable; then it is as if nobody had asked
   */
  async subscribe (peer: Peer, request: SubscribeRequest, told: OnSubscribed): Promise<void> {
    await this.#subscribing.subscribe(peer, request, told)
  }

  /** Harmless where the connection is not subscribed. @throws invalid-channel, channel-reserved */
  unsubscribe (peer: Peer, channel: string): void {
    this.#subscribing.unsubscribe(peer, channel)
  }

  /**
   * Those of one sender are stored in the order of the calls.
   * @throws invalid-channel, channel-reserved, channel-not-authorized, insufficient-permissions, hook-failed, storage-unavailable
   */
  async publish (sender: Sender, { channel: text, data, msgId, origin }: PublishRequest): Promise<Appended> {
    const channel = channelNamed(text, sender.dialect)
    this.#access.assertMay(sender, 'publish', channel)
    const asked = this.#access.authorizePublish(sender, text, data)
    if (asked) await this.#inTurn(sender, asked)
    return this.append(channel, { from: sender.peerId, data, msgId, origin })
  }

  /** Publishes without asking anybody. @param channel as no dialect writes it */
  append (channel: string, { from, data, msgId, origin }: { from: string } & Omit<PublishRequest, 'channel'>): Promise<Appended> {
    const { broker, presence } = this.#options
    return broker.append({ log: nameOfChannel(channel), from, data, metadata: presence.metadataOf(from), msgId, origin })
  }

  /** What was published, as far as it is kept. @throws as `publish` does */
  async history (sender: Sender, { channel: text, since, limit }: HistoryRequest): Promise<History> {
    const channel = channelNamed(text, sender.dialect)
    this.#access.assertMay(sender, 'history', channel)
    return { channel, since, page: await this.#options.broker.read(nameOfChannel(channel), { since, limit }) }
  }

  /** The place where those are who are subscribed to a channel, for somebody who may see them. @throws as `publish` does */
  placeFor (sender: Sender, text: string): string {
    if (sender.dialect === 'agents' && text === tierPlace) {
      this.#access.assertMaySeeTier(sender)
      return tierPlace
    }
    const channel = channelNamed(text, sender.dialect)
    this.#access.assertMay(sender, 'presence', channel)
    return nameOfChannel(channel)
  }

  /** Who is there now, as one frame. @throws as `publish` does */
  async presence (sender: Sender, text: string, requestId?: string): Promise<EncodedMessage> {
    return await this.#options.presence.frame(this.placeFor(sender, text), sender.dialect, requestId)
  }

  /**
   * Tells the host of the messages of a channel, or of all that a pattern matches, from when it resolves.
   * @returns how to stop
   * @throws invalid-channel, channel-reserved, storage-unavailable
   */
  async listen (text: string, listener: MessageListener): Promise<() => void> {
    const subscriber = new HostListener(listener, this.#options.onError)
    const isMany = isPattern(text, 'agents')
    const name = isMany ? patternNamed(text) : channelNamed(text, 'agents')
    const stop = () => {
      if (isMany) this.#subscriptions.deletePattern(name, subscriber)
      else this.#subscriptions.delete(name, subscriber)
    }
    try {
      await (isMany ? this.#subscriptions.addPattern(name, subscriber) : this.#subscriptions.add(name, subscriber))
      return stop
    } catch (error) {
      stop()
      throw error
    }
  }

  /** A connection has other rights. @returns what they do not allow and has ended, as the connection writes it */
  changed (peer: Peer): string[] {
    return this.#subscribing.changed(peer)
  }

  /** A connection is gone. */
  leave (peer: Peer): void {
    this.#subscribing.leave(peer)
  }

  appended (channel: string, epoch: string, entry: LogEntry): void {
    this.#subscriptions.appended(channel, epoch, entry)
  }

  lost (channel: string, position: LogPosition): void {
    this.#subscriptions.lost(channel, position)
  }

  /** The host may answer sooner for what came later. */
  async #inTurn (sender: Sender, asked: Promise<void>) {
    const turn = Promise.allSettled([this.#turns.get(sender), asked])
    this.#turns.set(sender, turn)
    await turn
    await asked
  }
}
