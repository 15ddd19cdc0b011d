import { tooMany } from '../../errors.js'
import type { EncodedMessage } from '../../protocol/encoded-message.js'
import type { MessageBroker, PresenceChange, Roster } from '../../storage/message-broker.js'
import { tierPlace } from '../../protocol/channel-names.js'
import { Occupancy, type OccupancyOptions } from './occupancy.js'
import type { Dialect } from '../../protocol/channel-names.js'
import type { Peer } from '../peer.js'
import { PlaceView, type PlaceDelta, type Present } from './view.js'
import { deltaFrames, snapshotFrame } from './frames.js'
import type { Metadata } from './profile.js'
import type { Signals } from '../signals.js'

/** A place that this process looks at. */
interface Watched {
  readonly view: PlaceView
  readonly ready: Promise<void>
  /** Connections that want to hear, and whether they were shown who is there. */
  readonly watchers: Map<Peer, boolean>
}

const saidEveryMs = 1000

/** Who is where: peers that are subscribed to a channel by name, and all who take part. */
export class Presence {
  readonly #broker: MessageBroker
  readonly #signals: Signals
  readonly #occupancy: Occupancy
  readonly #watched = new Map<string, Watched>()
  readonly #changed = new Set<string>()
  #flush: NodeJS.Immediate | undefined

