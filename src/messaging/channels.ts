import { PatternTrie } from '../lib/pattern-trie.js'
import { agentsChannel, channelKey, parseChannel, isPattern, parsePattern, formatChannel, type Dialect } from '../protocol/channel-names.js'
import type { EncodedMessage } from '../protocol/encoded-message.js'
import type { Appended, LogEntry, LogPage, LogPosition, MessageBroker } from '../storage/message-broker.js'
import { assertMaySeeTier, notAllowed, type ChannelHooks } from './access.js'
import type { Sender } from './peer.js'
import type { Presence } from './presence/presence.js'
import { Delivery, messageText, Subscription, type Subscriber } from './subscription.js'

interface PublishRequest {
  /** As the sender writes it. */
  channel: string
  /** JSON text. */
  data: string
  msgId?: string | undefined
  /** The id of the sending connection, which does not receive its own message. */
  origin?: string | undefined
}

interface HistoryRequest { channel: string, since?: LogPosition | undefined, limit: number }

/** A page of a channel's log, read for a client. */
interface History {
  readonly channel: string
  /** The position that the client asked for. */
  readonly since: LogPosition | undefined
  readonly page: LogPage
}

interface ChannelsOptions {
  broker: MessageBroker
  hooks: ChannelHooks
  presence: Presence
}

/** A limit for the messages of a `history` frame. It leaves room for the other members: common clients limit frames to 1 MiB. */
const maxHistoryBytes = 900_000
const noSubscribers: ReadonlyMap<object, Subscriber> = new Map()

/** Publishes into channels, reads their history, and delivers new messages to the subscribers of this process. */
export class Channels {
  readonly #broker: MessageBroker
  readonly #hooks: ChannelHooks
  readonly #presence: Presence
  /** By channel and owner. */
  readonly #byName = new Map<string, Map<object, Subscriber>>()
  readonly #byPattern = new PatternTrie<Set<Subscriber>>()
  /** The last call of the hook `authorizePublish` for each sender. */
  readonly #authorizations = new WeakMap<Sender, Promise<unknown>>()

  constructor ({ broker, hooks, presence }: ChannelsOptions) {
    this.#broker = broker
    this.#hooks = hooks
    this.#presence = presence
  }

  /**
   * The messages of one sender are stored in the order of the calls.
   * @throws invalid-channel, channel-reserved, channel-not-authorized, insufficient-permissions, hook-failed, storage-unavailable
   */
  async publish (sender: Sender, { channel: text, data, msgId, origin }: PublishRequest): Promise<Appended> {
    const channel = parseChannel(text, sender.dialect)
    if (!sender.rights.may('publish', channel)) throw notAllowed(sender, 'publish', channel)
    const authorization = this.#hooks.authorizePublish?.(sender, text, data)
    if (authorization) await this.#inOrder(sender, authorization)
    return this.append(channel, { from: sender.peerId, data, msgId, origin })
  }

  /** Publishes without a check of rights. @param channel its name, as `parseChannel` returns it */
  append (channel: string, { from, data, msgId, origin }: { from: string } & Omit<PublishRequest, 'channel'>): Promise<Appended> {
    const metadata = this.#presence.metadataOf(from)
    return this.#broker.append({ log: channelKey(channel), from, data, metadata, msgId, origin })
  }

  /** Reads the stored messages of a channel. @throws as `publish` does */
  async history (sender: Sender, { channel: text, since, limit }: HistoryRequest): Promise<History> {
    const channel = parseChannel(text, sender.dialect)
    if (!sender.rights.may('history', channel)) throw notAllowed(sender, 'history', channel)
    return { channel, since, page: await this.#broker.read(channelKey(channel), { since, limit }) }
  }

  /** The name of the presence set of a channel, or of the tier, for a sender who may see it. @throws as `publish` does */
  presenceSetOf (sender: Sender, text: string): string {
    if (sender.dialect === 'agents' && text === agentsChannel) {
      assertMaySeeTier(sender)
      return agentsChannel
    }
    const channel = parseChannel(text, sender.dialect)
    if (!sender.rights.may('presence', channel)) throw notAllowed(sender, 'presence', channel)
    return channelKey(channel)
  }

  /** The current `presence` snapshot of a channel or of the tier. @throws as `publish` does */
  async presenceFrame (sender: Sender, text: string, requestId?: string): Promise<EncodedMessage> {
    return await this.#presence.snapshotFrame(this.presenceSetOf(sender, text), sender.dialect, requestId)
  }

  /**
   * Adds a subscriber to a channel or to all channels that a pattern matches, without a check of rights.
   * @returns an unsubscribe function
   * @throws invalid-channel, channel-reserved, storage-unavailable
   */
  async listen (text: string, subscriber: Subscriber): Promise<() => void> {
    if (isPattern(text, 'agents')) return await this.#listenToPattern(parsePattern(text), subscriber)
    const channel = parseChannel(text, 'agents')
    const stop = () => { this.delete(channel, subscriber) }
    await rollBack(this.add(channel, subscriber), stop)
    return stop
  }

  async #listenToPattern (pattern: string, subscriber: Subscriber): Promise<() => void> {
    const stop = () => { this.deletePattern(pattern, subscriber) }
    await rollBack(this.addPattern(pattern, subscriber), stop)
    return stop
  }

