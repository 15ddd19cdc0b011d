import { tooMany } from '../../errors.js'
import type { Deadline, Deadlines } from '../../lib/deadlines.js'
import { Multiset } from '../../lib/multiset.js'
import { agentsChannel, type Dialect } from '../../protocol/channel-names.js'
import type { EncodedMessage } from '../../protocol/encoded-message.js'
import type { Principal } from '../../protocol/principal.js'
import type { Replica } from '../../registry/replica.js'
import type { AgentRecord } from '../../storage/agent-store.js'
import type { MessageBroker, PresenceChange, Roster } from '../../storage/message-broker.js'
import type { Peer } from '../peer.js'
import type { ProcessMessages } from '../process-messages.js'
import { deltaFrames, snapshotFrame, type PresenceState } from './frames.js'
import { PresenceSet, type PresenceDelta } from './presence-set.js'

export type Metadata = Readonly<Record<string, unknown>>

interface PresenceOptions {
  broker: MessageBroker
  processMessages: ProcessMessages
  deadlines: Deadlines
  replica: Replica
}

/** A presence set that this process watches. */
interface WatchedSet {
  readonly set: PresenceSet
  readonly ready: Promise<void>
  /** Connections that receive changes, and whether they have received a snapshot. */
  readonly watchers: Map<Peer, boolean>
}

const topic = 'presence-update'
const updateIntervalMs = 1000

/**
 * Presence sets. The set of a channel, named as its log is, has the peers that are subscribed to the channel by its name.
 * The set `$agents` has all peers of the tier. A peer is in a set once, through any number of connections and processes.
 */
export class Presence {
  readonly #broker: MessageBroker
  readonly #processMessages: ProcessMessages
  readonly #local: LocalPeers
  readonly #watched = new Map<string, WatchedSet>()
  readonly #changed = new Set<string>()
  #flush: NodeJS.Immediate | undefined