  constructor ({ signals, ...options }: OccupancyOptions & { signals: Signals }) {
    this.#broker = options.broker
    this.#signals = signals
    this.#occupancy = new Occupancy(options)
    signals.on('said', (_from, body) => { this.#hear(body) })
  }

  /** Who takes part is known from here on. @throws storage-unavailable */
  async open (): Promise<void> {
    await this.#look(tierPlace).ready
  }

  close (): void {
    clearImmediate(this.#flush)
    this.#occupancy.close()
    this.#watched.clear()
  }

  /** @throws storage-unavailable; the peer is there nevertheless as soon as that can be told, until it leaves */
  enter (place: string, peer: Peer): Promise<void> {
    return this.#occupancy.enter(place, peer)
  }

  leave (place: string, { peerId }: Peer): void {
    this.#occupancy.leave(place, peerId)
  }

  /** What the server knows of a peer may have changed. @param peer with its new token, where that is what changed */
  refresh (peerId: string, peer?: Peer): void {
    this.#occupancy.refresh(peerId, peer?.bearer)
  }

  /** What a peer says of itself, from now on and everywhere. @throws rate-limit-exceeded; storage-unavailable */
  async say ({ peerId }: Peer, said: Metadata): Promise<void> {
    const wait = (this.#occupancy.saidAt(peerId) ?? -Infinity) + saidEveryMs - this.#broker.now()
    if (wait > 0) throw tooMany('rate-limit-exceeded', 'One update a second', wait)
    const elsewhere = this.processesOf(peerId).filter(process => process !== this.#broker.process)
    for (const process of elsewhere) this.#signals.send(process, 'said', JSON.stringify({ peerId, said }))
    await this.#occupancy.say(peerId, said)
  }

  /** JSON text of what others learn of a peer that takes part, by whatever process. */
  metadataOf (peerId: string): string | undefined {
    return this.#occupancy.metadataOf(peerId) ?? this.#watched.get(tierPlace)?.view.metadataOf(peerId)
  }

  /** Processes by which a peer takes part, as far as this one was told. */
  processesOf (peerId: string): string[] {
    return this.#watched.get(tierPlace)?.view.processesOf(peerId) ?? []
  }

  /** Who is in a place now, as one frame. @throws storage-unavailable */
  async frame (place: string, dialect: Dialect, requestId?: string): Promise<EncodedMessage> {
    const { revision, members } = await this.roster(place)
    return snapshotFrame({ place, revision, joined: members }, dialect, requestId).frame
  }

  /** Who is in a place now. @throws storage-unavailable */
  async roster (place: string): Promise<{ revision: number, members: Present[] }> {
    const view = new PlaceView()
    view.load(await this.#broker.roster(place))
    return { revision: view.revision, members: membersOf(view) }
  }

  /** Begins to look at a place for a peer, who hears of it after `show`. @throws storage-unavailable */
  async watch (place: string, peer: Peer): Promise<void> {
    const watched = this.#look(place)
    if (!watched.watchers.has(peer)) watched.watchers.set(peer, false)
    await watched.ready
  }

  /** Shows who is in a watched place once what was sent so far has left, and what changes from then on. */
  show (place: string, peer: Peer): void {
    peer.whenSent(`presence ${place}`, () => {
      const watched = this.#watched.get(place)
      if (!watched?.watchers.has(peer)) return
      this.#tell(place, watched)
      watched.watchers.set(peer, true)
      this.#showSome(place, peer, watched.view.peerIds(), true)
    })
  }

  unwatch (place: string, peer: Peer): void {
    const watched = this.#watched.get(place)
    if (!watched?.watchers.delete(peer) || watched.watchers.size > 0 || place === tierPlace) return
    this.#watched.delete(place)
    this.#broker.unwatch(place)
  }

  present (place: string, change: PresenceChange): void {
    this.#watched.get(place)?.view.apply(change)
    this.#noteChange(place)
  }

  reloaded (place: string, roster: Roster): void {
    this.#watched.get(place)?.view.load(roster)
    this.#noteChange(place)
  }

  #look (place: string): Watched {
    const known = this.#watched.get(place)
    if (known) return known
    const view = new PlaceView()
    const ready = this.#broker.watch(place).then(roster => { view.load(roster) })
    const watched = { view, ready, watchers: new Map<Peer, boolean>() }
    this.#watched.set(place, watched)
    return watched
  }

  /** A crowd that one frame cannot hold follows in others: whoever has left meanwhile is not told of any more. */
  #showSome (place: string, peer: Peer, peerIds: readonly string[], isFirst: boolean) {
    const watched = this.#watched.get(place)
    if (!watched?.watchers.has(peer)) return
    const { view } = watched
    const joined = membersOf(view, peerIds)
    const { frame, shown } = snapshotFrame({ place, revision: view.revision, joined }, peer.dialect)
    peer.push(isFirst ? frame : deltaFrames(place, { revision: view.revision, joined: joined.slice(0, shown), left: [] }, peer.dialect)[0]!)
    const rest = joined.slice(shown).map(({ peerId }) => peerId)
    if (rest.length > 0) peer.whenSent(`presence ${place}`, () => { this.#showSome(place, peer, rest, false) })
  }

  /** Changes of one tick are told together. */
  #noteChange (place: string) {
    this.#changed.add(place)
    this.#flush ??= setImmediate(() => { this.#tellChanges() })
  }

  #tellChanges () {
    this.#flush = undefined
    for (const place of this.#changed) {
      const watched = this.#watched.get(place)
      if (watched) this.#tell(place, watched)
    }
    this.#changed.clear()
  }

  #tell (place: string, { view, watchers }: Watched) {
    const delta = view.takeDelta()
    if (!delta) return
    const frames = framesByDialect(place, delta)
    for (const [peer, isShown] of watchers) if (isShown) for (const frame of frames(peer.dialect)) peer.push(frame)
  }

  #hear (body: string) {
    const { peerId, said } = JSON.parse(body) as { peerId: string, said: Metadata }
    this.#occupancy.say(peerId, said).catch(() => { /* told when the broker can be reached again */ })
  }
}

function membersOf (view: PlaceView, peerIds: readonly string[] = view.peerIds()): Present[] {
  return peerIds.flatMap(peerId => {
    const metadata = view.metadataOf(peerId)
    return metadata === undefined ? [] : [{ peerId, metadata }]
  })
}

/** Frames that all who speak the same share. */
function framesByDialect (place: string, delta: PlaceDelta): (dialect: Dialect) => EncodedMessage[] {
  const made = new Map<Dialect, EncodedMessage[]>()
  return dialect => {
    const frames = made.get(dialect) ?? deltaFrames(place, delta, dialect)
    made.set(dialect, frames)
    return frames
  }
}
