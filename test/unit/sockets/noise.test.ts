import t from 'tap'
import { WebSocket } from 'ws'
import { pack, unpack } from '../../../src/protocol/message-pack.js'
import { build, until, type Client, type Harness, type Json } from '../../support/harness.js'
import { lengthOf, seedOf } from '../../support/lengths.js'
import { dashboard, strange } from './dashboard-helper.js'
import { assertAlive, strangeFrames } from './helper.js'
import { Noise } from './noise.js'

const seed = seedOf('NOISE_SEED', 20_261)
const frameCount = lengthOf('NOISE_FRAMES', { short: 20_000, long: 100_000 })
const together = 250
t.setTimeout(300_000)

const unlimited = { messagesPerSecond: 1_000_000, burst: 1_000_000 }
const options = {
  lease: { durationMs: 600_000 },
  publicWs: unlimited,
  agentsWs: { ...unlimited, intervalMs: 50 },
  dashboardWs: unlimited,
  sockets: { messagesPerSecondPerPrincipal: 1_000_000, burstPerPrincipal: 1_000_000, messagesPerSecondPerAddress: 1_000_000, burstPerAddress: 1_000_000, maxBufferedBytes: 67_108_864 }
}

/** Sends so many frames, and a ping that has to be answered after each few; requests that have not one answer. */
async function shout (client: Client, noise: Noise, count: number): Promise<string[]> {
  const owed = new Set<string>()
  for (let sent = 1; sent <= count; sent++) {
    const { frame, requestId } = noise.next()
    if (requestId !== undefined) owed.add(requestId)
    client.send(frame)
    if (sent % together === 0) await assertAlive(client)
  }
  await assertAlive(client)
  const answers = new Map<string, number>()
  for (const frame of client.all) if (isAnswer(frame)) answers.set(frame.requestId, (answers.get(frame.requestId) ?? 0) + 1)
  return [...owed].filter(id => answers.get(id) !== 1).map(id => `${id}: ${answers.get(id) ?? 0} answers`)
}

const isAnswer = (frame: Json) => typeof frame === 'object' && !Array.isArray(frame) && typeof frame.requestId === 'string'

async function openAll (registry: Harness) {
  const { token } = await registry.admin()
  return {
    public: [await registry.watcher(), await registry.watcher()],
    agents: [await registry.agentSocket(await registry.join('agent-loud')), await registry.agentSocket(token)],
    dashboard: [await dashboard(registry, token), await dashboard(registry, token)]
  }
}

t.test(`of ${frameCount} random frames each is answered as it must be, and every tier lives on (NOISE_SEED=${seed})`, async t => {
  const registry = await build(t, options)
  for (let i = 0; i < 5; i++) await registry.join(`agent-${i}`)
  const tiers = await openAll(registry)
  const clients = Object.values(tiers).flat()
  const count = Math.ceil(frameCount / clients.length)
  const unanswered = await Promise.all(clients.map((client, i) => shout(client, new Noise(seed + i), count)))
  t.strictSame(unanswered.flat().slice(0, 10), [])
  t.strictSame([...tiers.public.flatMap(({ all }) => strangeFrames('public', all)), ...tiers.agents.flatMap(({ all }) => strangeFrames('agents', all)), ...tiers.dashboard.flatMap(strange)].slice(0, 5), [])
  t.notOk(clients.some(({ all }) => all.some((frame: Json) => frame.code === 'internal_error')), 'nothing of it was a fault of ours')
  t.equal((await registry.get('/health')).body.status, 'healthy')
  t.equal(registry.app.agentRegistry.list().length, 6)
})

t.test(`random bytes are no MessagePack, or they are, and the socket lives on (NOISE_SEED=${seed})`, async t => {
  const registry = await build(t, options)
  const ws = new WebSocket(`${registry.base.replace('http', 'ws')}/public/ws`, 'agent-registry.msgpack')
  const answers: Json[] = []
  ws.on('message', (data: Buffer, isBinary) => { answers.push(isBinary ? unpack(data) : String(data)) })
  await until(() => answers.length > 0)
  const noise = new Noise(seed)
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
