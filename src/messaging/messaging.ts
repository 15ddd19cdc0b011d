import type { ResolvedOptions } from '../options.js'
import type { Registry } from '../registry/registry.js'
import type { Broker, BrokerListener, Entry, Position, PresenceChange, Roster } from './broker.js'
import { tierPlace } from './channel-names.js'
import type { Peer } from './peer.js'
import { Peers } from './peers.js'
import { Presence } from './presence.js'
import { profileOf } from './profile.js'
import { Signals } from './signals.js'

export interface MessagingOptions {
  broker: Broker
  registry: Registry
  options: ResolvedOptions
}

/** What peers say to each other, in this process and, through the broker, in others. */
export class Messaging implements BrokerListener {
  readonly broker: Broker
  readonly peers = new Peers()
  readonly signals: Signals
  readonly presence: Presence
  readonly #stop: () => void

  constructor ({ broker, registry }: MessagingOptions) {
    this.broker = broker
    this.signals = new Signals(broker)
    this.presence = new Presence({ broker, signals: this.signals, profile: (bearer, said) => profileOf(bearer, registry.replica.get(bearer.agentId ?? '')?.record, said) })
    this.#stop = registry.onDifference(({ id }) => { this.presence.refresh(id) })
  }

  /** @throws storage-unavailable */
  async open (): Promise<void> {
    await this.broker.open(this)
    await this.presence.open()
  }

  /** The broker is closed with the storage. */
  close (): void {
    this.#stop()
    this.presence.close()
  }

  /** A connection takes part from now on. */
  join (peer: Peer): void {
    this.peers.add(peer)
    // Where the broker cannot be reached it is told later.
    this.presence.enter(tierPlace, peer).catch(() => {})
  }

  /** It does so with another token: what that does not allow ends. */
  changed (peer: Peer): void {
    this.presence.refresh(peer.peerId, peer)
  }

  /** It is gone, and what it held goes with it. */
  leave (peer: Peer): void {
    this.peers.delete(peer)
    this.presence.leave(tierPlace, peer)
  }

  appended (_log: string, _epoch: string, _entry: Entry): void {}

  lost (_log: string, _position: Position): void {}

  present (place: string, change: PresenceChange): void {
    this.presence.present(place, change)
  }

  reloaded (place: string, roster: Roster): void {
    this.presence.reloaded(place, roster)
  }

  signalled (from: string, body: string): void {
    this.signals.received(from, body)
  }
}
