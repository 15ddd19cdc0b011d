import t, { type Test } from 'tap'
import fc from 'fast-check'
import { monotonicClock } from '../../../src/lib/clock.js'
import { Candidates } from '../../../src/messaging/requests/candidates.js'
import { Deadlines, type Deadline } from '../../../src/lib/deadlines.js'
import { newRequest } from '../../../src/messaging/requests/open-requests.js'
import { Peers } from '../../../src/messaging/peer.js'
import { RequestChannel } from '../../../src/messaging/requests/request-channel.js'
import { Requests, type RequestsOptions } from '../../../src/messaging/requests/requests.js'
import { Responder } from '../../../src/messaging/requests/responder.js'
import { ProcessMessages } from '../../../src/messaging/process-messages.js'
import { Replica } from '../../../src/registry/replica.js'
import type { AgentRecord } from '../../../src/storage/agent-store.js'
import { sleep, until } from '../../support/harness.js'
import { Faulty, Listener } from './line-scene.js'
import { seed } from '../../support/lengths.js'

interface Scene {
  broker: Faulty
  requests: Requests
  responder: Responder
  deadlines: Deadlines
  peers: Peers
  ask: (more?: { to?: string, timeoutMs?: number, from?: string, signal?: AbortSignal }) => ReturnType<Requests['requestUnchecked']>
}

/** Requests without sockets. A process with an unknown name never responds. */
async function open (t: Test, { processesOf, ...options }: Partial<RequestsOptions> = {}): Promise<Scene> {
  const broker = new Faulty()
  const processMessages = new ProcessMessages(broker)
  const deadlines = new Deadlines(monotonicClock())
  const peers = new Peers()
  const channel = new RequestChannel(broker, processMessages)
  const common = { broker, channel, deadlines, peers, replica: new Replica(), maxDataBytes: 1000 }
  const requests = new Requests({
    ...common,
    maxPerConnection: 10,
    maxRequests: 10,
    acceptMs: 50,
    processesOf: processesOf ?? (id => peers.of(id).length > 0 ? [broker.process] : []),
    ...options
  })
  const responder = new Responder({ ...common, verdictMs: 50 })
  await broker.open({
    appended () {},
    logGap () {},
    presenceChanged () {},
    presenceReloaded () {},
    processMessage: (from, body) => {
      processMessages.received(from, body)
    }
  })
  const alive = setInterval(() => {}, 1000)
  t.teardown(async () => {
    clearInterval(alive)
    deadlines.close()
    await broker.close()
  })
  return {
    broker,
    requests,
    responder,
    deadlines,
    peers,
    ask: ({ from = 'agent-one', to = 'agent-two', timeoutMs = 5000, signal } = {}) =>
      requests.requestUnchecked(from, { to, data: null, timeoutMs }, signal)
  }
}

const code = (type: string) => ({ code: `AGENT_REGISTRY_${type}` })

t.test('requests: a request ends although the process it was sent to does not respond', async t => {
  const { ask, responder, deadlines } = await open(t, { processesOf: () => ['nobody'] })
  await t.rejects(ask({ timeoutMs: 100 }), code('DEADLINE_EXCEEDED'))
  await t.rejects(responder.respond(new Listener('agent-two'), `nobody.${'x'.repeat(36)}`, { op: 'accept' }), code('UNKNOWN_REQUEST'))
  t.equal(deadlines.size, 0, 'and leaves no state')
})

t.test('requests: a requester that waits for a verdict is notified when this process shuts down', async t => {
  const { responder } = await open(t)
  const answering = responder.respond(new Listener('agent-two'), `nobody.${'x'.repeat(36)}`, { op: 'accept' })
  responder.close()
  await t.rejects(answering, code('UNKNOWN_REQUEST'))
})

t.test('requests: requester and responder are notified when this process shuts down', async t => {
  const { ask, requests, peers, deadlines } = await open(t)
  const two = new Listener('agent-two')
  peers.add(two)
  const asking = ask()
  const { rid } = await two.next('request')
  requests.close()
  await t.rejects(asking, code('SHUTTING_DOWN'))
  t.strictSame(await two.next('request_cancelled'), { type: 'request_cancelled', rid })
  t.strictSame([requests.size, deadlines.size], [0, 0])
})

t.test('requests: a peer not served by one process is asked through the next, this process first', async t => {
  const asked: string[] = []
  const scene = await open(t, { processesOf: () => ['elsewhere', scene.broker.process] })
  scene.broker.sendToProcess = process => { asked.push(process) }
  const asking = scene.ask({ timeoutMs: 100 })
  await t.rejects(asking, code('DEADLINE_EXCEEDED'))
  t.strictSame(asked, ['elsewhere'], 'where this process had no connection')
  const two = new Listener('agent-two')
  scene.peers.add(two)
  const again = scene.ask()
  const { rid } = await two.next('request')
  await scene.responder.reply(two, rid, 1)
  t.strictSame(await again, { from: 'agent-two', data: '1' })
  t.equal(asked.length, 1)
})

t.test('requests: a peer that every process declines takes no requests', async t => {
  const { ask } = await open(t, { processesOf: () => [] })
  await t.rejects(ask(), code('AGENT_OFFLINE'))
  const scene = await open(t, { processesOf: () => [scene.broker.process] })
  await t.rejects(scene.ask(), code('AGENT_OFFLINE'))
})

