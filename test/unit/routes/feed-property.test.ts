import fc from 'fast-check'
import t from 'tap'
import { Mirror, play, shapes, steps } from '../../support/feed-script.js'
import { build, until, type Harness } from '../../support/harness.js'
import { events, type EventReader } from './feed-helper.js'

/** Follows the feed in one way; continues where it was cut off. */
interface Follower {
  readonly mirror: Mirror
  resume (): Promise<void>
  cut (): void
  /** Takes what has come; whether that is all that there is. */
  take (): Promise<boolean>
}

class StreamFollower implements Follower {
  readonly mirror = new Mirror()
  readonly #registry: Harness
  readonly #token: string
  #stream: EventReader | undefined
  #read = 0
  #lastId = ''

  constructor (registry: Harness, token: string) {
    this.#registry = registry
    this.#token = token
  }

  async resume () {
    this.#read = 0
    this.#stream ??= await events(this.#registry, { token: this.#token, query: '?snapshot=true', headers: this.#lastId ? { 'last-event-id': this.#lastId } : {} })
  }

  cut () {
    this.#apply()
    this.#stream?.close()
    this.#stream = undefined
  }

  async take () {
    this.#apply()
    return this.#lastId === this.#registry.app.agentRegistry.revision
  }

  #apply () {
    const come = this.#stream?.all.slice(this.#read) ?? []
    this.#read += come.length
    for (const { id, event, data } of come) {
      this.#lastId = id
      if (event === 'resync') this.mirror.reset()
      else if (event === 'snapshot') this.mirror.add(data.agents)
      else if (event !== 'bookmark') this.mirror.change(data)
    }
  }
}

class PollFollower implements Follower {
  readonly mirror = new Mirror()
  readonly #registry: Harness
  readonly #token: string
  #since: string | undefined

  constructor (registry: Harness, token: string) {
    this.#registry = registry
    this.#token = token
  }

  async resume () { await this.take() }
  cut () { /* between two polls there is nothing to cut */ }

  async take () {
    if (this.#since === undefined) await this.#list()
    const { body } = await this.#registry.get(`/agents/changes?since=${this.#since}&limit=3`, { token: this.#token })
    this.#since = body.resync ? undefined : body.revision
    for (const change of body.changes) this.mirror.change(change)
    return this.#since === this.#registry.app.agentRegistry.revision
  }

  async #list () {
    const { body, headers } = await this.#registry.get('/agents', { token: this.#token })
    this.mirror.reset(body)
    this.#since = headers.get('x-registry-revision')!
  }
}

const followers = { 'a stream': StreamFollower, polls: PollFollower }

for (const [name, Follower] of Object.entries(followers)) {
  for (const ringSize of [1000, 3]) {
    t.test(`${name}: whoever is cut off and comes back ends with what the registry has, with room for ${ringSize} changes`, async t => {
      const registry = await build(t, { feed: { ringSize, bookmarkIntervalMs: 50 } })
      const admin = await registry.admin()
      const token = await registry.join('the-reader')
      await fc.assert(fc.asyncProperty(steps, async script => {
        const follower = new Follower(registry, token)
        await follower.resume()
        for (const step of script) await play(registry, admin, follower, step)
        await follower.resume()
        await until(() => follower.take(), 10_000)
        const actual = shapes(follower.mirror.agents.values())
        follower.cut()
        if (!t.same(actual, shapes(registry.app.agentRegistry.list()))) throw new Error('not the same')
      }), { numRuns: 12 })
    })
  }
}
