import { constants } from 'node:fs'
import { access, copyFile, link, mkdir, readdir, readFile, realpath, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { createHeader, currentBoot, damaged, HeaderFile, headerName, readHeader, refusal, schemaVersion, type Header } from './header.js'
import { Ledger, manifestKey, readManifest, unseal, type Manifest, type Operation, type PendingBatch } from './integrity.js'
import { StateLoader, type StoredState } from './records.js'
import { isTableIntact } from './table-check.js'

/** `commit`: writes survive the end of the process, however it ends. `sync`: they also survive the end of the machine. */
export type Durability = 'commit' | 'sync'

/** An empty database of its own in the folder. Its lock is taken before anything else is read. */
const lockName = 'in-use'
/** A copy of the database, which is checked before the database itself is opened. */
const copyName = 'check'
/** Names that a folder without a store may contain. */
const harmless = new Set([lockName, `${headerName}.new`, 'lost+found'])
const tableFile = /^\d+\.ldb$/
const databaseFile = /^(CURRENT|MANIFEST-\d+|\d+\.(ldb|log))$/
const pageSize = 1000

/**
 * The folders that this process has open. Opening one again would end the lock of the first store: closing any handle of
 * a file ends the locks of the process on it (fcntl).
 */
const openFolders = new Set<string>()

const findings: Record<string, string> = {
  EEXIST: 'it is a file',
  ENOTDIR: 'a part of its path is a file',
  EACCES: 'it may not be written to',
  EROFS: 'it may not be written to'
}

const inUse = (folder: string) => refusal(folder, 'another process has it open', 'Stop that process, or give this one a folder of its own.')

/** Errors of classic-level have the error of LevelDB as their cause. */
function causeOf (error: unknown): { code: string, message: string } {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const message = cause instanceof Error ? cause.message : String(cause)
  return { code: cause instanceof Error && 'code' in cause ? String(cause.code) : '', message }
}

function explain (folder: string, error: unknown) {
  if (error instanceof Error && error.name === 'FastifyError') return error
  const { code, message } = causeOf(error)
  if (code === 'LEVEL_LOCKED') return inUse(folder)
  return refusal(folder, findings[code] ?? message, 'Give it a folder that this user may write to, on a disk with room.')
}

function foreign (folder: string, names: readonly string[]) {
  const shown = names.slice(0, 3).join(', ')
  const isLevel = names.includes('CURRENT')
  const finding = isLevel
    ? `it is a LevelDB database of another program (${shown} …)`
    : `it holds files that are not of a store (${shown}${names.length > 3 ? ' …' : ''})`
  const advice = names.includes('registry_state.json') ? ' The command import reads the files of ARCP.' : ''
  return refusal(folder, finding, `Give it an empty or a new folder.${advice}`)
}

async function openLevel (location: string, { createIfMissing = true } = {}): Promise<ClassicLevel> {
  // Without compression a registration costs less, and `isTableIntact` can read the tables.
  const level = new ClassicLevel(location, { compression: false, createIfMissing })
  await level.open()
  return level
}

async function * pagesOf (level: ClassicLevel): AsyncGenerator<Array<[key: string, value: string]>> {
  const iterator = level.iterator()
  try {
    for (let page = await iterator.nextv(pageSize); page.length > 0; page = await iterator.nextv(pageSize)) yield page
  } finally {
    await iterator.close()
  }
}

/**
 * Copies a database. LevelDB replaces or deletes its files and never changes them in place, so that hard links suffice. A
 * table that is not intact is left out: if LevelDB needs it, it reports it as missing.
 */
async function copyDatabase (folder: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true })
  await mkdir(to)
  const names = (await readdir(folder)).filter(name => databaseFile.test(name))
  for (const name of names) {
    const path = join(folder, name)
    if (tableFile.test(name) && !isTableIntact(await readFile(path))) continue
    // Some file systems have no hard links.
    await link(path, join(to, name)).catch(() => copyFile(path, join(to, name)))
  }
}

