import { monotonicClock } from '../lib/clock.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import type { ResolvedOptions } from '../options.js'
import type { Registry } from '../registry/registry.js'
import type { MessageBroker, BrokerListener, LogEntry, LogPosition, PresenceChange, Roster } from '../storage/message-broker.js'
import { ChannelAccess } from './access.js'
import { tierPlace } from '../protocol/channel-names.js'
import { Channels } from './channels.js'
import { Deadlines } from '../lib/deadlines.js'
import { Direct } from './direct/direct.js'
import { channelOf } from '../storage/message-broker.js'
import type { Peer } from './peer.js'
import { Peers } from './peer.js'
import { Presence } from './presence/presence.js'
import { profileOf } from './presence/profile.js'
import { RequestLine } from './requests/request-channel.js'
import { Requests } from './requests/requests.js'
import { Serving } from './requests/responder.js'
import { Signals } from './signals.js'
import { isUserName } from '../auth/rights.js'

export interface MessagingOptions {
  broker: MessageBroker
  registry: Registry
  options: ResolvedOptions
  onError: (error: unknown) => void
}

/** What peers say to each other, in this process and, through the broker, in others. */
export class Messaging implements BrokerListener {
  readonly broker: MessageBroker
  readonly peers = new Peers()
  readonly signals: Signals
  readonly presence: Presence
  readonly channels: Channels
  readonly direct: Direct
  readonly requests: Requests
  readonly serving: Serving
  readonly #deadlines = new Deadlines(monotonicClock())
  readonly #stop: () => void

  constructor ({ broker, registry, options, onError }: MessagingOptions) {
    this.broker = broker
    this.signals = new Signals(broker)
    this.presence = new Presence({ broker, signals: this.signals, deadlines: this.#deadlines, profile: (bearer, said) => profileOf(bearer, registry.replica.get(bearer.agentId ?? '')?.record, said) })
    const { signals, peers, presence } = this
    const access = new ChannelAccess({ ...options, hookTimeoutMs: options.limits.hookTimeoutMs, onError })
    this.channels = new Channels({ broker, presence, access, deadlines: this.#deadlines, maxSubscriptions: options.messaging.maxSubscriptions, onError })
    const { agentsWs: { maxMessageSize: maxDataBytes }, messaging: { maxRequests: maxPerConnection, maxRequestsPerProcess: maxRequests } } = options
    const line = new RequestLine(broker, signals)
    const common = { broker, signals, line, peers, deadlines: this.#deadlines, replica: registry.replica, maxDataBytes, onError }
    const registeredAt = (id: string) => isUserName(id) ? undefined : registry.replica.get(id)?.record.registeredAt
    this.direct = new Direct({ ...common, registeredAt, metadataOf: id => presence.metadataOf(id) })
    this.requests = new Requests({ ...common, maxPerConnection, maxRequests, processesOf: id => presence.processesOf(id) })
    this.serving = new Serving(common)
    this.#stop = registry.on('difference', difference => {
      this.presence.refresh(difference.id)
      this.requests.candidates.changed(difference)
    })
  }

  /** @throws storage-unavailable */
  async open (): Promise<void> {
    await this.broker.open(this)
    await this.presence.open()
    await this.direct.open()
  }

  /** The broker is closed with the storage. */
  close (): void {
    this.#stop()
    this.requests.close()
    this.serving.close()
    this.direct.close()
    this.#deadlines.close()
    this.presence.close()
  }

  /** A connection takes part from now on. */
  join (peer: Peer): void {
    this.direct.join(peer, this.peers.add(peer))
    // Where the broker cannot be reached it is told later.
    this.presence.enter(tierPlace, peer).catch(() => {})
  }

  /** It does so with another token: what that does not allow ends. */
  changed (peer: Peer): void {
    this.presence.refresh(peer.peerId, peer)
    for (const channel of this.channels.changed(peer)) peer.push(endedFrame(channel))
  }

  /** It is gone, and what it held goes with it. */
  leave (peer: Peer): void {
    this.channels.leave(peer)
    this.direct.leave(peer, this.peers.delete(peer))
    this.requests.leave(peer)
    this.presence.leave(tierPlace, peer)
  }

  appended (log: string, epoch: string, entry: LogEntry): void {
    const channel = channelOf(log)
    if (channel === undefined) this.direct.appended(log, epoch, entry)
    else this.channels.appended(channel, epoch, entry)
  }

  logGap (log: string, position: LogPosition): void {
    const channel = channelOf(log)
    if (channel === undefined) this.direct.lost(log, position)
    else this.channels.lost(channel, position)
  }

  presenceChanged (place: string, change: PresenceChange): void {
    this.presence.present(place, change)
    if (place === tierPlace && change.op === 'leave') this.requests.left([change.peerId])
  }

  presenceReloaded (place: string, roster: Roster): void {
    this.presence.reloaded(place, roster)
    if (place === tierPlace) this.requests.left()
  }

  processMessage (from: string, body: string): void {
    this.signals.received(from, body)
  }
}

/** A subscription that has ended, since the token that a connection has now does not allow it. */
function endedFrame (channel: string): EncodedMessage {
  return new EncodedMessage(JSON.stringify({ type: 'error', code: 'channel_not_authorized', message: `The token does not allow ${channel} any more`, channel }))
}
