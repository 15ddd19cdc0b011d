import { problem } from '../errors.js'
import type { Deadlines } from '../lib/deadlines.js'
import { matchesPattern } from '../lib/pattern-trie.js'
import {
  agentsChannel,
  channelKey,
  parseChannel,
  isPattern,
  parsePattern,
  formatChannel,
  formatPattern
} from '../protocol/channel-names.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import type { LogPage, LogPosition, MessageBroker } from '../storage/message-broker.js'
import { assertMaySeeTier, assertMaySubscribeAll, notAllowed, type ChannelHooks } from './access.js'
import type { Channels } from './channels.js'
import type { Peer } from './peer.js'
import type { Presence } from './presence/presence.js'
import { PatternSubscription, Subscription } from './subscription.js'

interface ConnectionSubscriptionsOptions {
  broker: MessageBroker
  hooks: ChannelHooks
  channels: Channels
  presence: Presence
  deadlines: Deadlines
  /** The most subscriptions of one connection. */
  maxSubscriptions: number
}

interface SubscribeRequest {
  /** A channel as the client writes it; in the dialect of agents also a pattern, or `$agents`. */
  channel: string
  since?: LogPosition | undefined
  presence?: boolean | undefined
  includeSenderMetadata?: boolean | undefined
}

/** The start of a subscription. A pattern and `$agents` have no position. */
interface Subscribed extends Partial<LogPosition> {
  /** No message after `since` is lost. */
  readonly recovered: boolean
}

/** Is called when a subscription has started, before the connection is sent anything of it. */
type OnSubscribed = (subscribed: Subscribed) => void

/** The number of missed messages that are read at once. */
const pageSize = 100
const retryMs = 1000

/** The subscriptions of one connection. */
class SubscriptionSet {
  readonly channels = new Map<string, Subscription>()
  readonly patterns = new Map<string, PatternSubscription>()
  /** The connection is subscribed to `$agents`. */
  seesTier = false

  get size () { return this.channels.size + this.patterns.size + Number(this.seesTier) }

  /** Whether an open pattern subscription delivers a channel. */
  delivers (channel: string): boolean {
    for (const [pattern, { isOpen }] of this.patterns) if (isOpen && matchesPattern(pattern, channel)) return true
    return false
  }
}

/** Subscribes connections to channels, patterns and the presence of the tier. */
export class ConnectionSubscriptions {
  readonly #options: ConnectionSubscriptionsOptions
  readonly #byPeer = new Map<Peer, SubscriptionSet>()

  constructor (options: ConnectionSubscriptionsOptions) {
    this.#options = options
  }

  /**
   * Subscribes a connection, or changes the options of its subscription.
   * @param onSubscribed is not called when the connection has closed meanwhile
   * @throws invalid-channel, channel-reserved, channel-not-authorized, insufficient-permissions, channel-limit-exceeded,
   * hook-failed, storage-unavailable; the connection is not subscribed then
   */
  subscribe (peer: Peer, request: SubscribeRequest, onSubscribed: OnSubscribed): Promise<void> {
    const { channel } = request
    if (isTier(peer, channel)) return this.#subscribeToTier(peer, request, onSubscribed)
    if (isPattern(channel, peer.dialect)) return this.#subscribeToPattern(peer, request, onSubscribed)
    return this.#subscribeToChannel(peer, request, onSubscribed)
  }

  /** Has no effect when the connection is not subscribed. @throws invalid-channel, channel-reserved */
  unsubscribe (peer: Peer, text: string): void {
    const set = this.#byPeer.get(peer)
    if (isTier(peer, text)) this.#endTier(peer, set)
    else if (isPattern(text, peer.dialect)) this.#endPattern(parsePattern(text), set)
    else this.#endChannel(parseChannel(text, peer.dialect), set)
  }

