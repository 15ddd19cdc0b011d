import type { ChannelAccess } from './access.js'
import type { MessageBroker, LogPage, LogPosition } from '../storage/message-broker.js'
import { channelNamed, isPattern, patternNamed, shownName, shownPattern, tierPlace } from '../protocol/channel-names.js'
import type { Deadlines } from '../lib/deadlines.js'
import { Holdings, type Holding } from './connection-subscriptions.js'
import { nameOfChannel } from '../storage/message-broker.js'
import type { Peer } from './peer.js'
import type { Presence } from './presence/presence.js'
import { PatternSubscription, Subscription } from './subscription.js'
import type { Subscriptions } from './subscriptions.js'

export interface SubscribingOptions {
  broker: MessageBroker
  presence: Presence
  access: ChannelAccess
  deadlines: Deadlines
  subscriptions: Subscriptions
  /** Of a connection. */
  maxSubscriptions: number
}

export interface SubscribeRequest {
  /** As its dialect writes it; in that of agents also a pattern, or `$agents`. */
  channel: string
  since?: LogPosition | undefined
  presence?: boolean | undefined
  includeSenderMetadata?: boolean | undefined
}

/** Where a subscription stands. Without a position it is one to several channels, or to presence alone. */
export interface Subscribed extends Partial<LogPosition> {
  /** Nothing after `since` is lost. */
  readonly recovered: boolean
}

/** Tells of a subscription, before anything of it is sent. */
export type OnSubscribed = (subscribed: Subscribed) => void

/** Missed messages that are read at once. */
const pageSize = 100
const retryMs = 1000

const isTier = ({ dialect }: Peer, text: string) => dialect === 'agents' && text === tierPlace

/** Subscribes connections, and ends what they are subscribed to. */
export class Subscribing {
  readonly #options: SubscribingOptions
  readonly #holdings: Holdings

  constructor (options: SubscribingOptions) {
    this.#options = options
    this.#holdings = new Holdings(options.maxSubscriptions)
  }

  /** As `Channels` says. */
  subscribe (peer: Peer, request: SubscribeRequest, told: OnSubscribed): Promise<void> {
    const { channel } = request
    if (isTier(peer, channel)) return this.#toTier(peer, request, told)
    if (isPattern(channel, peer.dialect)) return this.#toPattern(peer, patternNamed(channel), request, told)
    return this.#byName(peer, channelNamed(channel, peer.dialect), request, told)
  }

  /** As `Channels` says. */
  unsubscribe (peer: Peer, text: string): void {
    const holding = this.#holdings.of(peer)
    if (isTier(peer, text)) this.#endTier(peer, holding)
    else if (isPattern(text, peer.dialect)) this.#endPattern(patternNamed(text), holding)
    else this.#end(channelNamed(text, peer.dialect), holding)
  }

  /** A connection has other rights: what they do not allow ends. @returns what has ended, as the connection writes it */
  changed (peer: Peer): string[] {
    const holding = this.#holdings.of(peer)
    if (!holding) return []
    const { rights } = peer
    const channels = [...holding.channels.keys()].filter(channel => !rights.may('subscribe', channel))
    const patterns = [...holding.patterns.keys()].filter(pattern => !rights.mayAll('subscribe', pattern))
    for (const channel of channels) this.#end(channel, holding)
    for (const pattern of patterns) this.#endPattern(pattern, holding)
    for (const channel of holding.channels.keys()) if (!rights.may('presence', channel)) this.#options.presence.unwatch(nameOfChannel(channel), peer)
    const endsTier = holding.seesTier && !rights.mayAnywhere('presence')
    if (endsTier) this.#endTier(peer, holding)
    return [...channels.map(channel => shownName(channel, peer.dialect)), ...patterns.map(shownPattern), ...(endsTier ? [tierPlace] : [])]
  }

  /** A connection is gone. */
  leave (peer: Peer): void {
    const holding = this.#holdings.of(peer)
    if (!holding) return
    for (const channel of holding.channels.keys()) this.#end(channel, holding)
    for (const pattern of holding.patterns.keys()) this.#endPattern(pattern, holding)
    this.#endTier(peer, holding)
    this.#holdings.delete(peer)
  }

