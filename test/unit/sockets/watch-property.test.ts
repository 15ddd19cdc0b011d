import fc from 'fast-check'
import t from 'tap'
import { Mirror, play, shapes, steps } from '../../support/feed-script.js'
import { build, until, type Client, type Harness, type Json } from '../../support/harness.js'

/** A client that follows one tier and continues where it was cut off. */
class Follower {
  readonly mirror = new Mirror()
  readonly #open: () => Promise<Client>
  #client: Client | undefined
  #read = 0
  revision: string | undefined

  constructor (open: () => Promise<Client>) {
    this.#open = open
  }

  async resume () {
    if (this.#client) return
    this.#client = await this.#open()
    this.#read = 0
    this.#client.send({ type: 'watch', ...(this.revision === undefined ? { snapshot: true } : { since: this.revision }) })
  }

  cut () {
    this.take()
    this.#client?.terminate()
    this.#client = undefined
  }

  take () {
    const frames = this.#client?.all.slice(this.#read) ?? []
    this.#read += frames.length
    for (const frame of frames) this.#apply(frame)
  }

  #apply (frame: Json) {
    if (frame.type === 'resync') this.mirror.reset()
    if (frame.type === 'agents_snapshot') {
      this.mirror.add(frame.agents)
      if (frame.last) this.revision = frame.revision
    }
    if (frame.type === 'agents_delta') for (const change of frame.changes) this.#change(change)
    if (frame.type === 'bookmark') this.revision = frame.revision
  }

  #change (change: Json) {
    this.mirror.change(change)
    this.revision = change.revision
  }
}

type Admin = Awaited<ReturnType<Harness['admin']>>
const tiers: Record<string, { open: (registry: Harness, admin: Admin) => Promise<Client>, shows: (agent: Json) => boolean }> = {
  public: { open: registry => registry.watcher(), shows: ({ state }) => state !== 'draining' },
  agents: { open: (registry, { token }) => registry.agentSocket(token), shows: () => true }
}

for (const [tier, { open, shows }] of Object.entries(tiers)) {
  for (const ringSize of [1000, 3]) {
    t.test(`${tier}: whoever is cut off and comes back ends with what the registry has, with room for ${ringSize} changes`, async t => {
      const registry = await build(t, { feed: { ringSize, bookmarkIntervalMs: 50 } })
      const admin = await registry.admin()
      await fc.assert(fc.asyncProperty(steps, async script => {
        const follower = new Follower(() => open(registry, admin))
        await follower.resume()
        for (const step of script) await play(registry, admin, follower, step)
        await follower.resume()
        await until(() => {
          follower.take()
          return follower.revision === registry.app.agentRegistry.revision
        }, 10_000)
        const expected = shapes(registry.app.agentRegistry.list().filter(shows))
        const actual = shapes(follower.mirror.agents.values())
        follower.cut()
        if (!t.same(actual, expected)) throw new Error('not the same')
      }), { numRuns: 12 })
    })
  }
}
