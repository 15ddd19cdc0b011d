import t from 'tap'
import { sleep, until, type Client, type Json } from '../support/harness.js'
import { builtServer } from '../support/server-process.js'
import { nextWhere } from '../unit/sockets/helper.js'
import { startFleet, startRedis } from '../support/fleet.js'

const program = builtServer(t)
t.setTimeout(300_000)
const presenceTtlMs = 2000
const env = { MESSAGING_PRESENCE_TTL: String(presenceTtlMs / 1000) }
const capability = 'summarise'
const of = (client: Client, id: string) => client.all.find(({ type, requestId }: Json) => requestId === id && type !== 'request')

async function answerOf (client: Client, id: string, within: number): Promise<Json> {
  await until(() => of(client, id), within)
  return of(client, id)
}

t.test('requests: agents of a killed process leave within the presence TTL, and their requests end', async t => {
  const { redisUrl } = await startRedis(t)
  const [here, there] = await startFleet(t, { program, size: 2, redisUrl, env })
  const one = await here!.agentSocket(await here!.agent('agent-one'))
  const able = { capabilities: [capability] }
  const token = await there!.agent('agent-two', able)
  const two = await there!.agentSocket(token)
  const ask = (requestId: string, more: object = {}) => { one.send({ type: 'request', requestId, capability, data: requestId, timeoutMs: 60_000, ...more }) }
  await until(async () => {
    const requestId = `probe-${Math.random()}`
    one.send({ type: 'send', to: 'agent-two', data: null, requestId })
    return (await answerOf(one, requestId, 5000)).delivered
  })
  for (const [requestId, more] of Object.entries({ accepted: {}, once: { idempotent: false }, named: { capability: undefined, to: 'agent-two' } })) {
    ask(requestId, more)
    const { rid } = await nextWhere(two, 'request', ({ data }) => data === requestId)
    if (requestId !== 'accepted') continue
    two.send({ type: 'accept', rid, requestId: rid })
    t.match(await answerOf(two, rid, 5000), { type: 'ack' })
  }
  const three = await here!.agentSocket(await here!.agent('agent-three', able))
  await there!.kill()
  ask('moved')
  const moved = await nextWhere(three, 'request', ({ data }) => data === 'moved')
  three.send({ type: 'reply', rid: moved.rid, data: 'done' })
  for (const requestId of ['accepted', 'once', 'named']) t.match(await answerOf(one, requestId, 5 * presenceTtlMs), { code: 'agent_offline', requestId })
  t.match(await answerOf(one, 'moved', 1000), { type: 'response', from: 'agent-three', data: 'done' })
  one.send({ type: 'request', requestId: 'gone', to: 'agent-two', data: null, timeoutMs: 60_000 })
  t.match(await answerOf(one, 'gone', 1000), { code: 'agent_offline' })
  one.send({ type: 'send', requestId: 'kept', to: 'agent-two', data: 'kept' })
  t.match(await answerOf(one, 'kept', 1000), { type: 'ack', delivered: false })
  await there!.restart()
  const back = await there!.agentSocket(token)
  back.send({ type: 'inbox', requestId: 'inbox' })
  await nextWhere(back, 'direct', ({ data }) => data === 'kept')
})

t.test('requests: an agent whose requester\'s process was killed learns on reply that the request is gone', async t => {
  const { redisUrl } = await startRedis(t)
  const [here, there] = await startFleet(t, { program, size: 2, redisUrl, env })
  const two = await there!.agentSocket(await there!.agent('agent-two'))
  const one = await here!.agentSocket(await here!.agent('agent-one'))
  await sleep(200)
  one.send({ type: 'request', requestId: 'r', to: 'agent-two', data: null, timeoutMs: 60_000 })
  const { rid } = await two.next('request')
  await here!.kill()
  two.send({ type: 'reply', rid, data: 'for nobody', requestId: 'p' })
  t.match(await answerOf(two, 'p', 25_000), { code: 'unknown_request' })
})
