import fc from 'fast-check'
import { WebSocket } from 'ws'
import t from 'tap'
import { closeCodes } from '../../../src/protocol/codes.js'
import { pack, unpack } from '../../../src/protocol/message-pack.js'
import { build, type Client, type Harness, type Json, until } from '../../support/harness.js'
import { Mirror, play, shapes, steps } from '../../support/feed-script.js'
import { lengthOf, seedOf, seed } from '../../support/lengths.js'
import { assertAlive, openers, undocumentedFrames } from './helper.js'
import { dashboard, strange } from './dashboard-helper.js'
import { Noise } from './noise.js'

t.setTimeout(300_000)

type Sent = string | Buffer | Record<string, unknown>

const types = [
  'ping', 'pong', 'watch', 'unwatch', 'get_discovery', 'status', 'auth', 'nope', '__proto__', 'constructor', 'toString', 'error'
]
const revision = fc.oneof(fc.string(), fc.tuple(fc.string(), fc.nat()).map(parts => parts.join(':')))
const odd = fc.oneof(fc.jsonValue(), fc.constantFrom<unknown>('alive', 'draining', 'testing', 1e308, -1, '2', ['cap one']))

/** Frames that are mostly almost valid. */
const frames: fc.Arbitrary<Sent> = fc.oneof(
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
  { weight: 1, arbitrary: fc.json() },
  { weight: 1, arbitrary: fc.constantFrom('ping', ' PONG ', '{', '[]', 'null', '{"type":"ping","__proto__":1}', `"${'x'.repeat(5000)}"`) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 50 }).map(bytes => Buffer.from(bytes)) },
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.oneof({ weight: 9, arbitrary: fc.constantFrom<unknown>(...types) }, { weight: 1, arbitrary: fc.jsonValue() }),
      requestId: fc.uuid(),
      since: revision,
      snapshot: fc.oneof(fc.boolean(), odd),
      filter: fc.oneof(fc.record({
        agent_type: fc.constantFrom<unknown>('testing', 'x', 5), capabilities: odd, status: odd, [`${'__proto__'}x`]: odd
      }, { requiredKeys: [] }), odd),
      page: odd,
      page_size: odd,
      agent_type: odd,
      status: odd
    }, { requiredKeys: ['type'] })
  }
)
const scripts = fc.array(frames, { minLength: 1, maxLength: 25 })

const documented: readonly number[] = Object.values(closeCodes).filter(code => code !== closeCodes.abnormal)

/** Requests with exactly one answer: a pong has none, and poisoned or unnamed ones cannot be matched. */
function requestIds (script: Sent[]): string[] {
  return script.flatMap(frame => typeof frame === 'object' && !Buffer.isBuffer(frame) && frame.type !== 'pong' &&
    typeof frame.requestId === 'string'
    ? [frame.requestId]
    : [])
}

const isAnswer = (frame: Json) => typeof frame === 'object' && !Array.isArray(frame) && frame.requestId !== undefined

const options = {
  lease: { durationMs: 60_000 },
  sockets: { maxUnauthenticatedPerAddress: 64 },
  publicWs: { burst: 100_000, messagesPerSecond: 100_000 },
  agentsWs: { burst: 100_000, messagesPerSecond: 100_000 }
}

async function playRandom (client: Client, script: Sent[]) {
  for (const frame of script) client.send(frame)
}

for (const tier of ['public', 'agents'] as const) {
  t.test(`${tier}: each random request has one catalogued answer, and the socket stays open (TEST_SEED=${seed})`, async t => {
    const registry: Harness = await build(t, options)
    await fc.assert(fc.asyncProperty(scripts, async script => {
      const client = await openers[tier](registry)
      await playRandom(client, script)
      await assertAlive(client)
      const strange = undocumentedFrames(tier, client.all)
      if (strange.length > 0) throw new Error(`strange: ${JSON.stringify(strange)}`)
      const answered = client.all.filter(isAnswer).map(({ requestId }) => requestId)
      for (const id of requestIds(script)) {
        if (answered.filter(one => one === id).length !== 1) throw new Error(`${id} has not one answer`)
      }
      client.close(1000)
      await client.closed
    }), { numRuns: 150 })
    t.equal((await registry.get('/health')).body.status, 'healthy')
  })
}

t.test(`agents: random frames before a token leave the socket open or close it with a reason code (TEST_SEED=${seed})`, async t => {
  const registry = await build(t, options)
  const token = await registry.join()
  await fc.assert(fc.asyncProperty(scripts, fc.nat({ max: 24 }), async (script, at) => {
    const client = registry.socket('/agents/ws')
    await client.next('auth_required')
    await playRandom(client, script.slice(0, at))
    client.send({ token })
    await playRandom(client, script.slice(at))
    client.send({ type: 'ping', requestId: 'last' })
    const isClosed = () => client.ws.readyState === client.ws.CLOSED
    await until(() => isClosed() || client.all.some(({ requestId }) => requestId === 'last'))
    const strange = undocumentedFrames('agents', client.all)
    if (strange.length > 0) throw new Error(`strange: ${JSON.stringify(strange)}`)
    if (!isClosed()) client.close(1000)
    const { code } = await client.closed
    if (!documented.includes(code)) throw new Error(`closed with ${code}`)
  }), { numRuns: 150 })
  t.match(registry.app.agentRegistry.get('agent-one'), { agent_id: 'agent-one' })
})

