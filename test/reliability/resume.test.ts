import t from 'tap'
import { registration, sleep, type Remote } from '../support/harness.js'
import { builtServer } from '../support/server-process.js'
import { startFleet, startRedis, type Member } from '../support/fleet.js'
import { lengthOf } from '../support/lengths.js'
import { Watcher, type Carrier } from '../support/watchers.js'

const program = builtServer(t)
const seconds = lengthOf('RELIABILITY_SECONDS', { short: 15, long: 60 })
t.setTimeout((seconds + 300) * 1000)
const watcherCount = 200
const writesPerSecond = 300
const agentCount = 60

const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)]!
type Admin = Awaited<ReturnType<Remote['admin']>>

/** Changes agents at random processes until it is stopped. Requests to a killed process may fail. */
class Writers {
  acknowledged = 0
  readonly #fleet: readonly Remote[]
  readonly #admin: Admin
  readonly #lanes: Array<Promise<void>>
  #isOver = false

  constructor (fleet: readonly Remote[], admin: Admin) {
    this.#fleet = fleet
    this.#admin = admin
    this.#lanes = Array.from({ length: agentCount }, (_, i) => this.#lane(`agent-${i}`))
  }

  async stop (): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#lanes)
  }

  async #lane (id: string) {
    const pauseMs = 1000 * agentCount / writesPerSecond
    for (let next = performance.now(); !this.#isOver; next += pauseMs) {
      await this.#write(id)
      await sleep(Math.max(0, next + pauseMs - performance.now()))
    }
  }

  async #write (id: string) {
    const member = pick(this.#fleet)
    const kind = Math.random()
    try {
      const answer = await (kind < 0.2
        ? member.post('/agents/register', { ...this.#admin, body: registration(id) })
        : kind < 0.3
          ? member.delete(`/agents/${id}`, this.#admin)
          : member.post(`/agents/${id}/status`, { ...this.#admin, body: { status: pick(['draining', 'maintenance', 'alive']) } }))
      if (answer.status === 200) this.acknowledged++
    } catch {
      // The process was killed.
    }
  }
}

/** Causes random failures until `until` (ms by performance.now); killed processes restart at once. */
async function injectFaults (fleet: readonly Member[], watchers: readonly Watcher[], until: number): Promise<number> {
  let kills = 0
  async function cutSockets () {
    while (performance.now() < until) {
      for (let i = 0; i < 5; i++) pick(watchers).cut()
      await sleep(200)
    }
  }
  async function killProcesses () {
    while (performance.now() < until) {
      const member = fleet[kills % fleet.length]!
      await member.kill(kills++ % 3 === 2 ? 'SIGTERM' : 'SIGKILL')
      await member.restart()
      await sleep(Math.random() * 2000)
    }
  }
  await Promise.all([cutSockets(), killProcesses()])
  return kills
}

t.test(`resume: ${watcherCount} watchers receive each change once while processes and connections fail for ${seconds} s`, async t => {
  const { redisUrl } = await startRedis(t)
  const env = { AGENT_HEARTBEAT_TIMEOUT: '3600', ARCP_FEED_MAX_STREAMS_PER_CALLER: '1000', ARCP_BOOKMARK_INTERVAL: '2' }
  const fleet = await startFleet(t, { program, size: 3, redisUrl, env })
  const admin = await fleet[0]!.admin()
  const carriers: Carrier[] = ['agents', 'events']
  const watchers = Array.from({ length: watcherCount }, (_, i) => {
    return new Watcher({ carrier: carriers[i % 2]!, token: () => admin.token, headers: admin.headers, place: () => pick(fleet) })
  })
  t.teardown(() => { for (const watcher of watchers) watcher.end() })
  const writers = new Writers(fleet, admin)
  const kills = await injectFaults(fleet, watchers, performance.now() + seconds * 1000)
  await writers.stop()

  const revisions = await Promise.all(fleet.map(async member => (await member.get('/agents', admin)).headers.get('x-registry-revision')!))
  const newest = revisions.toSorted((a, b) => Number(a.split(':')[1]) - Number(b.split(':')[1])).at(-1)!
  await Promise.all(watchers.map(watcher => watcher.reach(newest)))
  await Promise.all(watchers.map(watcher => watcher.bookmarked()))
  const total = (name: 'changes' | 'resyncs') => watchers.reduce((sum, { view }) => sum + view.tally[name], 0)
  t.comment(`${kills} kills, ${writers.acknowledged} writes acknowledged, revision ${newest}, ${total('changes')} changes received`)
  t.strictSame(watchers.flatMap(({ view }) => view.faults).slice(0, 10), [],
    'every watcher received every change once, in order, and matches the registry')
  t.equal(total('resyncs'), 0, 'each watcher resumed at its position')
  t.strictSame([...new Set(watchers.map(({ view }) => `${view.revision} ${view.digest}`))].length, 1)
  t.ok(kills > 2 && total('changes') > watcherCount * 100)
})
