import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { AgentInfo } from '../../src/index.js'
import { type Json, password, registration, Remote, secret, until } from '../support/harness.js'
import { lengthOf, seedOf } from '../support/lengths.js'
import { builtServer, start, type Started, urlOf } from '../support/server-process.js'
import { startFleet, startRedis } from '../support/fleet.js'
import { kindsOfOperation, ModelAgent, type Operation } from '../support/agent-model.js'
import { Watcher } from '../support/watchers.js'

t.setTimeout(600_000)

/** Number of kills in each of the concurrent lanes. */
const kills = lengthOf('LEVEL_KILLS', { short: 10, long: 50 })
const lanes = 2
const clientsPerLane = 4
const idsPerClient = 5

/** Expected state of the agents of a client: the last acknowledged text (null for none), and other possible texts. */
class Model {
  readonly #may = new Map<string, Set<string | null>>()

  get ids () { return [...this.#may.keys()] }

  /** Until the next acknowledged or observed text, both are possible. */
  begins (id: string, text: string | null) {
    this.#may.set(id, new Set([...this.#may.get(id) ?? [null], text]))
  }

  settles (id: string, text: string | null) {
    this.#may.set(id, new Set([text]))
  }

  allows (id: string, text: string | null): boolean {
    return this.#may.get(id)?.has(text) ?? text === null
  }
}

type Admin = Awaited<ReturnType<Remote['admin']>>

/** A stand-alone server that is killed and restarted on one folder. */
class Victim {
  readonly #t: Test
  readonly #program: string
  readonly #folder: string
  #process: Started | undefined
  remote = new Remote('')

  constructor (t: Test, program: string, folder: string) {
    this.#t = t
    this.#program = program
    this.#folder = folder
  }

  async start (): Promise<void> {
    const env = {
      STORE: 'level',
      ARCP_DATA_DIR: 'data',
      PORT: '0',
      LOG_LEVEL: 'silent',
      ADMIN_PASSWORD: password,
      JWT_SECRET: secret,
      ARCP_SEARCH: 'false',
      ARCP_ROUTES_DOCS: 'false'
    }
    this.#process = start(this.#t, this.#folder, { env, args: [this.#program] })
    this.remote = new Remote(await urlOf(this.#process))
  }

  async kill (): Promise<void> {
    this.#process!.child.kill('SIGKILL')
    await this.#process!.ended
  }
}

/** Calls for the ids of one client in sequence until the server ends. @returns the number of acknowledged calls */
async function work (remote: Remote, admin: Admin, model: Model, prefix: string, round: number): Promise<number> {
  let done = 0
  try {
    for (;;) {
      const id = `${prefix}-${done % idsPerClient}`
      const leaves = Math.random() < 0.4
      const text = leaves ? null : `round ${round}, call ${done} of ${prefix}`
      model.begins(id, text)
      const { status } = text === null
        ? await remote.delete(`/agents/${id}`, admin)
        : await remote.post(
          '/agents/register', { ...admin, body: registration(id, { context_brief: text, metadata: { text, list: Array(20).fill(text) } }) }
        )
      if (status !== 200 && status !== 404) throw new Error(`answered ${status}`, { cause: status })
      model.settles(id, text)
      done++
    }
  } catch (error) {
    // Only errors caused by the end of the server are expected.
    if ((error as Error).cause !== undefined && typeof (error as Error).cause === 'number') throw error
    return done
  }
}

/** Checks that the server has exactly the expected agents, each of them complete. */
async function check (t: Test, { remote }: Victim, admin: Admin, model: Model): Promise<void> {
  const { status, body } = await remote.get('/agents', admin)
  t.equal(status, 200, 'the session of the admin survives the restart')
  const found = new Map((body as AgentInfo[]).map(agent => [agent.agent_id, agent]))
  for (const id of new Set([...model.ids, ...found.keys()])) {
    const agent = found.get(id)
    const text = agent?.context_brief ?? null
    if (!model.allows(id, text)) t.fail(`${id} is ${text === null ? 'lost' : `'${text}'`}`)
    if (agent && agent.metadata.text !== text) t.fail(`${id} is stored in part`)
    model.settles(id, text)
  }
}

/** Epoch and number of the newest change. */
async function position ({ remote }: Victim, admin: Admin): Promise<{ epoch: string, n: number }> {
  const { body } = await remote.get('/agents/changes', admin)
  const [epoch = '', n] = String(body.revision).split(':')
  return { epoch, n: Number(n) }
}

async function lane (t: Test, program: string, folder: string, name: string): Promise<void> {
  const model = new Model()
  const victim = new Victim(t, program, mkdtempSync(join(folder, name)))
  await victim.start()
  const admin = await victim.remote.admin()
  let before = await position(victim, admin)
  let acknowledged = 0
  for (let round = 0; round < kills; round++) {
    const { remote } = victim
    const clients = Array.from({ length: clientsPerLane }, (_, n) => work(remote, admin, model, `${name}-${n}`, round))
    await new Promise(resolve => { setTimeout(resolve, 20 + Math.random() * 150) })
    await victim.kill()
    for (const count of await Promise.all(clients)) acknowledged += count
    await victim.start()
    await check(t, victim, admin, model)
    const after = await position(victim, admin)
    t.equal(after.epoch, before.epoch, 'the epoch stays the same')
    t.ok(after.n >= before.n, 'revisions continue')
    before = after
  }
  t.ok(acknowledged > kills, `${acknowledged} calls were acknowledged`)
}

t.test('level storage: a repeatedly killed server keeps every acknowledged write, and no partial one', { timeout: 600_000 }, async t => {
  const program = builtServer(t)
  const folder = mkdtempSync(join(tmpdir(), 'level-kill-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  await Promise.all(Array.from({ length: lanes }, (_, n) => lane(t, program, folder, `lane${n}`)))
})

const program = builtServer(t)
const seed = seedOf('RELIABILITY_SEED', 20_261_120)
const agents = 50
const operationsEach = lengthOf('RELIABILITY_OPERATIONS', { short: 100, long: 400 })

const place = fc.nat({ max: 2 })
const operation: fc.Arbitrary<Operation> = fc.record({ does: fc.constantFrom(...kindsOfOperation), at: place, lookAt: place })
const script = fc.array(operation, { minLength: operationsEach, maxLength: operationsEach, size: 'max' })

t.test(`${agents * operationsEach} random operations on three processes end in the state of a single model (seed ${seed})`, async t => {
  const { redisUrl } = await startRedis(t)
  const fleet = await startFleet(t, { program, size: 3, redisUrl, env: { AGENT_HEARTBEAT_TIMEOUT: '600' } })
  const admin = await fleet[0]!.admin()
  const watchers = fleet.map(member => new Watcher({ carrier: 'agents', token: () => admin.token, place: () => member }))
  t.teardown(() => { for (const watcher of watchers) watcher.end() })
  const models = await Promise.all(Array.from({ length: agents }, async (_, i) => {
    const { body } = await fleet[i % 3]!.register(`agent-${i}`)
    return new ModelAgent(fleet, admin, body)
  }))
  const scripts = fc.sample(script, { numRuns: agents, seed })
  await Promise.all(models.map(async (model, i) => {
    for (const step of scripts[i]!) await model.run(step)
  }))
  t.strictSame(models.flatMap(({ faults }) => faults).slice(0, 20), [], 'every response matches the model')

  const revisions = await Promise.all(fleet.map(async member => (await member.get('/agents', admin)).headers.get('x-registry-revision')!))
  const newest = revisions.sort((a, b) => Number(a.split(':')[1]) - Number(b.split(':')[1])).at(-1)!
  for (const [index, member] of fleet.entries()) {
    let differences: string[] = []
    // Reports arrive outside of the changes that the revision counts.
    await until(async () => {
      const {
        body
      } = await member.get('/agents?include_metrics=true', { ...admin, headers: { ...admin.headers, 'x-min-revision': newest } })
      const byId = new Map<string, Json>(body.map((record: Json) => [record.agent_id, record]))
      differences = models.flatMap(model => model.difference(byId.get(model.id) ?? null) ?? [])
      return differences.length === 0
    }).catch(() => {})
    t.strictSame(differences, [], `process ${index} matches the model`)
  }
  await Promise.all(watchers.map(watcher => watcher.reach(newest)))
  await Promise.all(watchers.map(watcher => watcher.bookmarked()))
  t.strictSame(watchers.map(({ view }) => view.faults), [[], [], []], 'every watcher received every change once, and the digests match')
  t.equal(new Set(watchers.map(({ view }) => `${view.revision} ${view.digest}`)).size, 1)
})
