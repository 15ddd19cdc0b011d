import { constants } from 'node:fs'
import { access, mkdir, readdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { inspect } from './inspect.js'
import { createMark, currentBoot, MarkFile, markName, readMark, schemaVersion, type Mark } from './mark.js'
import { damaged, refusal } from './refusal.js'

/** `commit`: survives the end of the process, however it ends. `sync`: survives that of the machine too. */
export type Durability = 'commit' | 'sync'

export type Operation = { readonly type: 'put', readonly key: string, readonly value: string } | { readonly type: 'del', readonly key: string }

/** A database of its own inside the folder, empty: only its lock is used, and taken before anything else is read. */
const lockName = 'in-use'
/** May be in a folder that holds no store yet. */
const harmless = new Set([lockName, `${markName}.new`, 'lost+found'])
const pageSize = 1000

/** Folders that this process has open. A second try would end the lock of the first: closing any handle of a file ends the locks of its process (fcntl). */
const openHere = new Set<string>()

/** What the codes of errors mean here. */
const findings: Record<string, string> = {
  EEXIST: 'it is a file',
  ENOTDIR: 'a part of its path is a file',
  EACCES: 'it may not be written to',
  EROFS: 'it may not be written to'
}

const inUse = (folder: string) => refusal(folder, 'another process has it open', 'Stop that process, or give this one a folder of its own.')

function explain (folder: string, error: unknown) {
  const { cause = error } = error as { cause?: unknown }
  const { code = '', message } = cause as NodeJS.ErrnoException
  if (code === 'LEVEL_LOCKED') return inUse(folder)
  return refusal(folder, findings[code] ?? message, 'Give it a folder that this user may write to, on a disk with room.')
}

function foreign (folder: string, names: readonly string[]) {
  const shown = names.slice(0, 3).join(', ')
  const finding = names.includes('CURRENT') ? `it is a LevelDB database of another program (${shown} …)` : `it holds files that are not of a store (${shown}${names.length > 3 ? ' …' : ''})`
  const advice = names.includes('registry_state.json') ? ' What ARCP has left there can be read with the command import.' : ''
  return refusal(folder, finding, `Give it an empty or a new folder.${advice}`)
}

async function openLevel (location: string): Promise<ClassicLevel> {
  // Not compressed: the checksums of tables are checked without LevelDB, and a registration costs less.
  const level = new ClassicLevel(location, { compression: false })
  await level.open()
  return level
}

/** The files of one store: found right before LevelDB sees them, locked, and numbered by what was written. */
export class LevelDatabase {
  readonly folder: string
  readonly #durability: Durability
  #lock: ClassicLevel | undefined
  #level: ClassicLevel | undefined
  #mark: MarkFile | undefined
  #place: string | undefined
  #sequence = 0
  /** Whether everything that was acknowledged is known to be there. */
  continues = true

  constructor (folder: string, durability: Durability) {
    this.folder = folder
    this.#durability = durability
  }

  /**
   * Opens it for reading; the mark of the last writer stays.
   * @throws a refusal that says what to do; nothing of the store has been changed then
   */
  async open (): Promise<void> {
    try {
      const isNew = await this.#isNew()
      await this.#takeLock()
      if (isNew) createMark(this.folder, this.#state({ clean: true }))
      else await this.#check(readMark(this.folder))
      this.#level = await openLevel(this.folder)
    } catch (error) {
      await this.#release()
      throw (error as Error).name === 'FastifyError' ? error : explain(this.folder, error)
    }
  }

  /** To be called before the first write. */
  begin (): void {
    this.#mark = new MarkFile(this.folder)
    this.#mark.write(this.#state({ clean: false }))
  }

  /** All keys and values, by pages in the order of their keys. */
  async * pages (): AsyncGenerator<Array<[string, string]>> {
    const iterator = this.#level!.iterator()
    try {
      for (let page = await iterator.nextv(pageSize); page.length > 0; page = await iterator.nextv(pageSize)) yield page
    } finally {
      await iterator.close()
    }
  }

  /** All of it or nothing. Resolves when it is as durable as promised. */
  async write (operations: readonly Operation[], { sync = this.#durability === 'sync' } = {}): Promise<void> {
    await this.#level!.batch([...operations], { sync })
    this.#sequence += operations.length
    this.#mark?.write(this.#state({ clean: false }))
  }

  /** After a write that failed: LevelDB's own log may end in the middle of it, and must not be written on. */
  async reopen (): Promise<void> {
    await this.#level!.close()
    const { sequence } = await inspect(this.folder, { tables: false })
    this.#level = await openLevel(this.folder)
    this.#sequence = sequence
  }

  /** @param clean everything is written, and forced to the disk */
  async close ({ clean }: { clean: boolean }): Promise<void> {
    if (clean) {
      this.#mark?.write(this.#state({ clean }))
      this.#mark?.sync()
    }
    await this.#release()
  }

  async #isNew (): Promise<boolean> {
    await mkdir(this.folder, { recursive: true })
    await access(this.folder, constants.W_OK)
    const names = await readdir(this.folder)
    if (names.includes(markName)) return false
    const others = names.filter(name => !harmless.has(name))
    if (others.length > 0) throw foreign(this.folder, others)
    return true
  }

  async #takeLock (): Promise<void> {
    const place = await realpath(this.folder)
    if (openHere.has(place)) throw inUse(this.folder)
    openHere.add(place)
    this.#place = place
    this.#lock = await openLevel(join(place, lockName))
  }

  async #check (mark: Mark): Promise<void> {
    const names = await readdir(this.folder)
    // A process that ended while it made the store has left nothing yet.
    if (mark.sequence === 0 && !names.includes('CURRENT')) return
    const { sequence } = await inspect(this.folder)
    const isComplete = sequence >= mark.sequence
    const outlived = mark.clean || mark.boot === currentBoot
    if (!isComplete && outlived) throw damaged(this.folder, `the newest ${mark.sequence - sequence} of ${mark.sequence} writes are missing: the end of a log was cut off or overwritten`)
    this.#sequence = sequence
    this.continues = outlived || (mark.durability === 'sync' && isComplete)
  }

  #state ({ clean }: { clean: boolean }): Mark {
    return { schema: schemaVersion, sequence: this.#sequence, durability: this.#durability, clean, boot: currentBoot }
  }

  async #release (): Promise<void> {
    this.#mark?.close()
    await this.#level?.close()
    await this.#lock?.close()
    if (this.#place !== undefined) openHere.delete(this.#place)
    this.#place = undefined
    this.#mark = this.#level = this.#lock = undefined
  }
}