/**
 * The database of one store. LevelDB skips the parts of its log that it cannot read, without an error. Therefore every
 * record has a checksum, and the manifest has the number of writes and records and a digest of all records. They are
 * checked on a copy, because opening a database changes its files.
 */
export class LevelDatabase {
  readonly folder: string
  readonly #durability: Durability
  readonly #ledger = new Ledger()
  #lock: ClassicLevel | undefined
  #level: ClassicLevel | undefined
  #header: HeaderFile | undefined
  #lockedPath: string | undefined
  /** The last batch, which may be written or not after an error. */
  #pending: PendingBatch | undefined
  #continues = true

  constructor (folder: string, durability: Durability) {
    this.folder = folder
    this.#durability = durability
  }

  /** Whether all acknowledged writes are known to be present. */
  get continues () { return this.#continues }

  /**
   * Opens the database and reads all records. The header stays that of the last writer.
   * @throws a refusal, which names the remedy; the database is unchanged then
   */
  async open (): Promise<StoredState> {
    try {
      const isNew = await this.#isNew()
      await this.#takeLock()
      if (isNew) createHeader(this.folder, this.#headerOf({ clean: true }))
      return await this.#readAll(readHeader(this.folder))
    } catch (error) {
      await this.#release()
      throw explain(this.folder, error)
    }
  }

  /** Marks the store as open for writing. Must be called before the first write. */
  begin (): void {
    this.#header = new HeaderFile(this.folder)
    this.#header.write(this.#headerOf({ clean: false }))
  }

  /** Writes all operations or none. Resolves when they are as durable as promised. */
  async write (operations: readonly Operation[], { sync = this.#durability === 'sync' } = {}): Promise<void> {
    const batch = this.#ledger.prepare(operations)
    this.#pending = batch
    await this.#opened.batch(batch.operations, { sync })
    this.#commit(batch)
    this.#header?.write(this.#headerOf({ clean: false }))
  }

  /** Opens LevelDB again after a failed write: its log may end in the middle of that write and must not be continued. */
  async reopen (): Promise<void> {
    await this.#level?.close()
    this.#level = await openLevel(this.folder, { createIfMissing: false })
    const sealed = await this.#level.get(manifestKey)
    const writes = sealed === undefined ? 0 : readManifest(sealed).writes
    if (this.#pending && writes === this.#pending.manifest.writes) this.#commit(this.#pending)
    this.#pending = undefined
    if (writes !== this.#ledger.manifest.writes) throw damaged(this.folder, 'writes are missing')
  }

  /** @param clean all writes succeeded and are synced */
  async close ({ clean }: { clean: boolean }): Promise<void> {
    if (clean) {
      this.#header?.write(this.#headerOf({ clean }))
      this.#header?.sync()
    }
    await this.#release()
  }

  get #opened (): ClassicLevel {
    if (!this.#level) throw new Error('the store is not open')
    return this.#level
  }

  #commit (batch: PendingBatch) {
    this.#ledger.commit(batch)
    this.#pending = undefined
  }

  async #isNew (): Promise<boolean> {
    await mkdir(this.folder, { recursive: true })
    await access(this.folder, constants.W_OK)
    const names = await readdir(this.folder)
    if (names.includes(headerName)) return false
    const others = names.filter(name => !harmless.has(name))
    if (others.length > 0) throw foreign(this.folder, others)
    return true
  }

  async #takeLock (): Promise<void> {
    const path = await realpath(this.folder)
    if (openFolders.has(path)) throw inUse(this.folder)
    openFolders.add(path)
    this.#lockedPath = path
    this.#lock = await openLevel(join(path, lockName))
  }

  async #readAll (header: Header): Promise<StoredState> {
    const names = await readdir(this.folder)
    // A process may end before its first write.
    const isEmpty = header.sequence === 0 && !names.includes('CURRENT')
    this.#ledger.reset(0)
    this.#continues = true
    const state = isEmpty ? new StateLoader(this.folder).finish() : await this.#readChecked(header)
    this.#level = await openLevel(this.folder, { createIfMissing: isEmpty })
    if (header.schema < schemaVersion) await this.#upgrade(this.#level, header)
    return state
  }

  async #readChecked (header: Header): Promise<StoredState> {
    const copy = join(this.folder, copyName)
    try {
      await copyDatabase(this.folder, copy)
      const state = await this.#readCopy(copy, header)
      this.#checkWrites(header)
      return state
    } finally {
      await rm(copy, { recursive: true, force: true })
    }
  }

