import type { Test } from 'tap'
import { sleep, type Client, type Json } from '../harness.js'
import { assertAlive, nextWhere, refusalOf, undocumentedFrames } from '../../unit/sockets/helper.js'
import { ackOf, connect, granted, type Pair } from '../messaging.js'

/** Waits until the other process knows that a peer is connected. */
async function present (from: Client, to: string): Promise<void> {
  for (;;) {
    from.send({ type: 'send', to, data: 'are you there', requestId: 'probe' })
    if ((await nextWhere(from, 'ack', ({ requestId }) => requestId === 'probe')).delivered) return
    await sleep(10)
  }
}

export const dataOf = (frames: readonly Json[]): Json[] => frames.filter(({ type }) => type === 'direct').map(({ data }) => data)

export async function directs (client: Client, count: number): Promise<Json[]> {
  const frames: Json[] = []
  while (frames.length < count) frames.push(await client.next('direct'))
  return frames
}

/** Direct messages between two agents, each of which is connected to one of two servers. */
export function directTests (t: Test, name: string, open: Pair): void {
  t.test(`direct messages in ${name}: a message reaches every connection of the peer, and the sender gets the outcome`, async t => {
    const [here, there] = await open(t)
    const one = await connect(here, 'agent-one')
    const token = await there.join('agent-two')
    const [two, second] = [await there.agentSocket(token), await there.agentSocket(token, { observe: true })]
    await present(one, 'agent-two')
    await Promise.all([directs(two, 1), directs(second, 1)])
    one.send({ type: 'send', to: 'agent-two', data: { text: 'hello' }, requestId: 'r1' })
    const { offset } = await two.next('direct')
    t.strictSame(await one.next('ack'), { type: 'ack', requestId: 'r1', offset, delivered: true })
    for (const level of ['accepted', 'delivered'] as const) {
      const [ack, direct, again] = [await ackOf(
        one, { type: 'send', to: 'agent-two', data: [level], level, requestId: level }
      ), await two.next('direct'), await nextWhere(second, 'direct', ({ data }) => data[0] === level)]
      t.strictSame(ack, { type: 'ack', requestId: level, offset: direct.offset, delivered: true })
      t.match(direct, {
        type: 'direct',
        from: 'agent-one',
        data: [
          level
        ],
        fromMetadata: { agent_id: 'agent-one', role: 'agent', agentName: 'Agent One' },
        epoch: String,
        timestamp: Number
      })
      t.strictSame(again, direct)
      t.ok(Math.abs(direct.timestamp - Date.now() / 1000) < 60)
    }
    for (const { all } of [one, two, second]) t.strictSame(undocumentedFrames('agents', all), [])
  })

  t.test(`direct messages in ${name}: a message to a registered peer that is offline waits in its inbox`, async t => {
    const [here, there] = await open(t)
    const one = await connect(here, 'agent-one')
    const token = await here.join('agent-two')
    const sent = []
    for (const data of [1, 2, 3]) {
      sent.push(await ackOf(one, {
        type: 'send',
        to: 'agent-two',
        data,
        requestId: `r${data}`,
        ...(data === 3 &&
      { level: 'delivered' })
      }))
    }
    t.strictSame(sent.map(({ delivered }) => delivered), [false, false, false])
    const two = await there.agentSocket(token)
    await present(one, 'agent-two')
    await nextWhere(two, 'direct', ({ data }) => data === 'are you there')
    t.notOk(dataOf(two.all).includes(3), 'a client without a position receives new messages')
    t.match(await ackOf(two, { type: 'inbox', requestId: 'i1' }), { recovered: true, epoch: String })
    const frames = await directs(two, 3)
    t.strictSame(frames.map(({ data }) => data), [1, 2, 3], 'live messages are not sent again')
    t.strictSame(frames.map(({ offset }) => offset), sent.map(({ offset }) => offset))
    const again = await there.agentSocket(token)
    const { epoch, offset } = frames[1]
    const ack = await ackOf(again, { type: 'inbox', since: { epoch, offset }, requestId: 'i2' })
    t.strictSame(ack, { type: 'ack', requestId: 'i2', epoch, offset: ack.offset, recovered: true })
    t.strictSame((await again.next('direct')).data, 3)
    one.send({ type: 'send', to: 'agent-two', data: 'live', requestId: 'live' })
    t.equal((await nextWhere(again, 'direct', ({ data }) => data === 'live')).offset, ack.offset + 1)
    const other = await there.agentSocket(token)
    t.match(await ackOf(other, { type: 'inbox', since: { epoch: 'another', offset: 1 }, requestId: 'i3' }), { recovered: false, epoch })
    await nextWhere(other, 'direct', ({ data }) => data === 'live')
    t.strictSame(dataOf(other.all).filter(data => data !== 'are you there'), [1, 2, 3, 'live'])
    for (const { all } of [one, two, again, other]) t.strictSame(undocumentedFrames('agents', all), [])
  })

  t.test(`direct messages in ${name}: messages with one msgId from one sender are one message`, async t => {
    const [here, there] = await open(t)
    const [one, two, three] = [await connect(here, 'agent-one'), await connect(there, 'agent-two'), await connect(there, 'agent-three')]
    await present(one, 'agent-two')
    await directs(two, 1)
    const frame = { type: 'send', to: 'agent-two', data: 'once', msgId: 'm1' }
    const first = await ackOf(one, { ...frame, requestId: 'r1' })
    const { offset } = await two.next('direct')
    t.strictSame(first, { type: 'ack', requestId: 'r1', offset, delivered: true })
    t.strictSame(
      await ackOf(one, { ...frame, requestId: 'r2' }), { type: 'ack', requestId: 'r2', offset, delivered: true, duplicate: true }
    )
    t.strictSame(await ackOf(one, { ...frame, level: 'delivered', requestId: 'r3' }), {
      type: 'ack', requestId: 'r3', offset, delivered: false, duplicate: true
    },
    'this call delivered to no connection')
    await ackOf(three, { ...frame, requestId: 'r1' })
    t.match(await two.next('direct'), { from: 'agent-three', offset: offset + 1 }, 'msgIds of another sender are independent')
    await assertAlive(two)
    t.equal(dataOf(two.all).filter(data => data === 'once').length, 2)
  })

  t.test(`direct messages in ${name}: a broadcast with the grant reaches all connected peers in order`, async t => {
    const [here, there] = await open(t)
    const speaker = await granted(here, 'agent-speaker', 'broadcast', 'send')
    const others = [await connect(here, 'agent-one'), await connect(there, 'agent-two')]
    await here.join('agent-away')
    await present(speaker, 'agent-two')
    for (let n = 0; n < 50; n++) speaker.send({ type: 'message', content: n })
    await ackOf(speaker, { type: 'message', content: 'last', to: null, requestId: 'r1' })
    for (const client of others) {
      const last = await nextWhere(client, 'message', ({ content }) => content === 'last')
      t.strictSame(Object.keys(last), ['type', 'from', 'to', 'content', 'timestamp'])
      t.match(last, { from: 'agent-speaker', to: null })
      t.strictSame(client.all.filter(({ type }) => type === 'message')
        .map(({ content }) => content), [...Array.from({ length: 50 }, (_, n) => n), 'last'])
      t.strictSame(undocumentedFrames('agents', client.all), [])
    }
    t.notOk(speaker.all.some(({ type }) => type === 'message'), 'but not the sender')
    t.match(
      await refusalOf(others[0]!, { type: 'message', content: 'x', requestId: 'r' }), { code: 'action_not_permitted', requestId: 'r' }
    )
  })
}
