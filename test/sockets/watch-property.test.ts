import fc from 'fast-check'
import t from 'tap'
import { build, until, type Client, type Harness, type Json } from '../helper.js'

type Step = { do: 'join' | 'leave' | 'patch' | 'drain' | 'alive' | 'beat' | 'cut' | 'resume' | 'settle', agent: number }

const steps = fc.array(fc.record({
  do: fc.constantFrom<Step['do']>('join', 'join', 'leave', 'patch', 'drain', 'alive', 'beat', 'cut', 'resume', 'settle'),
  agent: fc.integer({ min: 0, max: 5 })
}), { minLength: 5, maxLength: 60 })

/** A client that follows one tier and continues where it was cut off. */
class Follower {
  readonly agents = new Map<string, Json>()
  readonly seen = new Set<string>()
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
    if (frame.type === 'resync') this.agents.clear()
    if (frame.type === 'agents_snapshot') {
      for (const agent of frame.agents) this.agents.set(agent.agent_id, agent)
      if (frame.last) this.revision = frame.revision
    }
    if (frame.type === 'agents_delta') for (const change of frame.changes) this.#change(change)
    if (frame.type === 'bookmark') this.revision = frame.revision
  }

  #change ({ op, agent_id: id, agent, state, revision }: Json) {
    if (this.seen.has(revision)) throw new Error(`${revision} came twice`)
    this.seen.add(revision)
    this.revision = revision
    if (op === 'remove') this.agents.delete(id)
    else this.agents.set(id, op === 'put' ? agent : { ...this.agents.get(id), state, revision })
  }
}

async function act (registry: Harness, { do: what, agent }: Step) {
  const id = `agent-${agent}`
  const { agentRegistry } = registry.app
  if (what === 'join') return registry.join(id, { name: `Name ${Math.random()}`.slice(0, 30) })
  if (!agentRegistry.get(id)) return
  if (what === 'leave') return agentRegistry.unregister(id)
  if (what === 'patch') return registry.patch(`/agents/${id}`, { ...await admin(registry), body: { name: `Patched ${agent}` } })
  if (what === 'drain' || what === 'alive') return agentRegistry.setStatus(id, what === 'drain' ? 'draining' : 'alive')
  if (what === 'beat') return agentRegistry.heartbeat(id)
}

const admins = new Map<Harness, ReturnType<Harness['admin']>>()
function admin (registry: Harness) {
  const known = admins.get(registry) ?? registry.admin()
  admins.set(registry, known)
  return known
}

const shape = ({ agent_id: id, name, state, revision }: Json) => ({ id, name, state, revision })
const shapes = (agents: Iterable<Json>) => Array.from(agents, shape).sort((a, b) => a.id < b.id ? -1 : 1)

const tiers: Record<string, { open: (registry: Harness) => Promise<Client>, shows: (agent: Json) => boolean }> = {
  public: { open: registry => registry.watcher(), shows: ({ state }) => state !== 'draining' },
  agents: { open: async registry => registry.agentSocket((await admin(registry)).token), shows: () => true }
}

for (const [tier, { open, shows }] of Object.entries(tiers)) {
  for (const ringSize of [1000, 3]) {
    t.test(`${tier}: whoever is cut off and comes back ends with what the registry has, with room for ${ringSize} changes`, async t => {
      const registry = await build(t, { feed: { ringSize, bookmarkIntervalMs: 50 } })
      await fc.assert(fc.asyncProperty(steps, async script => {
        const follower = new Follower(() => open(registry))
        await follower.resume()
        for (const step of script) {
          if (step.do === 'cut') follower.cut()
          else if (step.do === 'resume') await follower.resume()
          else if (step.do === 'settle') await new Promise(setImmediate)
          else await act(registry, step)
        }
        await follower.resume()
        await until(() => {
          follower.take()
          return follower.revision === registry.app.agentRegistry.revision
        }, 10_000)
        const expected = shapes(registry.app.agentRegistry.list().filter(shows))
        const actual = shapes(follower.agents.values())
        follower.cut()
        if (!t.same(actual, expected)) throw new Error('not the same')
      }), { numRuns: 12 })
    })
  }
}
