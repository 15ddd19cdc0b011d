import { performance } from 'node:perf_hooks'
import type { LevelDatabase, Operation } from './database.js'
import { storageUnavailable } from './unavailable.js'

/** Has something to write. */
export interface Writer {
  /** Everything that is not written yet, what failed before included. */
  collect (): Operation[]
  /** What `collect` gave last is written: may be told. */
  written (): void
  /** A second has passed. */
  tick (): void
  /** Nothing can be written for this reason; null when it can again, after so many milliseconds. */
  fault? (reason: string | null, ms: number): void
}

const tickMs = 1000

export const ignore = (): void => {}

interface Turn { promise: Promise<void>, resolve: () => void, reject: (error: unknown) => void }

function makeTurn (): Turn {
  let turn!: Omit<Turn, 'promise'>
  const promise = new Promise<void>((resolve, reject) => { turn = { resolve, reject } })
  // Whoever asked hears of a failure; a turn that nobody waits for harms nobody.
  promise.catch(ignore)
  return { promise, ...turn }
}

/**
 * Writes for all writers of a database, one batch at a time and one for each tick of the event loop: nothing is
 * acknowledged or told before its batch is written. After a failure no more is taken until everything that was decided
 * is written: what is in memory and what is on the disk never part.
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

  /** @throws storage-unavailable while nothing can be written */
  assertWritable (): void {
    if (this.#fault !== null) throw storageUnavailable(this.#fault)
  }

  /** Resolves when everything that the writers hold now is written. @throws storage-unavailable */
  write (): Promise<void> {
    this.#next ??= makeTurn()
    this.#running ??= this.#run()
    return this.#next.promise
  }

  /** Resolves when what was to be written before this call is. @throws storage-unavailable */
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

  /** What came meanwhile is written next, or held with the rest. */
  #end () {
    this.#current = this.#running = undefined
    if (this.#next && this.#fault === null) this.#running = this.#run()
    else this.#next?.reject(storageUnavailable(this.#fault))
    if (this.#fault !== null) this.#next = undefined
  }

  #fail (error: unknown) {
    this.#fault = (error as Error).message
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
      this.#fault = (error as Error).message
    }
    this.#end()
  }
}