  /** @throws storage-unavailable; the caller has to delete the subscriber in that case too */
  add (channel: string, subscriber: Subscriber): Promise<LogPosition> {
    const subscribers = this.#byName.get(channel) ?? new Map<object, Subscriber>()
    this.#byName.set(channel, subscribers.set(subscriber.owner, subscriber))
    return this.#broker.follow(channelKey(channel))
  }

  delete (channel: string, { owner }: Subscriber): void {
    const subscribers = this.#byName.get(channel)
    if (!subscribers?.delete(owner) || subscribers.size > 0) return
    this.#byName.delete(channel)
    this.#broker.unfollow(channelKey(channel))
  }

  /** @throws storage-unavailable; the caller has to delete the subscriber in that case too */
  addPattern (pattern: string, subscriber: Subscriber): Promise<void> {
    const subscribers = this.#byPattern.get(pattern)
    if (subscribers) subscribers.add(subscriber)
    else this.#byPattern.set(pattern, new Set([subscriber]))
    return this.#broker.followPattern(pattern)
  }

  deletePattern (pattern: string, subscriber: Subscriber): void {
    const subscribers = this.#byPattern.get(pattern)
    if (!subscribers?.delete(subscriber) || subscribers.size > 0) return
    this.#byPattern.delete(pattern)
    this.#broker.unfollowPattern(pattern)
  }

  /** Delivers a new entry of a channel's log: once to every owner, however many of its subscriptions match. */
  appended (channel: string, epoch: string, entry: LogEntry): void {
    const delivery = new Delivery(channel, epoch, entry)
    const named = this.#byName.get(channel) ?? noSubscribers
    for (const subscriber of named.values()) subscriber.deliver(delivery)
    if (this.#byPattern.size === 0) return
    for (const subscriber of this.#matching(channel)) {
      const other = named.get(subscriber.owner)
      if (isSoleSource(other)) continue
      subscriber.deliver(delivery)
      if (other instanceof Subscription) other.deliveredByPattern(delivery)
    }
  }

  /** Reports that entries of a channel's log are lost. */
  logGap (channel: string, position: LogPosition): void {
    const named = this.#byName.get(channel) ?? noSubscribers
    for (const subscriber of named.values()) subscriber.reportGap(channel, position)
    for (const subscriber of this.#matching(channel)) {
      if (!isSoleSource(named.get(subscriber.owner))) subscriber.reportGap(channel, position)
    }
  }

  /** The subscribers whose patterns match a channel, one for each owner. */
  * #matching (channel: string): Generator<Subscriber> {
    const sets = this.#byPattern.match(channel)
    if (sets.length === 0) return
    const seen = new Set<object>()
    for (const subscribers of sets) {
      for (const subscriber of subscribers) {
        if (sets.length > 1 && seen.has(subscriber.owner)) continue
        if (sets.length > 1) seen.add(subscriber.owner)
        yield subscriber
      }
    }
  }

  /** The hook may answer sooner for a later message: waits for the answers to the earlier ones. */
  async #inOrder (sender: Sender, authorization: Promise<void>) {
    const all = Promise.allSettled([this.#authorizations.get(sender), authorization])
    this.#authorizations.set(sender, all)
    await all
    await authorization
  }
}

function isSoleSource (subscriber: Subscriber | undefined): boolean {
  return subscriber instanceof Subscription ? subscriber.isSoleSource : subscriber !== undefined
}

async function rollBack (adding: Promise<unknown>, undo: () => void): Promise<void> {
  try {
    await adding
  } catch (error) {
    undo()
    throw error
  }
}

export function historyFrame (history: History, dialect: Dialect, requestId: string | undefined): string {
  const { channel, page: { epoch, offset, recovered } } = history
  const { messages, truncated } = fittingMessages(history)
  const head = JSON.stringify({
    type: 'history',
    ...(requestId !== undefined && { requestId }),
    channel: formatChannel(channel, dialect),
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
