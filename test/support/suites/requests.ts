import type { Test } from 'tap'
import { sleep, until, type Client, type Harness, type Json } from '../harness.js'
import { assertAlive, refusalOf, undocumentedFrames } from '../../unit/sockets/helper.js'
import { ackOf, connect, granted, type Pair } from '../messaging.js'

/** A capability that only the agents of the test have. */
export const capability = 'summarise'
export const able = { capabilities: [capability] }
export const worker = (registry: Harness, id: string) => connect(registry, id, able)

/** The answer to a frame, of any type. */
export async function answerTo (client: Client, frame: Json): Promise<Json> {
  client.send(frame)
  return answerOf(client, frame.requestId)
}

export async function answerOf (client: Client, id: string): Promise<Json> {
  const find = () => client.all.find(({ type, requestId }) => requestId === id && ['response', 'error', 'ack'].includes(type))
  await until(find, 20_000)
  return find()
}

export const ask = (more: object = {}) => ({ type: 'request', requestId: 'r1', capability, data: { n: 1 }, timeoutMs: 20_000, ...more })

/** Waits until a process knows these peers and their capabilities. */
async function known (registry: Harness, asker: Client, workers: Client[]): Promise<void> {
  for (const worker of workers) {
    const { agent_id: to } = worker.all.find(({ type }) => type === 'auth_success')
    await until(() => registry.app.agentRegistry.get(to))
    await until(async () => (await answerTo(asker, { type: 'send', to, data: null, requestId: `known-${Math.random()}` })).delivered)
  }
}

/** Replies to all requests with the name of the agent. */
export function replies (worker: Client, name: string): void {
  worker.ws.on('message', text => {
    const { type, rid } = JSON.parse(String(text))
    if (type === 'request') worker.send({ type: 'reply', rid, data: name })
  })
}

