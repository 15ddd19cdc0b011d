import { randomBytes } from 'node:crypto'
import { problem } from '../../errors.js'
import {
  messageKey, type AppendCommand, type Appended, type BrokerLimits, type LogEntry, type LogPage, type LogPosition, type PresenceChange,
  type PresenceMember
} from '../message-broker.js'
import { unavailable, type Connections } from './connections.js'
import type { BrokerScript } from './scripts.js'

/** An entry as it is published. */
export interface LiveEntry { readonly epoch: string, readonly entry: LogEntry }

/** Encodes any text as one line that survives UTF-8, different for each text. */
export function encodeName (name: string): string {
  return JSON.stringify(name).slice(1, -1)
}

export function decodeName (encoded: string): string {
  return JSON.parse(`"${encoded}"`)
}

/** The stored text of an entry: a line with sender, length of the metadata and origin; then the metadata and the data. */
export function packEntry ({ from, data, metadata, origin }: AppendCommand): string {
  return `${JSON.stringify([from, metadata?.length ?? -1, origin])}\n${metadata ?? ''}${data}`
}

/** @param start the index of the entry in `text` */
export function unpackEntry (offset: number, at: number, text: string, start = 0): LogEntry {
  const line = text.indexOf('\n', start)
  const [from, length, origin]: [string, number, string | null] = JSON.parse(text.slice(start, line))
  const end = line + 1 + Math.max(0, length)
  const metadata = length < 0 ? undefined : text.slice(line + 1, end)
  return { offset, from, data: text.slice(end), metadata, origin: origin ?? undefined, at }
}

/** Parses a published entry: the line `<epoch> <offset> <at>` and the stored text. */
export function readLiveEntry (text: string): LiveEntry {
  const line = text.indexOf('\n')
  const [epoch = '', offset, at] = text.slice(0, line).split(' ')
  return { epoch, entry: unpackEntry(Number(offset), Number(at), text, line + 1) }
}

/** Parses `<epoch> <offset>`, followed by ` 1` for an entry that was stored before. */
function readPosition (text: string): LogPosition & { duplicate: boolean } {
  const [epoch = '', offset, duplicate] = text.split(' ')
  return { epoch, offset: Number(offset), duplicate: duplicate === '1' }
}

const presenceOps: ReadonlyMap<string, PresenceChange['op']> = new Map((['enter', 'update', 'leave'] as const).map(op => [op, op]))

/** Parses a published change of a presence set: the line `<op> <isWhole> <revision> <process> <peer>` and the metadata. */
export function readPresenceChange (text: string): PresenceChange {
  const line = text.indexOf('\n')
  const [op = '', isWhole, revision, process = '', ...peer] = text.slice(0, line).split(' ')
  return {
    op: presenceOps.get(op) ?? 'update',
    isWhole: isWhole === '1',
    revision: Number(revision),
    process,
    peerId: decodeName(peer.join(' ')),
    metadata: text.slice(line + 1)
  }
}

/** The members of a presence set, from the fields and values of its hash. Fields that begin with a space are counts. */
export function readMembers (fieldsAndValues: readonly string[]): PresenceMember[] {
  const members: PresenceMember[] = []
  for (let index = 0; index < fieldsAndValues.length; index += 2) {
    const [field = '', metadata = ''] = fieldsAndValues.slice(index, index + 2)
    const space = field.indexOf(' ')
    if (space > 0) members.push({ peerId: decodeName(field.slice(space + 1)), process: field.slice(0, space), metadata })
  }
  return members
}

const escapeGlob = (text: string) => text.replace(/[\\*?[\]]/g, '\\$&')

/** A glob of Redis that matches the channels of a pattern and possibly others. */
export function globOf (prefix: string, pattern: string): string {
  const segments = pattern.split('/').map(segment => segment === '*' || segment === '**' ? '*' : escapeGlob(encodeName(segment)))
  return escapeGlob(prefix) + segments.join('/')
}

/** The error of calls before a broker is opened and after it is closed. */
export const notOpen = () => problem('storage-unavailable', 'The broker is not open')

/** Runs the scripts of the broker. */
export class BrokerCommands {
  readonly #connections: Connections
  readonly #latest: () => string
  isOpen = false

  /** @param latest the latest time of Redis at which a script that is sent now may begin, or '' */
  constructor (connections: Connections, latest: () => string) {
    this.#connections = connections
    this.#latest = latest
  }

  checkOpen (): void {
    if (!this.isOpen) throw notOpen()
  }

  /** @throws when Redis does not reply in time, or rejects the call */
  async run<T> (script: BrokerScript, args: ReadonlyArray<string | number>): Promise<T> {
    try {
      return await this.#connections.run(script, 'broker', [this.#latest(), ...args]) as T
    } catch (error) {
      throw unavailable(error)
    }
  }
}

