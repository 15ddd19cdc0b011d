import type { Test } from 'tap'
import { until, type Answer, type Harness } from '../harness.js'
import { peer, peerSocket, peerToken, secretKey, v1Options } from '../../unit/sockets/v1-helper.js'
import type { Pair } from '../messaging.js'

const token = secretKey
const seen = ({ status, body }: Answer) => status === 200 ? body : [status, body.error]

/** Idempotency keys and peers of /v1, over two servers. */
export function v1Tests (t: Test, name: string, open: Pair): void {
  t.test(`idempotency keys over HTTP in ${name}`, async t => {
    const [here, there] = await open(t, v1Options)
    const post = (registry: Harness, path: string, body: object, key?: string, by = token) =>
      registry.post(`/v1/${path}`, { token: by, body, ...(key && { headers: { 'idempotency-key': key } }) })

    await t.test('idempotency keys: a request with a key runs once', async t => {
      const publish = (registry: Harness, key: string, data: unknown = 1) => post(registry, 'channels/a/publish', { data }, key)
      const first = seen(await publish(here, '"k 1"'))
      t.equal(first.offset, 1)
      t.same(seen(await publish(there, '"k 1"')), first)
      t.same(seen(await publish(here, '"k 1"', 2)), [422, 'idempotency_key_reused'])
      t.same(seen(await post(there, 'channels/b/publish', { data: 1 }, '"k 1"')), [422, 'idempotency_key_reused'])
      t.equal(seen(await publish(here, 'k2')).offset, 2)
      t.same(seen(await publish(there, '"k2"')), seen(await publish(here, 'k2')), 'with or without quotes')
      const agents = [await here.join('agent-one', { capabilities: ['work'] }), await here.join('agent-two')]
      const offsets = []
      for (const by of agents) offsets.push(seen(await post(here, 'channels/agents%2Fa/publish', { data: 1 }, 'k2', by)).offset)
      t.same(offsets, [1, 2], 'keys of other callers are separate')
    })

    await t.test('idempotency keys: every POST route accepts one', async t => {
      const mint = () => post(here, 'tokens', { peerId: 'alice', channels: ['a'] }, 'mint')
      t.same(seen(await mint()), seen(await mint()))
      const alice = await peerSocket(there, (await mint()).body.token)
      // A failed request is not recorded: the other process may not know alice yet.
      await until(async () => (await post(here, 'peers/alice/send', { data: 'hello' }, 'send')).status !== 404)
      for (const registry of [here, there]) {
        t.match(seen(await post(registry, 'peers/alice/send', { data: 'hello' }, 'send')), { offset: 1, delivered: true })
      }
      t.equal((await alice.next('direct')).data, 'hello')
      t.same(await alice.pending(), [])
      alice.close()
    })

    const repeated = 'idempotency keys: a concurrent repeat is refused, and a later one gets the stored response without the first caller'
    await t.test(repeated, async t => {
      const agent = await there.agentSocket(await there.join('agent-three', { capabilities: ['think'] }))
      // A peer that the process does not know yet is not asked.
      await until(async () =>
        here.app.agentRegistry.get('agent-three') && seen(await post(here, 'peers/agent-three/send', { data: 'hello' })).delivered)
      const ask = (registry: Harness) => post(registry, 'request', { capability: 'think', data: 1 }, 'ask')
      const first = ask(here)
      const { rid } = await agent.next('request')
      t.same(seen(await ask(there)), [409, 'request_in_progress'])
      t.same(seen(await ask(here)), [409, 'request_in_progress'])
      agent.send({ type: 'reply', rid, data: 'done' })
      const answer = { from: 'agent-three', data: 'done' }
      t.same([seen(await first), seen(await ask(there)), seen(await ask(here))], [answer, answer, answer])
    })

    await t.test('idempotency keys: a failed request can be retried', async t => {
      const send = () => post(here, 'peers/bob/send', { data: 1 }, 'retry')
      t.same(seen(await send()), [404, 'peer_not_found'])
      const bob = await peer(there, 'bob')
      await until(async () => (await send()).status === 200)
      t.equal((await bob.next('direct')).data, 1)
      bob.close()
    })

    await t.test('idempotency keys: the key must be a string', async t => {
      for (const key of ['""', '"a', 'a b', 'a"b', 'x'.repeat(256), '"\\x"']) {
        t.same(seen(await post(here, 'channels/a/publish', { data: 1 }, key)), [400, 'invalid_request'], key.slice(0, 10))
      }
      t.equal((await post(here, 'channels/a/publish', { data: 1 }, '"a\\"b\\\\"')).status, 200)
    })
  })

  t.test(`/v1 peers in ${name}`, async t => {
    const [here, there] = await open(t, v1Options)

    await t.test('/v1 peers: peers of both processes share channels and presence', async t => {
      const [alice, bob] = [await peer(here, 'alice'), await peer(there, 'bob')]
      for (const client of [alice, bob]) {
        client.send({ type: 'subscribe', channel: 'room' })
        await client.next('presence')
      }
      await until(async () => (await here.get('/v1/channels/room/peers', { token })).body.peers.length === 2)
      alice.send({ type: 'publish', channel: 'room', data: 1 })
      t.match(await bob.next('message'), { from: 'alice', data: 1 })
      await until(async () => {
        bob.send({ type: 'send', to: 'alice', data: 2, requestId: 's' })
        return (await bob.next()).type === 'ack'
      })
      t.match(await alice.next('direct'), { from: 'bob', data: 2 })
      t.match((await here.post('/v1/channels/room/publish', { token, body: { data: 3 } })).body, { subscribers: 2 })
      for (const client of [alice, bob]) client.close()
    })

    await t.test('/v1 peers: a peer disconnects when any process revokes its token', async t => {
      const text = await peerToken(here, 'carol')
      const client = await peerSocket(there, text)
      const admin = await here.admin()
      const revokedAt = Date.now()
      await here.post('/tokens/revoke', { ...admin, body: { token: text } })
      t.equal((await client.closed).code, 4001)
      t.ok(Date.now() - revokedAt < 5000)
    })

    await t.test('/v1 peers: any process can disconnect a peer', async t => {
      const clients = [await peer(here, 'dave'), await peer(there, 'dave'), await peer(there, 'dave')]
      const connected = () => here.app.agentRegistry.presence('$agents')
      await until(async () => (await connected()).some(({ peerId }) => peerId === 'dave'))
      let closed = 0
      await until(async () => {
        closed += (await here.delete('/v1/peers/dave', { token })).body.closed
        return closed === 3
      })
      for (const client of clients) t.equal((await client.closed).code, 4020)
    })
  })
}