  constructor (options: PresenceOptions) {
    this.#broker = options.broker
    this.#processMessages = options.processMessages
    this.#local = new LocalPeers(options)
    options.processMessages.on(topic, (_from, body) => { this.#updatedElsewhere(body) })
  }

  /** Loads the peers of the tier. @throws storage-unavailable */
  async open (): Promise<void> {
    await this.#watchedSet(agentsChannel).ready
  }

  close (): void {
    clearImmediate(this.#flush)
    this.#local.close()
    this.#watched.clear()
  }

  /**
   * Adds a connection of a peer to a set.
   * @throws storage-unavailable; the peer enters when the broker is reachable again, unless it leaves before
   */
  enter (setName: string, peer: Peer): Promise<void> {
    return this.#local.enter(setName, peer)
  }

  leave (setName: string, { peerId }: Peer): void {
    this.#local.leave(setName, peerId)
  }

  /** Publishes the metadata of a peer when its agent or its token changed. @param principal that of a new token */
  refresh (peerId: string, principal?: Principal): void {
    this.#local.refresh(peerId, principal)
  }

  /** Sets the client's own metadata in all processes. @throws rate-limit-exceeded; storage-unavailable */
  async update ({ peerId }: Peer, metadata: Metadata): Promise<void> {
    const wait = this.#local.updatedAt(peerId) + updateIntervalMs - this.#broker.now()
    if (wait > 0) throw tooMany('rate-limit-exceeded', 'At most one presence update per second', wait)
    const others = this.processesOf(peerId).filter(process => process !== this.#broker.process)
    for (const process of others) this.#processMessages.send(process, topic, JSON.stringify({ peerId, metadata }))
    await this.#local.update(peerId, metadata)
  }

  /** The metadata that other peers see, as JSON text; undefined for a peer that is not connected to any process. */
  metadataOf (peerId: string): string | undefined {
    return this.#local.metadataOf(peerId) ?? this.#watched.get(agentsChannel)?.set.metadataOf(peerId)
  }

  /** The processes to which a peer is connected. */
  processesOf (peerId: string): string[] {
    return this.#watched.get(agentsChannel)?.set.processesOf(peerId) ?? []
  }

  /** The current members of a set in one frame. @throws storage-unavailable */
  async snapshotFrame (setName: string, dialect: Dialect, requestId?: string): Promise<EncodedMessage> {
    return snapshotFrame(await this.members(setName), dialect, requestId).frame
  }

  /** The current members of a set. @throws storage-unavailable */
  async members (setName: string): Promise<PresenceState> {
    const set = new PresenceSet()
    set.load(await this.#broker.roster(setName))
    return { setName, revision: set.revision, members: set.members() }
  }

  /** Watches a set for a connection. It receives changes after `sendSnapshot`. @throws storage-unavailable */
  async watch (setName: string, peer: Peer): Promise<void> {
    const watched = this.#watchedSet(setName)
    if (!watched.watchers.has(peer)) watched.watchers.set(peer, false)
    await watched.ready
  }

  /** Sends the members of a watched set once everything sent so far has left, and changes from then on. */
  sendSnapshot (setName: string, peer: Peer): void {
    peer.whenSent(`presence ${setName}`, () => {
      const watched = this.#watched.get(setName)
      if (!watched?.watchers.has(peer)) return
      this.#sendDelta(setName, watched)
      watched.watchers.set(peer, true)
      this.#sendMembers(setName, peer, watched.set.peerIds(), true)
    })
  }

  unwatch (setName: string, peer: Peer): void {
    const watched = this.#watched.get(setName)
    if (!watched?.watchers.delete(peer) || watched.watchers.size > 0 || setName === agentsChannel) return
    this.#watched.delete(setName)
    this.#broker.unwatch(setName)
  }

  changed (setName: string, change: PresenceChange): void {
    this.#watched.get(setName)?.set.apply(change)
    this.#scheduleDelta(setName)
  }

  reloaded (setName: string, roster: Roster): void {
    this.#watched.get(setName)?.set.load(roster)
    this.#scheduleDelta(setName)
  }

  #watchedSet (setName: string): WatchedSet {
    const current = this.#watched.get(setName)
    if (current) return current
    const set = new PresenceSet()
    const ready = this.#broker.watch(setName).then(roster => { set.load(roster) })
    const watched = { set, ready, watchers: new Map<Peer, boolean>() }
    this.#watched.set(setName, watched)
    return watched
  }

  /** Members that do not fit into one frame follow in later ones, without those that have left meanwhile. */
  #sendMembers (setName: string, peer: Peer, peerIds: readonly string[], isFirst: boolean) {
    const watched = this.#watched.get(setName)
    if (!watched?.watchers.has(peer)) return
    const { set: { revision }, set } = watched
    const members = set.members(peerIds)
    const { frame, shown } = snapshotFrame({ setName, revision, members }, peer.dialect)
    const frames = isFirst ? [frame] : deltaFrames(setName, { revision, joined: members.slice(0, shown), left: [] }, peer.dialect)
    for (const frame of frames) peer.push(frame)
    const rest = members.slice(shown).map(({ peerId }) => peerId)
    if (rest.length > 0) peer.whenSent(`presence ${setName}`, () => { this.#sendMembers(setName, peer, rest, false) })
  }

  /** Changes of one tick are sent together. */
  #scheduleDelta (setName: string) {
    this.#changed.add(setName)
    this.#flush ??= setImmediate(() => { this.#sendDeltas() })
  }

  #sendDeltas () {
    this.#flush = undefined
    for (const setName of this.#changed) {
      const watched = this.#watched.get(setName)
      if (watched) this.#sendDelta(setName, watched)
    }
    this.#changed.clear()
  }

  #sendDelta (setName: string, { set, watchers }: WatchedSet) {
    const delta = set.takeDelta()
    if (!delta) return
    const frames = framesByDialect(setName, delta)
    for (const [peer, hasSnapshot] of watchers) if (hasSnapshot) for (const frame of frames(peer.dialect)) peer.push(frame)
  }

  #updatedElsewhere (body: string) {
    const { peerId, metadata }: { peerId: string, metadata: Metadata } = JSON.parse(body)
    this.#local.update(peerId, metadata).catch(() => { /* entered again by the retry */ })
  }
}

/** Encodes the frames of a delta once for each dialect. */
function framesByDialect (setName: string, delta: PresenceDelta): (dialect: Dialect) => EncodedMessage[] {
  const encoded = new Map<Dialect, EncodedMessage[]>()
  return dialect => {
    const frames = encoded.get(dialect) ?? deltaFrames(setName, delta, dialect)
    encoded.set(dialect, frames)
    return frames
  }
}

interface LocalPeer {
  readonly peerId: string
  principal: Principal
  /** The metadata that the client set, and the time at which it did. */
  ownMetadata: Metadata
  updatedAt: number
  /** JSON text of the metadata that other peers see. */
  metadata: string
  /** The number of its connections in each set. */
  readonly sets: Multiset
}

const retryMs = 1000

/** The peers that are connected to this process, and the sets that they are in. */
class LocalPeers {
  readonly #broker: MessageBroker
  readonly #deadlines: Deadlines
  readonly #replica: Replica
  readonly #peers = new Map<string, LocalPeer>()
  /** Sets that could not be entered: the broker was not reachable. */
  readonly #pending = new Map<LocalPeer, Set<string>>()
  #retry: Deadline | undefined