  async #readCopy (copy: string, header: Header): Promise<StoredState> {
    const level = await openLevel(copy, { createIfMissing: false }).catch(error => { throw this.#unreadable(copy, error) })
    try {
      return await this.#readRecords(level, header)
    } catch (error) {
      throw this.#unreadable(copy, error)
    } finally {
      await level.close()
    }
  }

  async #readRecords (level: ClassicLevel, header: Header): Promise<StoredState> {
    const loader = new StateLoader(this.folder)
    let manifest: Manifest | undefined
    for await (const page of pagesOf(level)) {
      for (const [key, sealed] of page) {
        if (key === manifestKey) manifest = readManifest(sealed)
        else loader.add(key, header.schema === schemaVersion ? this.#unseal(key, sealed) : unsealOld(key, sealed))
      }
    }
    if (header.schema === schemaVersion && !this.#ledger.verify(manifest)) {
      throw damaged(this.folder, 'records are missing or outdated: a part of its files was overwritten or removed')
    }
    return loader.finish()
  }

  #unseal (key: string, sealed: string): string {
    const checked = unseal(key, sealed)
    if (!checked) throw damaged(this.folder, `the record '${key}' is damaged`)
    this.#ledger.add(key, checked.checksum)
    return checked.value
  }

  /** Records of schema 1 do not tell whether the newest writes are missing: then change numbers must not continue. */
  #checkWrites ({ schema, sequence, clean, boot, durability }: Header) {
    const { writes } = this.#ledger.manifest
    const survives = clean || boot === currentBoot
    const isComplete = schema === schemaVersion && writes >= sequence
    if (schema === schemaVersion && !isComplete && survives) {
      const finding = `the newest ${sequence - writes} of ${sequence} writes are missing: the end of a log was cut off or overwritten`
      throw damaged(this.folder, finding)
    }
    this.#continues = isComplete && (survives || durability === 'sync')
  }

  /** Adds checksums to records of schema 1. If it is interrupted, the next start repeats it. */
  async #upgrade (level: ClassicLevel, { sequence }: Header): Promise<void> {
    this.#ledger.reset(sequence)
    for await (const page of pagesOf(level)) {
      const records = page.filter(([key]) => key !== manifestKey)
      await this.write(records.map(([key, value]) => ({ type: 'put', key, value: unsealOld(key, value) })), { sync: true })
    }
    await this.write([], { sync: true })
    createHeader(this.folder, this.#headerOf({ clean: false }))
  }

  #unreadable (copy: string, error: unknown) {
    if (error instanceof Error && error.name === 'FastifyError') return error
    return damaged(this.folder, `its files are damaged or missing: ${causeOf(error).message.replaceAll(`${copy}/`, '')}`)
  }

  #headerOf ({ clean }: { clean: boolean }): Header {
    return { schema: schemaVersion, sequence: this.#ledger.manifest.writes, durability: this.#durability, clean, boot: currentBoot }
  }

  async #release (): Promise<void> {
    this.#header?.close()
    await this.#level?.close()
    await this.#lock?.close()
    if (this.#lockedPath !== undefined) openFolders.delete(this.#lockedPath)
    this.#lockedPath = this.#header = this.#level = this.#lock = undefined
  }
}

/** A value of schema 1, or one that an interrupted upgrade has sealed already. */
function unsealOld (key: string, value: string): string {
  return unseal(key, value)?.value ?? value
}
