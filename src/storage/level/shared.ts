import { LevelDatabase, type Durability } from './database.js'
import { Journal } from './journal.js'
import { openAndLoad, type Stored } from './load.js'

/** One database and its journal for several users: the first that opens it opens it, the last that closes it closes it. */
export class SharedDatabase {
  readonly database: LevelDatabase
  readonly journal: Journal
  #users = 0
  #stored: Promise<Stored> | undefined

  constructor (path: string, durability: Durability) {
    this.database = new LevelDatabase(path, durability)
    this.journal = new Journal(this.database)
  }

  /** @throws a refusal that says what to do */
  async open (): Promise<Stored> {
    this.#users++
    this.#stored ??= this.#open()
    try {
      return await this.#stored
    } catch (error) {
      this.#users = 0
      this.#stored = undefined
      throw error
    }
  }

  async close (): Promise<void> {
    if (this.#users === 0 || --this.#users > 0) return
    this.#stored = undefined
    await this.database.close({ clean: await this.journal.stop() })
  }

  async #open (): Promise<Stored> {
    const stored = await openAndLoad(this.database)
    this.database.begin()
    this.journal.start()
    return stored
  }
}