  constructor ({ broker, deadlines, replica }: PresenceOptions) {
    this.#broker = broker
    this.#deadlines = deadlines
    this.#replica = replica
  }

  close (): void {
    this.#pending.clear()
    this.#peers.clear()
  }

  async enter (setName: string, { peerId, authenticatedPrincipal }: Peer): Promise<void> {
    const peer = this.#peers.get(peerId) ?? this.#add(peerId, authenticatedPrincipal)
    if (peer.sets.add(setName) === 1) await this.#publish(setName, peer)
  }

  leave (setName: string, peerId: string): void {
    const peer = this.#peers.get(peerId)
    if (!peer?.sets.has(setName) || peer.sets.delete(setName) > 0) return
    if (peer.sets.size === 0) this.#peers.delete(peerId)
    this.#broker.leave(setName, peerId).catch(() => { /* the broker completes it when it is reachable again */ })
  }

  metadataOf (peerId: string): string | undefined {
    return this.#peers.get(peerId)?.metadata
  }

  /** The time of the last update by the client; -Infinity without one. */
  updatedAt (peerId: string): number {
    return this.#peers.get(peerId)?.updatedAt ?? -Infinity
  }

  async update (peerId: string, metadata: Metadata): Promise<void> {
    const peer = this.#peers.get(peerId)
    if (!peer) return
    peer.ownMetadata = metadata
    peer.updatedAt = this.#broker.now()
    peer.metadata = this.#metadataText(peer)
    await this.#publishToAll(peer)
  }

  refresh (peerId: string, principal?: Principal): void {
    const peer = this.#peers.get(peerId)
    if (!peer) return
    if (principal) peer.principal = principal
    const metadata = this.#metadataText(peer)
    if (metadata === peer.metadata) return
    peer.metadata = metadata
    this.#publishToAll(peer).catch(() => { /* published by the retry */ })
  }

  #add (peerId: string, principal: Principal): LocalPeer {
    const peer: LocalPeer = { peerId, principal, ownMetadata: {}, updatedAt: -Infinity, metadata: '', sets: new Multiset() }
    peer.metadata = this.#metadataText(peer)
    this.#peers.set(peerId, peer)
    return peer
  }

  #metadataText ({ principal, ownMetadata }: LocalPeer): string {
    const record = this.#replica.get(principal.agentId ?? '')?.record
    return JSON.stringify(publicMetadata(principal, record, ownMetadata))
  }

  async #publishToAll (peer: LocalPeer) {
    await Promise.all(Array.from(peer.sets.keys(), setName => this.#publish(setName, peer)))
  }

  async #publish (setName: string, peer: LocalPeer) {
    try {
      await this.#broker.enter(setName, peer.peerId, peer.metadata)
    } catch (error) {
      this.#pending.set(peer, (this.#pending.get(peer) ?? new Set()).add(setName))
      this.#retry ??= this.#deadlines.after(retryMs, () => { this.#publishPending() })
      throw error
    }
  }

  #publishPending () {
    const pending = new Map(this.#pending)
    this.#pending.clear()
    this.#retry = undefined
    for (const [peer, setNames] of pending) {
      if (this.#peers.get(peer.peerId) !== peer) continue
      for (const setName of setNames) if (peer.sets.has(setName)) this.#publish(setName, peer).catch(() => { /* pending again */ })
    }
  }
}

/** Members that only the server sets. */
const reservedMembers: ReadonlySet<string> = new Set(['agent_id', 'role', 'agent_type', 'capabilities', 'agentName'])

interface AgentFacts { name: string, agent_type: string, capabilities: string[], metadata: Metadata }

/** The metadata of a peer that other peers see: of its token, of the client, and of the server, in ascending precedence. */
function publicMetadata ({ type, role, agentId, metadata }: Principal, record: AgentRecord | undefined, ownMetadata: Metadata): Metadata {
  const agent: AgentFacts | undefined = type === 'agent' && record ? JSON.parse(record.body) : undefined
  const model = agent?.metadata.model
  return {
    ...(model !== undefined && { model }),
    ...withoutReserved(metadata ?? {}),
    ...withoutReserved(ownMetadata),
    role,
    ...(type === 'agent' && { agent_id: agentId }),
    ...(agent && { agentName: agent.name, agent_type: agent.agent_type, capabilities: agent.capabilities })
  }
}

function withoutReserved (metadata: Metadata): Metadata {
  return Object.fromEntries(Object.entries(metadata).filter(([key]) => !reservedMembers.has(key)))
}
