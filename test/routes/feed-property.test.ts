import fc from 'fast-check'
import t from 'tap'
import { build, until, type Harness, type Json } from '../helper.js'
import { events, type EventReader } from './feed-helper.js'

type Step = { do: 'join' | 'leave' | 'patch' | 'drain' | 'alive' | 'beat' | 'cut' | 'resume' | 'settle', agent: number }

const steps = fc.array(fc.record({
  do: fc.constantFrom<Step['do']>('join', 'join', 'leave', 'patch', 'drain', 'alive', 'beat', 'cut', 'resume', 'settle'),
  agent: fc.integer({ min: 0, max: 5 })
}), { minLength: 5, maxLength: 60 })

/** What a reader knows, who is told of changes in one way or another. */
class Mirror {
  readonly agents = new Map<string, Json>()
  readonly #seen = new Set<string>()

  reset (agents: Json[] = []) {
    this.agents.clear()
    this.add(agents)
  }

  add (agents: Json[]) {
    for (const agent of agents) this.agents.set(agent.agent_id, agent)
  }

  change ({ op, agent_id: id, agent, state, revision }: Json) {
    if (this.#seen.has(revision)) throw new Error(`${revision} came twice`)
    this.#seen.add(revision)
    if (op === 'remove') this.agents.delete(id)
    else this.agents.set(id, op === 'put' ? agent : { ...this.agents.get(id), state, revision })
  }
}

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

async function act (registry: Harness, patcher: { token: string, headers: Record<string, string> }, { do: what, agent }: Step) {
  const id = `agent-${agent}`
  const { agentRegistry } = registry.app
  if (what === 'join') return registry.join(id, { name: `Name ${Math.random()}`.slice(0, 30) })
  if (!agentRegistry.get(id)) return
  if (what === 'leave') return agentRegistry.unregister(id)
  if (what === 'patch') return registry.patch(`/agents/${id}`, { ...patcher, body: { name: `Patched ${agent}` } })
  if (what === 'drain' || what === 'alive') return agentRegistry.setStatus(id, what === 'drain' ? 'draining' : 'alive')
  return agentRegistry.heartbeat(id)
}

async function play (step: Step, follower: Follower, change: () => Promise<unknown>) {
  if (step.do === 'cut') return follower.cut()
  if (step.do === 'resume') return follower.resume()
  if (step.do === 'settle') return new Promise(setImmediate)
  return change()
}

const shape = ({ agent_id: id, name, state, revision }: Json) => ({ id, name, state, revision })
const shapes = (agents: Iterable<Json>) => Array.from(agents, shape).sort((a, b) => a.id < b.id ? -1 : 1)
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
        for (const step of script) await play(step, follower, () => act(registry, admin, step))
        await follower.resume()
        await until(() => follower.take(), 10_000)
        const actual = shapes(follower.mirror.agents.values())
        follower.cut()
        if (!t.same(actual, shapes(registry.app.agentRegistry.list()))) throw new Error('not the same')
      }), { numRuns: 12 })
    })
  }
}