  /** Ends the subscriptions that the new token of a connection does not allow, and notifies the client. */
  tokenChanged (peer: Peer): void {
    const set = this.#byPeer.get(peer)
    if (!set) return
    const { rights, dialect } = peer
    const channels = [...set.channels.keys()].filter(channel => !rights.may('subscribe', channel))
    const patterns = [...set.patterns.keys()].filter(pattern => !rights.mayAll('subscribe', pattern))
    const endsTier = set.seesTier && !rights.mayAnywhere('presence')
    for (const channel of channels) this.#endChannel(channel, set)
    for (const pattern of patterns) this.#endPattern(pattern, set)
    for (const channel of set.channels.keys()) {
      if (!rights.may('presence', channel)) this.#options.presence.unwatch(channelKey(channel), peer)
    }
    if (endsTier) this.#endTier(peer, set)
    const ended = [...channels.map(channel => formatChannel(channel, dialect)), ...patterns.map(formatPattern)]
    if (endsTier) ended.push(agentsChannel)
    for (const channel of ended) peer.push(subscriptionEndedFrame(channel))
  }

  /** Ends all subscriptions of a closed connection. */
  removePeer (peer: Peer): void {
    const set = this.#byPeer.get(peer)
    if (!set) return
    for (const channel of set.channels.keys()) this.#endChannel(channel, set)
    for (const pattern of set.patterns.keys()) this.#endPattern(pattern, set)
    this.#endTier(peer, set)
    this.#byPeer.delete(peer)
  }

