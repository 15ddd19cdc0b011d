import type { Clock } from '../clock.js'
import type { Watcher, SharedBatches } from './watcher.js'

/** All watchers of a process. Changes of one tick leave in one frame. */
export class Watchers {
  readonly #watchers = new Set<Watcher>()
  readonly #bookmarkIntervalMs: number
  readonly #now: Clock
  #flush: NodeJS.Immediate | undefined

  constructor ({ bookmarkIntervalMs, now }: { bookmarkIntervalMs: number, now: Clock }) {
    this.#bookmarkIntervalMs = bookmarkIntervalMs
    this.#now = now
  }

  add (watcher: Watcher): void {
    watcher.bookmarkedAt = this.#now()
    this.#watchers.add(watcher)
  }

  delete (watcher: Watcher): void {
    this.#watchers.delete(watcher)
  }

  changed (): void {
    if (this.#watchers.size > 0) this.#flush ??= setImmediate(() => this.#pump())
  }

  /** Sends the bookmarks that are due. */
  tick (now: number): void {
    for (const watcher of this.#watchers) {
      if (now - watcher.bookmarkedAt >= this.#bookmarkIntervalMs && watcher.bookmark()) watcher.bookmarkedAt = now
    }
  }

  close (): void {
    clearImmediate(this.#flush)
    this.#watchers.clear()
  }

  #pump () {
    this.#flush = undefined
    const shared: SharedBatches = new Map()
    for (const watcher of this.#watchers) watcher.pump(shared)
  }
}
