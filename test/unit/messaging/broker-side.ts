import type { AppendCommand, Appended, MessageBroker, BrokerListener, LogEntry, LogPosition, PresenceChange, Roster } from '../../../src/storage/message-broker.js'
import { until } from '../../support/harness.js'

export interface Told extends LogEntry { readonly log: string, readonly epoch: string }

/** What one process holds: the broker that it opened, and what it was told. */
export class Side implements BrokerListener {
  readonly broker: MessageBroker
  readonly told: Told[] = []
  readonly losses: Array<LogPosition & { log: string, after: number }> = []
  readonly changes: Array<PresenceChange & { place: string }> = []
  readonly reloads: Array<Roster & { place: string }> = []
  readonly signals: Array<[from: string, body: string]> = []
  /** Does something more with what is told. */
  onEntry: (told: Told) => void = () => {}

  constructor (broker: MessageBroker) {
    this.broker = broker
  }

  async open (): Promise<this> {
    await this.broker.open(this)
    return this
  }

  appended (log: string, epoch: string, entry: LogEntry): void {
    const told = { log, epoch, ...entry }
    this.told.push(told)
    this.onEntry(told)
  }

  logGap (log: string, position: LogPosition): void {
    this.losses.push({ log, ...position, after: this.told.length })
  }

  presenceChanged (place: string, change: PresenceChange): void {
    this.changes.push({ place, ...change })
  }

  presenceReloaded (place: string, roster: Roster): void {
    this.reloads.push({ place, ...roster })
  }

  processMessage (from: string, body: string): void {
    this.signals.push([from, body])
  }

  say (log: string, text: string, more: Partial<AppendCommand> = {}): Promise<Appended> {
    return this.broker.append({ log, from: 'somebody', data: JSON.stringify(text), ...more })
  }

  sayAll (log: string, texts: readonly string[], more: Partial<AppendCommand> = {}): Promise<Appended[]> {
    return Promise.all(texts.map(text => this.say(log, text, more)))
  }

  /** What was said in a log, as far as it was told. */
  heard (log: string): string[] {
    return this.told.filter(told => told.log === log).map(({ data }) => JSON.parse(data))
  }

  waits (condition: () => boolean): Promise<void> {
    return until(condition, 20_000)
  }

  /** Waits until so many entries of a log were told. */
  async hears (log: string, count: number): Promise<string[]> {
    await this.waits(() => this.heard(log).length >= count)
    return this.heard(log)
  }

  /** Each change of a place as `+peer`, `=peer` or `-peer`; one that is not whole in brackets. */
  moves (place: string): string[] {
    const signs = { enter: '+', update: '=', leave: '-' }
    return this.changes.filter(change => change.place === place).map(({ op, isWhole, peerId }) => isWhole || op === 'update' ? `${signs[op]}${peerId}` : `(${signs[op]}${peerId})`)
  }

  async seesMoves (place: string, count: number): Promise<string[]> {
    await this.waits(() => this.moves(place).length >= count)
    return this.moves(place)
  }

  /** Peers of a place with their metadata, by name. */
  async there (place: string): Promise<string[]> {
    return membersOf(await this.broker.roster(place))
  }
}

export function membersOf ({ members }: Roster): string[] {
  return members.map(({ peerId, metadata }) => `${peerId} ${metadata}`).sort()
}

export const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, index) => String(from + index))