interface PendingCommand<T, R> { readonly command: T, readonly resolve: (result: R) => void, readonly reject: (error: unknown) => void }

/** Collects the commands of one tick and sends them together, in the order of the calls. */
export class CommandBatch<T, R> {
  readonly #size: number
  readonly #send: (commands: readonly T[]) => Promise<readonly R[]>
  #pending: Array<PendingCommand<T, R>> = []

  /**
   * @param size the maximum number of commands of one call
   * @param send resolves with one result for each command
   */
  constructor (size: number, send: (commands: readonly T[]) => Promise<readonly R[]>) {
    this.#size = size
    this.#send = send
  }

  add (command: T): Promise<R> {
    return new Promise((resolve, reject) => {
      if (this.#pending.push({ command, resolve, reject }) === 1) setImmediate(() => { this.#flush() })
    })
  }

  /** Rejects the commands that are not sent yet. */
  fail (error: unknown): void {
    for (const { reject } of this.#pending.splice(0)) reject(error)
  }

  #flush () {
    const pending = this.#pending
    this.#pending = []
    for (let first = 0; first < pending.length; first += this.#size) this.#call(pending.slice(first, first + this.#size))
  }

  async #call (pending: ReadonlyArray<PendingCommand<T, R>>): Promise<void> {
    try {
      const results = await this.#send(pending.map(({ command }) => command))
      for (const [index, result] of results.entries()) pending[index]?.resolve(result)
    } catch (error) {
      for (const { reject } of pending) reject(error)
    }
  }
}

type RawEntry = [id: string, fields: [string, at: string, string, text: string]]
type RawPage = [epoch: string, offset: number, oldest: number, entries: RawEntry[]]

interface KnownPosition extends LogPosition { readonly log: string }

const appendsPerCall = 500
const logsPerCall = 1000

function entryOf ([id, [, at, , text]]: RawEntry): LogEntry {
  return unpackEntry(Number.parseInt(id, 10), Number(at), text)
}

function appendArguments (command: AppendCommand): string[] {
  const { log, from, msgId } = command
  return [encodeName(log), msgId === undefined ? '' : encodeName(messageKey(log, from, msgId)), packEntry(command)]
}

/** Message logs in Redis. */
export class RedisLogs {
  readonly #commands: BrokerCommands
  readonly #limits: BrokerLimits
  readonly #nonce = randomBytes(6).toString('base64url')
  #epochs = 0
  readonly #appends = new CommandBatch<AppendCommand, Appended>(appendsPerCall, commands => this.#append(commands))
  readonly #lookups = new CommandBatch<KnownPosition, LogPosition>(logsPerCall, known => this.#locate(known))

  constructor (commands: BrokerCommands, limits: BrokerLimits) {
    this.#commands = commands
    this.#limits = limits
  }

  append (command: AppendCommand): Promise<Appended> {
    return this.#appends.add(command)
  }

  /** @param onlyNew when `since` is of another epoch, return only the entries that were appended in the current epoch */
  async read (log: string, { since, limit }: { since?: LogPosition | undefined, limit: number }, onlyNew = false): Promise<LogPage> {
    const args = [...this.#context(), encodeName(log), since ? since.epoch || '-' : '', since?.offset ?? 0, limit, onlyNew ? 1 : 0]
    const [epoch, offset, oldest, raw] = await this.#commands.run<RawPage>('log-read', args)
    const entries = raw.map(entryOf)
    if (!since) return { epoch, offset, entries: entries.reverse(), recovered: true }
    const recovered = since.epoch === epoch && since.offset <= offset && oldest <= since.offset + 1
    return { epoch, offset, entries, recovered }
  }

  /** The newest position of a log, which is kept for a while. Lookups of one tick share a call. */
  locate (known: KnownPosition): Promise<LogPosition> {
    return this.#lookups.add(known)
  }

  /** Rejects the commands that are not sent yet. */
  close (): void {
    for (const batch of [this.#appends, this.#lookups]) batch.fail(notOpen())
  }

  async #append (commands: readonly AppendCommand[]): Promise<Appended[]> {
    const args = [...this.#context(), this.#limits.msgIdMs, ...commands.flatMap(appendArguments)]
    return (await this.#commands.run<string[]>('log-append', args)).map(readPosition)
  }

  async #locate (known: readonly KnownPosition[]): Promise<LogPosition[]> {
    const args = [...this.#context(), ...known.flatMap(({ log, epoch, offset }) => [encodeName(log), epoch, offset])]
    return (await this.#commands.run<string[]>('log-locate', args)).map(readPosition)
  }

  /** Each call has another name for a new epoch. */
  #context (): Array<string | number> {
    const { entries, bytes, ageMs } = this.#limits
    return [`${this.#nonce}${(this.#epochs++).toString(36)}`, entries, bytes, ageMs]
  }
}