t.test('requests: a peer that left before the second lookup holds no request', async t => {
  const { ask, peers, requests } = await open(t)
  const [two, three] = [new Listener('agent-two'), new Listener('agent-three')]
  peers.add(two)
  peers.add(three)
  const [asking, other] = [ask(), ask({ to: 'agent-three' })]
  await Promise.all([two.next('request'), three.next('request')])
  peers.delete(two)
  requests.peersLeft()
  await t.rejects(asking, code('AGENT_OFFLINE'))
  t.equal(requests.size, 1)
  requests.close()
  await t.rejects(other, code('SHUTTING_DOWN'))
})

t.test('requests: an abort signal ends a request once', async t => {
  const { ask, peers, requests } = await open(t)
  const two = new Listener('agent-two')
  peers.add(two)
  const controller = new AbortController()
  const asking = ask({ signal: controller.signal })
  const { rid } = await two.next('request')
  controller.abort(new Error('changed my mind'))
  await t.rejects(asking, { message: 'changed my mind' })
  t.strictSame(await two.next('request_cancelled'), { type: 'request_cancelled', rid })
  await t.rejects(ask({ signal: controller.signal }), { message: 'changed my mind' }, 'no agent is asked after it')
  const late = new AbortController()
  const failing = ask({ to: 'agent-none', signal: late.signal })
  late.abort()
  await t.rejects(failing, code('AGENT_OFFLINE'), 'an ended request stays ended')
  t.equal(requests.size, 0)
})

t.test('requests: only timeouts within the limits are accepted', async t => {
  const { ask } = await open(t)
  for (const timeoutMs of [0, -1, NaN, 300_001]) await t.rejects(ask({ timeoutMs }), code('INVALID_INPUT'))
})

t.test(`deadlines: they fire in order, once each, unless cancelled (TEST_SEED=${seed})`, async t => {
  await fc.assert(fc.asyncProperty(fc.array(
    fc.record({ ms: fc.integer({ min: 0, max: 30 }), isCancelled: fc.boolean() }), { maxLength: 60 }
  ), async plan => {
    let now = 0
    const deadlines = new Deadlines(() => now)
    const expired: number[] = []
    const added = plan.map(({ ms, isCancelled }, index) => ({ isCancelled, deadline: deadlines.after(ms, () => { expired.push(index) }) }))
    for (const { isCancelled, deadline } of added) if (isCancelled) deadlines.cancel(deadline)
    for (const { isCancelled, deadline } of added) if (isCancelled) deadlines.cancel(deadline)
    const expected = plan.flatMap(({ isCancelled }, index) => isCancelled ? [] : [index])
    now = 30
    const started = performance.now()
    while (deadlines.size > 0 && performance.now() - started < 5000) await sleep(1)
    t.strictSame([...expired].sort((a, b) => a - b), expected)
    t.ok(expired.every((index, at) => at === 0 || plan[expired[at - 1]!]!.ms <= plan[index]!.ms))
    deadlines.close()
  }), { numRuns: 30 })
})

t.test('deadlines: one added while others fire is kept, and none fires after the end', async t => {
  const deadlines = new Deadlines(monotonicClock())
  const alive = setInterval(() => {}, 1000)
  const came: string[] = []
  deadlines.after(5, () => {
    came.push('first')
    deadlines.after(5, () => { came.push('second') })
  })
  const cancelled: Deadline = deadlines.after(1, () => { came.push('cancelled') })
  deadlines.cancel(cancelled)
  await until(() => came.length === 2)
  t.strictSame(came, ['first', 'second'])
  deadlines.after(1, () => { came.push('late') })
  deadlines.close()
  await sleep(30)
  t.equal(came.length, 2)
  clearInterval(alive)
})

t.test('load index: the least loaded peer with a capability is found without a full scan', async t => {
  const replica = new Replica()
  const agents = Array.from({ length: 200 }, (_, index): AgentRecord => ({
    id: `agent-${index}`,
    body: '{}',
    type: 'testing',
    capabilities: ['count'],
    ownerKey: null,
    registeredAt: 0,
    created: index,
    incarnation: 1,
    revision: index,
    state: 'alive',
    lastSeen: 0,
    held: false,
    metrics: null
  }))
  replica.load({ epoch: 'e', revision: 200, agents })
  const loads = new Map<string, number>()
  let looks = 0
  const candidates = new Candidates({
    replica,
    process: 'here',
    processesOf: () => { looks++; return ['here'] },
    loadOf: id => loads.get(id) ?? 0
  })
  const choose = () => candidates.choose('count', () => false)!
  const chosen = agents.map(() => {
    const id = choose()
    loads.set(id, (loads.get(id) ?? 0) + 1)
    return id
  })
  t.equal(new Set(chosen).size, 200, 'each in turn')
  looks = 0
  choose()
  t.equal(looks, 64)
  loads.set(agents[7]!.id, 0)
  const order = newRequest({
    from: 'agent-one',
    target: { capability: 'count', timeoutMs: 1 },
    data: '1',
    deadline: 0,
    requester: undefined,
    resolve: () => {},
    reject: () => {}
  })
  const asked = new Set(Array.from({ length: 200 }, () => candidates.next(order)?.peerId))
  t.equal(asked.size, 200, 'no peer is asked twice')
  t.equal(candidates.next(order), undefined)
})
