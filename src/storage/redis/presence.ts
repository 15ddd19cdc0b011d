import type { Roster } from '../message-broker.js'
import { Batch } from './batch.js'
import { closed, type Calls } from './calls.js'
import { keyOf, readMembers } from './texts.js'

export interface PresenceOptions {
  process: string
  calls: Calls
  /** How long this process is believed to live after it was last heard of. */
  leaseMs: number
  /** Others may have taken this process for dead: `settle` is to be called. */
  doubted: () => void
}

/** A peer in a place, by this process; `metadata` is what was said last. */
interface Stay { readonly place: string, readonly peerId: string, readonly metadata: string }
interface Move extends Stay { readonly op: 'enter' | 'leave' | 'stay' }

const movesPerCall = 500
const leavesPerCall = 500

const idOf = (place: string, peerId: string) => `${place.length}:${place}${peerId}`

/** Who is where, in Redis; and who is there by this process, which is made so again when it is not. */
export class Presence {
  readonly #options: PresenceOptions
  readonly #here = new Map<string, Stay>()
  /** Of these it is not known what Redis took in. */
  #unsure = new Map<string, Stay>()
  /** Whether it may have let go everybody. */
  #isDoubted = false
  readonly #moves = new Batch<Move, void>(movesPerCall, moves => this.#send(moves))

  constructor (options: PresenceOptions) {
    this.#options = options
  }

  async enter (place: string, peerId: string, metadata: string): Promise<void> {
    const id = idOf(place, peerId)
    const before = this.#here.get(id)
    const stay = { place, peerId, metadata }
    this.#here.set(id, stay)
    try {
      await this.#move({ op: 'enter', ...stay })
    } catch (error) {
      if (this.#here.get(id) === stay) this.#restore(id, before)
      throw error
    }
  }

  async leave (place: string, peerId: string): Promise<void> {
    this.#here.delete(idOf(place, peerId))
    await this.#move({ op: 'leave', place, peerId, metadata: '' })
  }

  async roster (place: string): Promise<Roster> {
    const { calls } = this.#options
    const [revision, facts] = await calls.run('placesRoster', [...this.#context(), keyOf(place)]) as [string, string[]]
    return { revision: Number(revision), members: readMembers(facts) }
  }

  /** Whether Redis may say something else than what is so. */
  get isSettled () { return !this.#isDoubted && this.#unsure.size === 0 }

  /** Says that this process lives, and lets go who came by processes that do not. */
  async beat (): Promise<void> {
    const [wasOver, ...dead] = await this.#options.calls.run('placesBeat', this.#context()) as [string, ...string[]]
    this.#isDoubted ||= wasOver === '1'
    for (const process of dead) await this.#sweep(process, false)
  }

  /** Makes Redis say what is so. */
  async settle (): Promise<void> {
    const doubtful = this.#isDoubted ? new Map([...this.#unsure, ...this.#here]) : this.#unsure
    this.#unsure = new Map()
    this.#isDoubted = false
    // What does not come through is unsure again.
    await Promise.all(Array.from(doubtful, ([id, stay]) => {
      const here = this.#here.get(id)
      return this.#move(here ? { ...here, op: 'stay' } : { ...stay, op: 'leave' })
    }))
  }

  /** Everybody who came by this process leaves. */
  async close (): Promise<void> {
    this.#moves.fail(closed())
    this.#here.clear()
    this.#unsure = new Map()
    await this.#sweep(this.#options.process, true)
  }

  async #move (move: Move): Promise<void> {
    try {
      await this.#moves.add(move)
    } catch (error) {
      this.#unsure.set(idOf(move.place, move.peerId), move)
      throw error
    }
  }

  #restore (id: string, before: Stay | undefined) {
    if (before) this.#here.set(id, before)
    else this.#here.delete(id)
  }

  async #send (moves: readonly Move[]): Promise<void[]> {
    const args = moves.flatMap(({ op, place, peerId, metadata }) => [op, keyOf(place), keyOf(peerId), metadata])
    const wasOver = await this.#options.calls.run('placesChange', [...this.#context(), ...args]) === '1'
    if (wasOver) this.#doubt()
    return []
  }

  #doubt () {
    this.#isDoubted = true
    this.#options.doubted()
  }

  async #sweep (process: string, isForced: boolean): Promise<void> {
    const args = [...this.#context(), process, isForced ? 1 : 0, leavesPerCall]
    while (await this.#options.calls.run('placesSweep', args) === '1');
  }

  #context (): Array<string | number> {
    return [this.#options.process, this.#options.leaseMs]
  }
}
