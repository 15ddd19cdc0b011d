import { performance } from 'node:perf_hooks'
import { problem } from '../../errors.js'
import { LevelDatabase, type Durability } from './database.js'
import type { Operation } from './integrity.js'
import type { StoredState } from './records.js'

/** A store that writes through the journal. */
export interface Writer {
  /** All operations that are not written yet, including those of a failed write. */
  collect (): Operation[]
  /** The operations that `collect` returned last are written: their effects may be published. */
  written (): void
  /** Called every second. */
  tick (): void
  /** Writing fails for this reason; null when it succeeds again, after `ms`. */
  fault? (reason: string | null, ms: number): void
}

const tickMs = 1000
const retryAfterSeconds = 2

export const ignore = (): void => {}

/** The error of a call whose effect cannot be written. */
function storageUnavailable (reason: string | null) {
  return problem('storage-unavailable', `The store cannot write: ${reason}`, {
    members: { retry_after: retryAfterSeconds },
    headers: { 'retry-after': String(retryAfterSeconds) }
  })
}

/** A batch that is or will be written, and the calls that wait for it. */
class Turn {
  readonly promise: Promise<void>
  resolve: () => void = ignore
  reject: (error: unknown) => void = ignore

  constructor () {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // Callers handle the rejection; a turn may have no callers.
    this.promise.catch(ignore)
  }
}

/**
 * Writes for all stores of a database: one batch at a time, and one for each tick of the event loop. Nothing is
 * acknowledged or published before its batch is written. After a failure no call is accepted until everything that was
 * decided is written, so that memory and disk never diverge.
 */
export class Journal {
  readonly #database: LevelDatabase
  readonly #writers = new Set<Writer>()
  #timer: NodeJS.Timeout | undefined
  #next: Turn | undefined
  #current: Turn | undefined
  #running: Promise<void> | undefined
  #failedAt = 0
  #fault: string | null = 'it is not open'

  constructor (database: LevelDatabase) {
    this.#database = database
  }

  start (): void {
    this.#fault = null
    this.#timer = setInterval(() => { this.#tick() }, tickMs).unref()
  }

  add (writer: Writer): void {
    this.#writers.add(writer)
  }

  get isWritable () { return this.#fault === null }

  /** @throws storage-unavailable while writing fails */
  assertWritable (): void {
    if (this.#fault !== null) throw storageUnavailable(this.#fault)
  }

  /** Resolves when the current operations of all writers are written. @throws storage-unavailable */
  write (): Promise<void> {
    this.#next ??= new Turn()
    this.#running ??= this.#run()
    return this.#next.promise
  }

  /** Resolves when all operations of earlier calls are written. @throws storage-unavailable */
  async settled (): Promise<void> {
    await (this.#next ?? this.#current)?.promise
  }

  /** Writes what is left. @returns whether that succeeded */
  async stop (): Promise<boolean> {
    clearInterval(this.#timer)
    await this.#running
    try {
      if (this.#fault !== null) await this.#database.reopen()
      await this.#writeAll({ sync: true })
      return true
    } catch {
      return false
    } finally {
      this.#fault = 'it is closed'
      this.#writers.clear()
    }
  }

  async #run (): Promise<void> {
    await new Promise(resolve => { setImmediate(resolve) })
    while (this.#next && this.#fault === null) {
      const turn = this.#current = this.#next
      this.#next = undefined
      try {
        await this.#writeAll()
        turn.resolve()
      } catch (error) {
        this.#fail(error)
        turn.reject(storageUnavailable(this.#fault))
      }
    }
    this.#end()
  }

  async #writeAll (options?: { sync: boolean }): Promise<void> {
    const operations = [...this.#writers].flatMap(writer => writer.collect())
    await this.#database.write(operations, options)
    for (const writer of this.#writers) writer.written()
  }

  /** Starts the next turn, which was requested meanwhile, or rejects it after a failure. */
  #end () {
    this.#current = this.#running = undefined
    if (this.#next && this.#fault === null) this.#running = this.#run()
    else this.#next?.reject(storageUnavailable(this.#fault))
    if (this.#fault !== null) this.#next = undefined
  }

  #fail (error: unknown) {
    this.#fault = messageOf(error)
    this.#failedAt = performance.now()
    for (const writer of this.#writers) writer.fault?.(this.#fault, 0)
  }

  #tick () {
    for (const writer of this.#writers) writer.tick()
    if (this.#fault === null) this.write()
    else this.#running ??= this.#retry()
  }

  async #retry (): Promise<void> {
    try {
      await this.#database.reopen()
      await this.#writeAll()
      this.#fault = null
      for (const writer of this.#writers) writer.fault?.(null, performance.now() - this.#failedAt)
    } catch (error) {
      this.#fault = messageOf(error)
    }
    this.#end()
  }
}

function messageOf (error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The database that the stores share: the first store opens it, the last one closes it. */
export class SharedDatabase {
  readonly journal: Journal
  readonly #database: LevelDatabase
  #users = 0
  #state: Promise<StoredState> | undefined

  constructor (path: string, durability: Durability) {
    this.#database = new LevelDatabase(path, durability)
    this.journal = new Journal(this.#database)
  }

  /** Whether all acknowledged writes are known to be present. */
  get continues () { return this.#database.continues }

  /** @throws a refusal, which names the remedy */
  async open (): Promise<StoredState> {
    this.#users++
    this.#state ??= this.#open()
    try {
      return await this.#state
    } catch (error) {
      this.#users = 0
      this.#state = undefined
      throw error
    }
  }

  async close (): Promise<void> {
    if (this.#users === 0 || --this.#users > 0) return
    this.#state = undefined
    await this.#database.close({ clean: await this.journal.stop() })
  }

  async #open (): Promise<StoredState> {
    const state = await this.#database.open()
    this.#database.begin()
    this.journal.start()
    return state
  }
}
