import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../../lib/clock.js'
import { isObject } from '../../lib/json.js'
import type {
  AppendCommand, Appended, BrokerLimits, BrokerListener, LogEntry, LogPosition, MessageBroker, PresenceChange, Roster
} from '../message-broker.js'

/** The settings of the broker that a test needs. */
export interface BrokerContractSettings {
  /** A clock that the suite advances, for brokers that can use a given clock. */
  clock: Clock
  limits: Partial<BrokerLimits>
}

export interface BrokerContractStore {
  /** A new broker without data that is not open. */
  broker: MessageBroker
  /** For a shared broker: creates the broker of another process with the same data, which is not open. */
  another?: () => Promise<MessageBroker>
  /** Cleans up after all brokers were closed. */
  close?: () => Promise<void>
}

export interface ReceivedEntry extends LogEntry { readonly log: string, readonly epoch: string }

/** One process: its open broker and the events that it has received. */
export class BrokerProcess implements BrokerListener {
  readonly broker: MessageBroker
  readonly received: ReceivedEntry[] = []
  /** Gaps, each with the number of entries received before it. */
  readonly gaps: Array<LogPosition & { log: string, after: number }> = []
  readonly changes: Array<PresenceChange & { set: string }> = []
  readonly reloads: Array<Roster & { set: string }> = []
  readonly processMessages: Array<[from: string, body: string]> = []
  /** Called with each entry that is received. */
  onEntry: (entry: ReceivedEntry) => void = () => {}

  constructor (broker: MessageBroker) {
    this.broker = broker
  }

  async open (): Promise<this> {
    await this.broker.open(this)
    return this
  }

  appended (log: string, epoch: string, entry: LogEntry): void {
    const received = { log, epoch, ...entry }
    this.received.push(received)
    this.onEntry(received)
  }

  logGap (log: string, position: LogPosition): void {
    this.gaps.push({ log, ...position, after: this.received.length })
  }

  presenceChanged (set: string, change: PresenceChange): void {
    this.changes.push({ set, ...change })
  }

  presenceReloaded (set: string, roster: Roster): void {
    this.reloads.push({ set, ...roster })
  }

  processMessage (from: string, body: string): void {
    this.processMessages.push([from, body])
  }

  say (log: string, text: string, more: Partial<AppendCommand> = {}): Promise<Appended> {
    return this.broker.append({ log, from: 'somebody', data: JSON.stringify(text), ...more })
  }

  sayAll (log: string, texts: readonly string[], more: Partial<AppendCommand> = {}): Promise<Appended[]> {
    return Promise.all(texts.map(text => this.say(log, text, more)))
  }

  /** The texts of a log that were received. */
  textsOf (log: string): string[] {
    return this.received.filter(entry => entry.log === log).map(({ data }) => JSON.parse(data))
  }

  async waitUntil (condition: () => boolean): Promise<void> {
    for (let tries = 0; !condition(); tries++) {
      assert.ok(tries < 4000, 'the condition is not met within 20 s')
      await sleep(5)
    }
  }

  /** Waits until a number of entries of a log were received. @returns their texts */
  async receives (log: string, count: number): Promise<string[]> {
    await this.waitUntil(() => this.textsOf(log).length >= count)
    return this.textsOf(log)
  }

  /** Each change of a set as `+peer`, `=peer` or `-peer`; in brackets if other processes have the peer in the set. */
  changesOf (set: string): string[] {
    const symbols = { enter: '+', update: '=', leave: '-' }
    const changes = this.changes.filter(change => change.set === set)
    return changes.map(({ op, isWhole, peerId }) => isWhole || op === 'update' ? `${symbols[op]}${peerId}` : `(${symbols[op]}${peerId})`)
  }

  async receivesChanges (set: string, count: number): Promise<string[]> {
    await this.waitUntil(() => this.changesOf(set).length >= count)
    return this.changesOf(set)
  }

  /** The peers of a set with their metadata, by name. */
  async membersOf (set: string): Promise<string[]> {
    return membersOf(await this.broker.roster(set))
  }
}

export function membersOf ({ members }: Roster): string[] {
  return members.map(({ peerId, metadata }) => `${peerId} ${metadata}`).sort()
}

export const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, index) => String(from + index))

/** The open broker of one process, and its time. */
export interface BrokerScene {
  readonly process: BrokerProcess
  readonly broker: MessageBroker
  /** Opens the broker of another process with the same data. */
  another: () => Promise<BrokerProcess>
  /** Lets time pass, by the clock of the broker. */
  pass: (ms: number) => Promise<void>
}

/** A test of the contract, and the limits that it needs. */
export type BrokerCase = readonly [name: string, run: (scene: BrokerScene) => Promise<unknown>, limits?: Partial<BrokerLimits>]

export const log = 'c:workflows/one'
export const set = 'c:workflows/one'
/** Unusual names of channels and peers. */
export const odd = [
  'c:', 'c:/', 'c: a b ', 'c:*', 'c:**', 'c:a/*/[b-z]?\\', 'c:ünï/☃/🚀', 'c:"{x}"', 'c:{a}:b', 'c:a\nb', 'c:\ud800', 'c:\udc00',
  `c:${'x'.repeat(256)}`, 'i:', 'i:c:x', 'i:\u0000'
]

/** The part of `actual` that has the shape of `expected`. */
function project (actual: unknown, expected: unknown): unknown {
  if (Array.isArray(actual) && Array.isArray(expected)) return actual.map((item, index) => project(item, expected[index]))
  if (!isObject(actual) && !(actual instanceof Error)) return actual
  if (!isObject(expected)) return actual
  return Object.fromEntries(Object.entries(expected).map(([key, value]) => [key, project(Reflect.get(actual, key), value)]))
}

/** Asserts that `actual` has the members of `expected`, in depth; it may have others. */
export function assertMatches (actual: unknown, expected: unknown, message?: string): void {
  assert.deepEqual(project(actual, expected), expected, message)
}