  async #subscribeToChannel (peer: Peer, request: SubscribeRequest, onSubscribed: OnSubscribed) {
    const channel = parseChannel(request.channel, peer.dialect)
    if (!peer.rights.may('subscribe', channel)) throw notAllowed(peer, 'subscribe', channel)
    if (request.presence && !peer.rights.may('presence', channel)) throw notAllowed(peer, 'presence', channel)
    await this.#options.hooks.authorizeSubscribe?.(peer, request.channel)
    if (!peer.isOpen) return
    const current = this.#byPeer.get(peer)?.channels.get(channel)
    if (current) await this.#change(current, request, onSubscribed)
    else await this.#start(peer, channel, request, onSubscribed)
  }

  async #start (peer: Peer, channel: string, request: SubscribeRequest, onSubscribed: OnSubscribed) {
    const { since, presence, includeSenderMetadata: withMetadata = false } = request
    const set = this.#withRoom(peer)
    const read = (position: LogPosition) => this.#options.broker.read(channelKey(channel), { since: position, limit: pageSize })
    const onStalled = (stalled: Subscription) => { this.#options.deadlines.after(retryMs, () => { stalled.resume() }) }
    const subscription = new Subscription({ peer, channel, since, withMetadata, read, onStalled })
    if (set.delivers(channel)) subscription.deliveredByPattern()
    set.channels.set(channel, subscription)
    try {
      const [position] = await this.#enter(subscription, presence)
      const page: LogPage | undefined = since && await read(since)
      // The connection may have closed, or a new token may have ended the subscription, in the meantime.
      if (set.channels.get(channel) !== subscription) return
      subscription.open(position, page, (at, recovered) => { onSubscribed({ ...at, recovered }) })
    } catch (error) {
      if (set.channels.get(channel) === subscription) this.#endChannel(channel, set)
      throw error
    }
    if (presence) this.#options.presence.sendSnapshot(channelKey(channel), peer)
  }

  /** Starts all calls at once: Redis needs one round trip for them. */
  #enter (subscription: Subscription, presence: boolean | undefined) {
    const { channel, owner: peer } = subscription
    const setName = channelKey(channel)
    return Promise.all([
      this.#options.channels.add(channel, subscription),
      this.#options.presence.enter(setName, peer),
      presence ? this.#options.presence.watch(setName, peer) : undefined
    ])
  }

  /** A repeated subscribe: the last options win, and no message is delivered twice. */
  async #change (subscription: Subscription, request: SubscribeRequest, onSubscribed: OnSubscribed) {
    const { since, presence: wantsPresence, includeSenderMetadata: withMetadata = false } = request
    const { presence } = this.#options
    const { channel, owner: peer } = subscription
    const setName = channelKey(channel)
    if (wantsPresence) await presence.watch(setName, peer)
    else presence.unwatch(setName, peer)
    if (this.#byPeer.get(peer)?.channels.get(channel) !== subscription) return
    subscription.withMetadata = withMetadata
    onSubscribed({ ...subscription.position, recovered: since === undefined || subscription.covers(since) })
    if (wantsPresence) presence.sendSnapshot(setName, peer)
  }

  async #subscribeToPattern (peer: Peer, request: SubscribeRequest, onSubscribed: OnSubscribed) {
    const { channel, since, includeSenderMetadata: withMetadata = false } = request
    const { hooks, channels } = this.#options
    const pattern = parsePattern(channel)
    assertMaySubscribeAll(peer, pattern)
    await hooks.authorizeSubscribe?.(peer, channel)
    if (!peer.isOpen) return
    const current = this.#byPeer.get(peer)?.patterns.get(pattern)
    const subscription = current ?? new PatternSubscription(peer)
    if (!current) {
      const set = this.#withRoom(peer)
      set.patterns.set(pattern, subscription)
      await channels.addPattern(pattern, subscription).catch(error => {
        this.#endPattern(pattern, set)
        throw error
      })
    }
    if (this.#byPeer.get(peer)?.patterns.get(pattern) !== subscription) return
    subscription.withMetadata = withMetadata
    subscription.isOpen = true
    onSubscribed({ recovered: since === undefined })
  }

  /** `$agents` has presence and no messages. */
  async #subscribeToTier (peer: Peer, { since }: SubscribeRequest, onSubscribed: OnSubscribed) {
    const { hooks, presence } = this.#options
    assertMaySeeTier(peer)
    await hooks.authorizeSubscribe?.(peer, agentsChannel)
    if (!peer.isOpen) return
    if (!this.#byPeer.get(peer)?.seesTier) this.#withRoom(peer).seesTier = true
    await presence.watch(agentsChannel, peer)
    onSubscribed({ recovered: since === undefined })
    presence.sendSnapshot(agentsChannel, peer)
  }

  /** The subscriptions of a connection that may have one more. @throws channel-limit-exceeded */
  #withRoom (peer: Peer): SubscriptionSet {
    const { maxSubscriptions } = this.#options
    const set = this.#byPeer.get(peer) ?? new SubscriptionSet()
    if (set.size >= maxSubscriptions) throw problem('channel-limit-exceeded', `A connection has at most ${maxSubscriptions} subscriptions`)
    this.#byPeer.set(peer, set)
    return set
  }

  #endChannel (channel: string, set: SubscriptionSet | undefined) {
    const subscription = set?.channels.get(channel)
    if (!subscription) return
    const { presence, channels } = this.#options
    const setName = channelKey(channel)
    set?.channels.delete(channel)
    subscription.end()
    channels.delete(channel, subscription)
    presence.unwatch(setName, subscription.owner)
    presence.leave(setName, subscription.owner)
  }

  #endPattern (pattern: string, set: SubscriptionSet | undefined) {
    const subscription = set?.patterns.get(pattern)
    if (!subscription) return
    set?.patterns.delete(pattern)
    this.#options.channels.deletePattern(pattern, subscription)
  }

  #endTier (peer: Peer, set: SubscriptionSet | undefined) {
    if (!set?.seesTier) return
    set.seesTier = false
    this.#options.presence.unwatch(agentsChannel, peer)
  }
}

function isTier ({ dialect }: Peer, text: string): boolean {
  return dialect === 'agents' && text === agentsChannel
}

/** A subscription ended because the new token of its connection does not allow it. @param channel as the client writes it */
function subscriptionEndedFrame (channel: string): EncodedMessage {
  const message = `The new token does not allow the subscription to ${channel}`
  return new EncodedMessage(JSON.stringify({ type: 'error', code: 'channel_not_authorized', message, channel }))
}
