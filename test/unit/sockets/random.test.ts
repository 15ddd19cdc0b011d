import fc from 'fast-check'
import t from 'tap'
import { closeCodes } from '../../../src/protocol/codes.js'
import { build, until, type Client, type Harness, type Json } from '../../support/harness.js'
import { assertAlive, openers, strangeFrames } from './helper.js'

type Sent = string | Buffer | Record<string, unknown>

const types = ['ping', 'pong', 'watch', 'unwatch', 'get_discovery', 'status', 'auth', 'nope', '__proto__', 'constructor', 'toString', 'error']
const revision = fc.oneof(fc.string(), fc.tuple(fc.string(), fc.nat()).map(parts => parts.join(':')))
const odd = fc.oneof(fc.jsonValue(), fc.constantFrom<unknown>('alive', 'draining', 'testing', 1e308, -1, '2', ['cap one']))

/** Frames of which most are nearly right. */
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
      filter: fc.oneof(fc.record({ agent_type: fc.constantFrom<unknown>('testing', 'x', 5), capabilities: odd, status: odd, [`${'__proto__'}x`]: odd }, { requiredKeys: [] }), odd),
      page: odd,
      page_size: odd,
      agent_type: odd,
      status: odd
    }, { requiredKeys: ['type'] })
  }
)
const scripts = fc.array(frames, { minLength: 1, maxLength: 25 })

const documented: readonly number[] = Object.values(closeCodes).filter(code => code !== closeCodes.abnormal)

/** Requests that must have one answer: a pong has none, and a poisoned or unnamed one cannot be told apart. */
function requestIds (script: Sent[]): string[] {
  return script.flatMap(frame => typeof frame === 'object' && !Buffer.isBuffer(frame) && frame.type !== 'pong' && typeof frame.requestId === 'string' ? [frame.requestId] : [])
}

const isAnswer = (frame: Json) => typeof frame === 'object' && !Array.isArray(frame) && frame.requestId !== undefined

const options = {
  lease: { durationMs: 60_000 },
  sockets: { maxUnauthenticatedPerAddress: 64 },
  publicWs: { burst: 100_000, messagesPerSecond: 100_000 },
  agentsWs: { burst: 100_000, messagesPerSecond: 100_000 }
}

async function play (client: Client, script: Sent[]) {
  for (const frame of script) client.send(frame)
}

for (const tier of ['public', 'agents'] as const) {
  t.test(`${tier}: whatever is sent, each request has one answer from the catalogue and the socket lives`, async t => {
    const registry: Harness = await build(t, options)
    await fc.assert(fc.asyncProperty(scripts, async script => {
      const client = await openers[tier](registry)
      await play(client, script)
      await assertAlive(client)
      const strange = strangeFrames(tier, client.all)
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

t.test('agents: whatever is sent before a token, the socket lives or is closed with a code that says why', async t => {
  const registry = await build(t, options)
  const token = await registry.join()
  await fc.assert(fc.asyncProperty(scripts, fc.nat({ max: 24 }), async (script, at) => {
    const client = registry.socket('/agents/ws')
    await client.next('auth_required')
    await play(client, script.slice(0, at))
    client.send({ token })
    await play(client, script.slice(at))
    client.send({ type: 'ping', requestId: 'last' })
    const isClosed = () => client.ws.readyState === client.ws.CLOSED
    await until(() => isClosed() || client.all.some(({ requestId }) => requestId === 'last'))
    const strange = strangeFrames('agents', client.all)
    if (strange.length > 0) throw new Error(`strange: ${JSON.stringify(strange)}`)
    if (!isClosed()) client.close(1000)
    const { code } = await client.closed
    if (!documented.includes(code)) throw new Error(`closed with ${code}`)
  }), { numRuns: 150 })
  t.match(registry.app.agentRegistry.get('agent-one'), { agent_id: 'agent-one' })
})

t.test('all that is left when they have gone is the agent', async t => {
  const registry = await build(t, options)
  const client = await openers.agents(registry)
  await play(client, [{ type: 'goodbye' }, '{', { type: 'status', status: 'alive' }])
  t.equal((await client.closed).code, 1000)
  t.strictSame(registry.app.agentRegistry.list(), [])
})