  async #byName (peer: Peer, channel: string, request: SubscribeRequest, told: OnSubscribed) {
    const { access } = this.#options
    access.assertMay(peer, 'subscribe', channel)
    if (request.presence) access.assertMay(peer, 'presence', channel)
    await access.authorizeSubscribe(peer, request.channel)
    if (!peer.isOpen) return
    const known = this.#holdings.of(peer)?.channels.get(channel)
    if (known) await this.#again(known, request, told)
    else await this.#anew(peer, channel, request, told)
  }

  async #anew (peer: Peer, channel: string, { since, presence, includeSenderMetadata: withMetadata = false }: SubscribeRequest, told: OnSubscribed) {
    const holding = this.#holdings.roomOf(peer)
    const read = (position: LogPosition) => this.#options.broker.read(nameOfChannel(channel), { since: position, limit: pageSize })
    const onStalled = (stalled: Subscription) => { this.#options.deadlines.after(retryMs, () => { stalled.goOn() }) }
    const subscription = new Subscription({ peer, channel, since, withMetadata, read, onStalled })
    if (holding.hears(channel)) subscription.share()
    holding.channels.set(channel, subscription)
    try {
      const [position] = await this.#enter(subscription, presence)
      const page: LogPage | undefined = since && await read(since)
      // It may have gone, or been ended by a new token, in the meantime.
      if (holding.channels.get(channel) !== subscription) return
      subscription.open(position, page, (at, recovered) => { told({ ...at, recovered }) })
    } catch (error) {
      if (holding.channels.get(channel) === subscription) this.#end(channel, holding)
      throw error
    }
    if (presence) this.#options.presence.show(nameOfChannel(channel), peer)
  }

  /** In one round trip where the broker can. */
  #enter (subscription: Subscription, presence: boolean | undefined) {
    const { channel, owner: peer } = subscription
    const place = nameOfChannel(channel)
    return Promise.all([
      this.#options.subscriptions.add(channel, subscription),
      this.#options.presence.enter(place, peer),
      presence ? this.#options.presence.watch(place, peer) : undefined
    ])
  }

  /** The last options win, and nothing is told twice. */
  async #again (subscription: Subscription, { since, presence, includeSenderMetadata: withMetadata = false }: SubscribeRequest, told: OnSubscribed) {
    const { channel, owner: peer } = subscription
    const place = nameOfChannel(channel)
    if (presence) await this.#options.presence.watch(place, peer)
    else this.#options.presence.unwatch(place, peer)
    if (this.#holdings.of(peer)?.channels.get(channel) !== subscription) return
    subscription.withMetadata = withMetadata
    told({ ...subscription.position, recovered: since === undefined || subscription.covers(since) })
    if (presence) this.#options.presence.show(place, peer)
  }

  async #toPattern (peer: Peer, pattern: string, { channel, since, includeSenderMetadata: withMetadata = false }: SubscribeRequest, told: OnSubscribed) {
    const { access, subscriptions } = this.#options
    access.assertMaySubscribeAll(peer, pattern)
    await access.authorizeSubscribe(peer, channel)
    if (!peer.isOpen) return
    const known = this.#holdings.of(peer)?.patterns.get(pattern)
    const subscription = known ?? new PatternSubscription(peer)
    if (!known) {
      const holding = this.#holdings.roomOf(peer)
      holding.patterns.set(pattern, subscription)
      await subscriptions.addPattern(pattern, subscription).catch(error => {
        this.#endPattern(pattern, holding)
        throw error
      })
    }
    if (this.#holdings.of(peer)?.patterns.get(pattern) !== subscription) return
    subscription.withMetadata = withMetadata
    subscription.isOpen = true
    told({ recovered: since === undefined })
  }

  /** Presence alone: nothing is published there. */
  async #toTier (peer: Peer, { since }: SubscribeRequest, told: OnSubscribed) {
    const { access, presence } = this.#options
    access.assertMaySeeTier(peer)
    await access.authorizeSubscribe(peer, tierPlace)
    if (!peer.isOpen) return
    const known = this.#holdings.of(peer)
    if (!known?.seesTier) this.#holdings.roomOf(peer).seesTier = true
    await presence.watch(tierPlace, peer)
    told({ recovered: since === undefined })
    presence.show(tierPlace, peer)
  }

  #end (channel: string, holding: Holding | undefined) {
    const subscription = holding?.channels.get(channel)
    if (!subscription) return
    const { presence, subscriptions } = this.#options
    const place = nameOfChannel(channel)
    holding!.channels.delete(channel)
    subscription.end()
    subscriptions.delete(channel, subscription)
    presence.unwatch(place, subscription.owner)
    presence.leave(place, subscription.owner)
  }

  #endPattern (pattern: string, holding: Holding | undefined) {
    const subscription = holding?.patterns.get(pattern)
    if (!subscription) return
    holding!.patterns.delete(pattern)
    this.#options.subscriptions.deletePattern(pattern, subscription)
  }

  #endTier (peer: Peer, holding: Holding | undefined) {
    if (!holding?.seesTier) return
    holding.seesTier = false
    this.#options.presence.unwatch(tierPlace, peer)
  }
}