t.test('agents: after all sockets have closed only the agent remains', async t => {
  const registry = await build(t, options)
  const client = await openers.agents(registry)
  await playRandom(client, [{ type: 'goodbye' }, '{', { type: 'status', status: 'alive' }])
  t.equal((await client.closed).code, 1000)
  t.strictSame(registry.app.agentRegistry.list(), [])
})

/** A client that follows one tier and resumes after a disconnect. */
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
    const title = `${tier}: a watcher that reconnects ends with the registry's agents` +
      `, with a ring of ${ringSize} changes (TEST_SEED=${seed})`
    t.test(title, async t => {
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

const noiseSeed = seedOf('NOISE_SEED', 20_261)
const frameCount = lengthOf('NOISE_FRAMES', { short: 20_000, long: 100_000 })
const together = 250

const unlimited = { messagesPerSecond: 1_000_000, burst: 1_000_000 }
const noiseOptions = {
  lease: { durationMs: 600_000 },
  publicWs: unlimited,
  agentsWs: { ...unlimited, intervalMs: 50 },
  dashboardWs: unlimited,
  sockets: {
    messagesPerSecondPerPrincipal: 1_000_000,
    burstPerPrincipal: 1_000_000,
    messagesPerSecondPerAddress: 1_000_000,
    burstPerAddress: 1_000_000,
    maxBufferedBytes: 67_108_864
  }
}

/** Sends random frames with a ping after each group. @returns the requests without exactly one answer */
async function sendNoise (client: Client, noise: Noise, count: number): Promise<string[]> {
  const openIds = new Set<string>()
  for (let sent = 1; sent <= count; sent++) {
    const { frame, requestId } = noise.next()
    if (requestId !== undefined) openIds.add(requestId)
    client.send(frame)
    if (sent % together === 0) await assertAlive(client)
  }
  await assertAlive(client)
  const answers = new Map<string, number>()
  for (const frame of client.all) if (isReply(frame)) answers.set(frame.requestId, (answers.get(frame.requestId) ?? 0) + 1)
  return [...openIds].filter(id => answers.get(id) !== 1).map(id => `${id}: ${answers.get(id) ?? 0} answers`)
}

const isReply = (frame: Json) => typeof frame === 'object' && !Array.isArray(frame) && typeof frame.requestId === 'string'

async function openAll (registry: Harness) {
  const { token } = await registry.admin()
  return {
    public: [await registry.watcher(), await registry.watcher()],
    agents: [await registry.agentSocket(await registry.join('agent-loud')), await registry.agentSocket(token)],
    dashboard: [await dashboard(registry, token), await dashboard(registry, token)]
  }
}

t.test(`noise: each of ${frameCount} random frames has its right answer, and every tier stays open (NOISE_SEED=${noiseSeed})`, async t => {
  const registry = await build(t, noiseOptions)
  for (let i = 0; i < 5; i++) await registry.join(`agent-${i}`)
  const tiers = await openAll(registry)
  const clients = Object.values(tiers).flat()
  const count = Math.ceil(frameCount / clients.length)
  const unanswered = await Promise.all(clients.map((client, i) => sendNoise(client, new Noise(noiseSeed + i), count)))
  t.strictSame(unanswered.flat().slice(0, 10), [])
  t.strictSame([...tiers.public.flatMap(({ all }) => undocumentedFrames('public', all)), ...tiers.agents.flatMap(({ all }) =>
    undocumentedFrames('agents', all)), ...tiers.dashboard.flatMap(strange)].slice(0, 5), [])
  t.notOk(clients.some(({ all }) => all.some((frame: Json) => frame.code === 'internal_error')), 'there was no internal error')
  t.equal((await registry.get('/health')).body.status, 'healthy')
  t.equal(registry.app.agentRegistry.list().length, 6)
})

t.test(`noise: random bytes as MessagePack are decoded or refused, and the socket stays open (NOISE_SEED=${noiseSeed})`, async t => {
  const registry = await build(t, noiseOptions)
  const ws = new WebSocket(`${registry.base.replace('http', 'ws')}/public/ws`, 'agent-registry.msgpack')
  const answers: Json[] = []
  ws.on('message', (data: Buffer, isBinary) => { answers.push(isBinary ? unpack(data) : String(data)) })
  await until(() => answers.length > 0)
  const noise = new Noise(noiseSeed)
  for (let i = 0; i < 10_000; i++) {
    const { frame } = noise.next()
    ws.send(Buffer.from(frame as string), { binary: true })
  }
  ws.send(pack(JSON.stringify({ type: 'ping', requestId: 'last' })))
  await until(() => answers.some(({ requestId }) => requestId === 'last'), 30_000)
  t.ok(answers.some(({ code }) => code === 'malformed_message'))
  t.notOk(answers.some(({ code }) => code === 'internal_error'))
  ws.terminate()
})
