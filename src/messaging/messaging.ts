import { isUserName } from '../auth/rights.js'
import { monotonicClock } from '../lib/clock.js'
import { Deadlines } from '../lib/deadlines.js'
import type { ResolvedOptions } from '../options.js'
import { agentsChannel, channelOfKey } from '../protocol/channel-names.js'
import type { Registry } from '../registry/registry.js'
import type { BrokerListener, LogEntry, LogPosition, MessageBroker, PresenceChange, Roster } from '../storage/message-broker.js'
import { ChannelHooks } from './access.js'
import { Channels } from './channels.js'
import { ConnectionSubscriptions } from './connection-subscriptions.js'
import { Direct } from './direct/direct.js'
import { createHostMessaging, type HostChannels, type HostDirect } from './host-api.js'
import { Peers, type Peer } from './peer.js'
import { Presence } from './presence/presence.js'
import { ProcessMessages } from './process-messages.js'
import { RequestChannel } from './requests/request-channel.js'
import { Requests } from './requests/requests.js'
import { Responder } from './requests/responder.js'

interface MessagingOptions {
  broker: MessageBroker
  registry: Registry
  options: ResolvedOptions
  onError: (error: unknown) => void
}

/** The messaging services of a registry. Distributes the events of the broker and of the registry to them. */
export class Messaging implements BrokerListener {
  readonly broker: MessageBroker
  readonly processMessages: ProcessMessages
  readonly peers = new Peers()
  readonly presence: Presence
  readonly channels: Channels
  readonly subscriptions: ConnectionSubscriptions
  readonly direct: Direct
  readonly requests: Requests
  readonly responder: Responder
  /** The part of `app.agentRegistry` that concerns messaging. */
  readonly host: HostChannels & HostDirect
  readonly #deadlines = new Deadlines(monotonicClock())
  readonly #unsubscribe: () => void

  constructor ({ broker, registry, options, onError }: MessagingOptions) {
    const { agentsWs: { maxMessageSize: maxDataBytes }, messaging: limits, limits: { hookTimeoutMs } } = options
    const { replica } = registry
    const { peers } = this
    const deadlines = this.#deadlines
    const processMessages = new ProcessMessages(broker)
    const hooks = new ChannelHooks({ ...options, hookTimeoutMs, onError })
    const presence = new Presence({ broker, processMessages, deadlines, replica })
    const channels = new Channels({ broker, hooks, presence })
    const channel = new RequestChannel(broker, processMessages)
    const common = { broker, processMessages, channel, peers, deadlines, replica, maxDataBytes, onError }
    this.broker = broker
    this.processMessages = processMessages
    this.presence = presence
    this.channels = channels
    const { maxSubscriptions } = limits
    this.subscriptions = new ConnectionSubscriptions({ broker, hooks, channels, presence, deadlines, maxSubscriptions })
    this.direct = new Direct({
      ...common,
      metadataOf: id => presence.metadataOf(id),
      registeredAt: id => isUserName(id) ? undefined : replica.get(id)?.record.registeredAt
    })
    this.requests = new Requests({
      ...common,
      processesOf: id => presence.processesOf(id),
      maxPerConnection: limits.maxRequests,
      maxRequests: limits.maxRequestsPerProcess
    })
    this.responder = new Responder(common)
    this.host = createHostMessaging({ channels, presence, direct: this.direct, requests: this.requests, maxDataBytes, onError })
    this.#unsubscribe = registry.on('difference', difference => {
      presence.refresh(difference.id)
      this.requests.candidates.agentChanged(difference)
    })
  }

  /** @throws storage-unavailable */
  async open (): Promise<void> {
    await this.broker.open(this)
    await this.presence.open()
    await this.direct.open()
  }

  /** Does not close the broker, which belongs to the storage. */
  close (): void {
    this.#unsubscribe()
    this.requests.close()
    this.responder.close()
    this.direct.close()
    this.#deadlines.close()
    this.presence.close()
  }

  /** A connection takes part in messaging from now on. */
  addPeer (peer: Peer): void {
    this.direct.addPeer(peer, this.peers.add(peer))
    // Presence enters it later when the broker is not reachable.
    this.presence.enter(agentsChannel, peer).catch(() => {})
  }

  /** A connection has another token. */
  tokenChanged (peer: Peer): void {
    this.presence.refresh(peer.peerId, peer.authenticatedPrincipal)
    this.subscriptions.tokenChanged(peer)
  }

  /** A connection has closed. */
  removePeer (peer: Peer): void {
    this.subscriptions.removePeer(peer)
    this.direct.removePeer(peer, this.peers.delete(peer))
    this.requests.removePeer(peer)
    this.presence.leave(agentsChannel, peer)
  }

  appended (log: string, epoch: string, entry: LogEntry): void {
    const channel = channelOfKey(log)
    if (channel === undefined) this.direct.appended(log, epoch, entry)
    else this.channels.appended(channel, epoch, entry)
  }

  logGap (log: string, position: LogPosition): void {
    const channel = channelOfKey(log)
    if (channel === undefined) this.direct.logGap(log, position)
    else this.channels.logGap(channel, position)
  }

  presenceChanged (setName: string, change: PresenceChange): void {
    this.presence.changed(setName, change)
    if (setName === agentsChannel && change.op === 'leave') this.requests.peersLeft([change.peerId])
  }

  presenceReloaded (setName: string, roster: Roster): void {
    this.presence.reloaded(setName, roster)
    if (setName === agentsChannel) this.requests.peersLeft()
  }

  processMessage (from: string, body: string): void {
    this.processMessages.received(from, body)
  }
}