/** Requests between agents that are connected to two servers. */
export function requestTests (t: Test, name: string, open: Pair): void {
  t.test(`requests in ${name}: the examples of a request`, async t => {
    const [here, there] = await open(t)
    const [one, two] = [await connect(here, 'agent-one'), await worker(there, 'agent-two')]
    await known(here, one, [two])
    for (const to of [{ to: 'agent-two', capability: undefined }, {}]) {
      const before = Date.now()
      one.send(ask({ ...to, timeoutMs: 10_000 }))
      const request = await two.next('request')
      t.strictSame(request, { type: 'request', rid: request.rid, from: 'agent-one', data: { n: 1 }, deadline: request.deadline })
      t.ok(request.deadline >= before + 9_000 && request.deadline <= Date.now() + 11_000, 'in epoch milliseconds')
      t.match(request.rid, /^[\w-]+\.[\w-]{36}$/)
      t.strictSame(await ackOf(two, { type: 'accept', rid: request.rid, requestId: 'a1' }), { type: 'ack', requestId: 'a1' })
      t.strictSame(
        await ackOf(two, { type: 'reply', rid: request.rid, data: { words: 2 }, requestId: 'p1' }), { type: 'ack', requestId: 'p1' }
      )
      t.strictSame(await one.next('response'), { type: 'response', requestId: 'r1', from: 'agent-two', data: { words: 2 } })
    }
    one.send(ask({ requestId: 'r2' }))
    two.send({ type: 'reply', rid: (await two.next('request')).rid, data: null })
    t.strictSame(await one.next('response'), { type: 'response', requestId: 'r2', from: 'agent-two', data: null },
      'a reply accepts the request')
    one.send(ask({ requestId: 'r3' }))
    two.send({ type: 'reject', rid: (await two.next('request')).rid, code: 'busy', message: 'Too much to do' })
    t.strictSame(await one.next('error'), { type: 'error', code: 'rejected', message: 'Too much to do', requestId: 'r3', reason: 'busy' })
    await assertAlive(two)
    t.equal(two.all.filter(({ type }) => type === 'ack').length, 4, 'a notification without a requestId gets no answer')
    for (const { all } of [one, two]) t.strictSame(undocumentedFrames('agents', all), [])
  })

  t.test(`requests in ${name}: an agent that does not accept is skipped, and another agent is asked`, async t => {
    const [here, there] = await open(t)
    const [one, two, three] = [await connect(here, 'agent-one'), await worker(there, 'agent-two'), await worker(there, 'agent-three')]
    await known(here, one, [two, three])
    const started = Date.now()
    one.send(ask())
    const { rid } = await two.next('request')
    const second = await three.next('request', 5000)
    t.ok(Date.now() - started >= 990, 'after a second')
    t.not(second.rid, rid)
    t.strictSame(await two.next('request_cancelled'), { type: 'request_cancelled', rid })
    for (const type of ['accept', 'reply', 'reject']) {
      t.match(await refusalOf(two, { type, rid, data: 'late', code: 'c', message: 'm', requestId: type }), {
        code: 'unknown_request', requestId: type
      }, type)
    }
    t.match(await refusalOf(two, { type: 'reply', rid: second.rid, data: 'stolen' }), { code: 'unknown_request' },
      'another agent\'s reply does not count')
    await ackOf(three, { type: 'accept', rid: second.rid, requestId: 'a' })
    await sleep(1200)
    t.notOk(two.all.some(({ type, rid: other }) => type === 'request' && other !== rid))
    await ackOf(three, { type: 'reply', rid: second.rid, data: 'mine', requestId: 'p' })
    t.match(await answerOf(one, 'r1'), { type: 'response', from: 'agent-three', data: 'mine' })
    t.match(await refusalOf(three, { type: 'reply', rid: second.rid, data: 'again' }), { code: 'unknown_request' }, 'once')
    for (const { all } of [one, two, three]) t.strictSame(undocumentedFrames('agents', all), [])
  })

  t.test(`requests in ${name}: a non-idempotent request stays with the first agent`, async t => {
    const [here, there] = await open(t)
    const [one, two, three] = [await connect(here, 'agent-one'), await worker(there, 'agent-two'), await worker(there, 'agent-three')]
    await known(here, one, [two, three])
    one.send(ask({ idempotent: false }))
    one.send(ask({ requestId: 'r2', capability: undefined, to: 'agent-three' }))
    const { rid } = await two.next('request')
    const { rid: other } = await three.next('request')
    await sleep(1500)
    for (const client of [two, three]) t.notOk(client.all.some(({ type }) => type === 'request_cancelled'))
    two.send({ type: 'reply', rid, data: 'slow' })
    t.match(await answerOf(one, 'r1'), { type: 'response', from: 'agent-two', data: 'slow' })
    three.send({ type: 'reply', rid: other, data: 'slower' })
    t.match(await answerOf(one, 'r2'), { from: 'agent-three' }, 'a request to one peer is not reassigned')
    t.equal(three.all.filter(({ type }) => type === 'request').length, 1)
  })

  t.test(`requests in ${name}: a request ends at its deadline, and a later reply is discarded`, async t => {
    const [here, there] = await open(t)
    const [one, two] = [await connect(here, 'agent-one'), await worker(there, 'agent-two')]
    await known(here, one, [two])
    const started = Date.now()
    one.send(ask({ timeoutMs: 300 }))
    const { rid } = await two.next('request')
    await ackOf(two, { type: 'accept', rid, requestId: 'a' })
    t.match(await answerOf(one, 'r1'), { code: 'deadline_exceeded', requestId: 'r1' })
    t.ok(Date.now() - started >= 290)
    t.match(await refusalOf(two, { type: 'reply', rid, data: 'late', requestId: 'p' }), { code: 'unknown_request', requestId: 'p' })
    await assertAlive(one)
    t.notOk(one.all.some(({ type }) => type === 'response'))
  })

  t.test(`requests in ${name}: the requester cancels a request by a frame or by disconnecting`, async t => {
    const [here, there] = await open(t)
    const [one, two] = [await connect(here, 'agent-one'), await worker(there, 'agent-two')]
    await known(here, one, [two])
    one.send(ask())
    const { rid } = await two.next('request')
    await ackOf(two, { type: 'accept', rid, requestId: 'a' })
    t.strictSame(await ackOf(one, { type: 'cancel_request', requestId: 'r1' }), { type: 'ack', requestId: 'r1' })
    t.strictSame(await two.next('request_cancelled'), { type: 'request_cancelled', rid })
    t.match(await refusalOf(two, { type: 'reply', rid, data: 1 }), { code: 'unknown_request' })
    t.match(await refusalOf(one, { type: 'cancel_request', requestId: 'r1' }), { code: 'unknown_request', requestId: 'r1' })
    await assertAlive(one)
    t.equal(one.all.filter(({ requestId }) => requestId === 'r1').length, 2, 'one answer for each')
    one.send(ask({ requestId: 'r2' }))
    const { rid: second } = await two.next('request')
    one.terminate()
    t.strictSame(await two.next('request_cancelled'), { type: 'request_cancelled', rid: second })
    await until(() => here.app.agentRegistry.get('agent-one')!.state === 'suspect')
  })

  t.test(`requests in ${name}: when the responder disconnects, an accepted request fails and an unaccepted one moves on`, async t => {
    const [here, there] = await open(t)
    const [one, two, three] = [await connect(here, 'agent-one'), await worker(there, 'agent-two'), await worker(there, 'agent-three')]
    await known(here, one, [two, three])
    one.send(ask({ requestId: 'r1' }))
    await two.next('request')
    two.terminate()
    const { rid } = await three.next('request')
    await ackOf(three, { type: 'accept', rid, requestId: 'a' })
    three.terminate()
    t.match(await answerOf(one, 'r1'), { code: 'agent_offline', requestId: 'r1' })
    t.match(await answerTo(one, ask({ requestId: 'r2' })), { code: 'no_responders', requestId: 'r2' })
    t.match(
      await answerTo(one, ask({ requestId: 'r3', capability: undefined, to: 'agent-three' })), { code: 'agent_offline', requestId: 'r3' }
    )
    t.match(
      await answerTo(one, ask({ requestId: 'r4', capability: undefined, to: 'agent-none' })), { code: 'agent_offline', requestId: 'r4' }
    )
  })

  t.test(`requests in ${name}: agents that are draining, observe only or may not serve are skipped`, async t => {
    const [here, there] = await open(t)
    const one = await connect(here, 'agent-one')
    const draining = await worker(there, 'agent-draining')
    const observing = await there.agentSocket(await there.join('agent-observing', able), { observe: true })
    await there.join('agent-unable', able)
    const unable = await granted(there, 'agent-unable', 'send')
    const busy = await worker(there, 'agent-busy')
    await known(here, one, [draining, observing, unable, busy])
    await ackOf(draining, { type: 'status', status: 'draining', requestId: 's' })
    await ackOf(busy, { type: 'status', status: 'maintenance', requestId: 's' })
    await until(() => here.app.agentRegistry.get('agent-busy')!.state === 'maintenance')
    t.match(await answerTo(one, ask({ requestId: 'r1' })), { code: 'no_responders' })
    for (const to of ['agent-draining', 'agent-observing', 'agent-unable']) {
      t.match(await answerTo(one, ask({ requestId: to, capability: undefined, to })), { code: 'agent_offline' }, to)
    }
    const two = await worker(there, 'agent-two')
    replies(two, 'two')
    await known(here, one, [two])
    t.match(await answerTo(one, ask({ requestId: 'r2' })), { from: 'agent-two' })
    t.match(await answerTo(two, ask({ requestId: 'r3' })), { code: 'no_responders' },
      'no agent with the capability is assigned the request')
    for (const client of [draining, observing, unable, busy]) t.notOk(client.all.some(({ type }) => type === 'request'))
  })

  t.test(`requests in ${name}: the least loaded agent is asked, and equally loaded agents take turns`, async t => {
    const [here, there] = await open(t)
    const [one, ...workers] = [await connect(
      here, 'agent-one'
    ), await worker(there, 'agent-two'), await worker(here, 'agent-three'), await worker(there, 'agent-four')] as [Client, ...Client[]]
    await known(here, one, workers)
    const rids = async (worker: Client, count: number) => {
      await until(() => worker.all.filter(({ type }) => type === 'request').length === count)
      return worker.all.filter(({ type }) => type === 'request').map(({ rid }) => rid)
    }
    for (let n = 0; n < 6; n++) one.send(ask({ requestId: `r${n}` }))
    for (const client of workers) for (const rid of await rids(client, 2)) await ackOf(client, { type: 'accept', rid, requestId: rid })
    const [second] = [workers[1]!]
    for (const rid of await rids(second, 2)) await ackOf(second, { type: 'reply', rid, data: 'done', requestId: rid })
    for (let n = 6; n < 8; n++) one.send(ask({ requestId: `r${n}` }))
    await rids(second, 4)
    t.strictSame(workers.map(({ all }) => all.filter(({ type }) => type === 'request').length), [2, 4, 2])
  })
}
