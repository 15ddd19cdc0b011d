import { randomBytes } from 'node:crypto'
import type { AppendCommand, Appended, BrokerLimits, LogEntry, LogPage, LogPosition } from '../message-broker.js'
import { messageKey } from '../message-broker.js'
import { Batch } from './batch.js'
import { closed, type Calls } from './calls.js'
import { keyOf, packEntry, readPosition, unpackEntry } from './texts.js'

type RawEntry = [id: string, fields: [string, at: string, string, text: string]]
type RawPage = [epoch: string, offset: number, oldest: number, entries: RawEntry[]]

interface Known extends LogPosition { readonly log: string }

const appendsPerCall = 500
const logsPerCall = 1000

function entryOf ([id, [, at, , text]]: RawEntry): LogEntry {
  return unpackEntry(Number.parseInt(id, 10), Number(at), text)
}

function argsOf (command: AppendCommand): string[] {
  const { log, from, msgId } = command
  return [keyOf(log), msgId === undefined ? '' : keyOf(messageKey(log, from, msgId)), packEntry(command)]
}

/** Logs in Redis. */
export class RedisLogs {
  readonly #calls: Calls
  readonly #limits: BrokerLimits
  readonly #nonce = randomBytes(6).toString('base64url')
  #epochs = 0
  readonly #appends = new Batch<AppendCommand, Appended>(appendsPerCall, commands => this.#append(commands))
  readonly #lookups = new Batch<Known, LogPosition>(logsPerCall, known => this.#locate(known))

  constructor (calls: Calls, limits: BrokerLimits) {
    this.#calls = calls
    this.#limits = limits
  }

  append (command: AppendCommand): Promise<Appended> {
    return this.#appends.add(command)
  }

  /** @param isTail whether of another epoch only that is wanted which nobody can have been told */
  async read (log: string, { since, limit }: { since?: LogPosition | undefined, limit: number }, isTail = false): Promise<LogPage> {
    const args = [...this.#context(), keyOf(log), since ? since.epoch || '-' : '', since?.offset ?? 0, limit, isTail ? 1 : 0]
    const [epoch, offset, oldest, raw] = await this.#calls.run('logsRead', args) as RawPage
    const entries = raw.map(entryOf)
    if (!since) return { epoch, offset, entries: entries.reverse(), recovered: true }
    return { epoch, offset, entries, recovered: since.epoch === epoch && since.offset <= offset && oldest <= since.offset + 1 }
  }

  /** Where a log stands, which stays for a while. What is asked for in one tick goes in one call. */
  locate (known: Known): Promise<LogPosition> {
    return this.#lookups.add(known)
  }

  /** What was not sent yet is not sent. */
  close (): void {
    for (const batch of [this.#appends, this.#lookups]) batch.fail(closed())
  }

  async #append (commands: readonly AppendCommand[]): Promise<Appended[]> {
    const results = await this.#calls.run('logsAppend', [...this.#context(), this.#limits.msgIdMs, ...commands.flatMap(argsOf)]) as string[]
    return results.map(readPosition)
  }

  async #locate (known: readonly Known[]): Promise<LogPosition[]> {
    const results = await this.#calls.run('logsLocate', [...this.#context(), ...known.flatMap(({ log, epoch, offset }) => [keyOf(log), epoch, offset])]) as string[]
    return results.map(readPosition)
  }

  /** With each call another name for what may begin with it. */
  #context (): Array<string | number> {
    const { entries, bytes, ageMs } = this.#limits
    return [`${this.#nonce}${(this.#epochs++).toString(36)}`, entries, bytes, ageMs]
  }
}
