import { request as httpRequest } from 'node:http'
import { Writable } from 'node:stream'
import { Value } from '@sinclair/typebox/value'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, { MemoryKeyValueStore, MemoryAgentStore } from '../../../src/index.js'
import { problem } from '../../../src/errors.js'
import { V1Error } from '../../../src/protocol/schemas/peers.js'
import { answerChecker, build, until, type Answer, type Harness } from '../../support/harness.js'
import { forge } from '../sockets/helper.js'
import { buildV1, peer, peerSocket, secretKey, v1Options } from '../sockets/v1-helper.js'

const token = secretKey

/** Status and code of an error response. */
function errorOf (t: Test, { status, headers, body }: Answer): [number, string] {
  t.match(headers.get('content-type'), /^application\/json/)
  t.same([...Value.Errors(V1Error, body)], [])
  return [status, body.error]
}

t.test('/v1 access', async t => {
  const registry = await buildV1(t, { attempts: { burst: 4, windowMs: 60_000 } })
  const agent = await registry.join('agent-one')
  const user = (await registry.post(
    '/tokens/mint', { ...await registry.admin(), body: { user_id: 'mary', agent_id: 'mary' } }
  )).body.access_token
  const usage = (call: Parameters<Harness['get']>[1]) => registry.get('/v1/usage', call)

  await t.test('/v1 access: back ends with a secret key, admins, and agents for their own resources', async t => {
    t.equal((await usage({ token })).status, 200)
    t.equal((await usage(await registry.admin())).status, 200)
    t.same(errorOf(t, await usage({ token: agent })), [403, 'action_not_permitted'])
    t.same(errorOf(t, await registry.delete('/v1/peers/agent-one', { token: agent })), [403, 'action_not_permitted'])
    t.equal((await registry.get('/v1/channels/agents%2Fa/peers', { token: agent })).status, 200)
  })

  await t.test('/v1 access: all others are refused', async t => {
    t.same(errorOf(t, await usage({})), [401, 'unauthorized'])
    t.same(errorOf(t, await usage({ token: user })), [403, 'action_not_permitted'])
    t.same(errorOf(t, await usage({ token: await registry.tempToken('agent-two') })), [403, 'action_not_permitted'])
    for (const wrong of ['nonsense', 'sk_id_test', 'another:sk_secret_0123456789', 'pk_live_0123456789']) {
      t.same(errorOf(t, await usage({ token: wrong })), [401, 'unauthorized'], wrong)
    }
  })

  await t.test('/v1 access: key guessing is rate-limited', async t => {
    for (let i = 0; i < 3; i++) t.same(errorOf(t, await usage({ token: `sk_id_test:${'x'.repeat(16 + i)}` })), [401, 'unauthorized'])
    const limited = await usage({ token: 'sk_id_test:wrong-secret-again' })
    t.same(errorOf(t, limited), [429, 'rate_limit_exceeded'])
    t.ok(Number(limited.headers.get('retry-after')) > 0)
  })
})

t.test('/v1 access: duplicate or invalid keys stop the start', async t => {
  const start = async (options: object) => { await fastify().register(agentRegistry, { routes: { v1: true }, ...options }) }
  const key = { key: 'pk_live_0123456789', channels: ['a'], permissions: ['subscribe'] }
  await t.rejects(start({ peerKeys: [key, key] }), /peerKeys.1: this key is configured twice/)
  await t.rejects(start({ secretKeys: [token, `${token}-more`] }), /secretKeys.1: this id is configured twice/)
  await t.rejects(start({ secretKeys: ['no-secret'] }), /secretKeys.0/)
  await t.rejects(start({ peerKeys: [{ ...key, origins: ['https://%'] }] }), /peerKeys.0.origins: 'https:\/\/%' is not an origin/)
})

t.test('POST /v1/tokens', async t => {
  const registry = await buildV1(t)
  const mint = (body: object, by = token) => registry.post('/v1/tokens', { token: by, body })
  const usual = { peerId: 'u_alice_123', channels: ['app_abc/room-1'] }

  await t.test('POST /v1/tokens: a token is created with defaults', async t => {
    const { status, body } = await mint({ ...usual, metadata: { a: 1 }, peerMetadata: { b: 2 } })
    t.equal(status, 200)
    t.ok(Math.abs(body.expiresAt - Date.now() / 1000 - 3600) < 60)
    const claims = JSON.parse(Buffer.from(body.token.split('.')[1], 'base64url').toString())
    t.match(claims, {
      typ: 'peer',
      sub: 'u_alice_123',
      channels: [
        'app_abc/room-1'
      ],
      permissions: ['publish', 'subscribe', 'presence', 'send'],
      metadata: { a: 1 },
      peerMetadata: { b: 2 },
      exp: body.expiresAt
    })
  })

  await t.test('POST /v1/tokens: errors name the wrong field', async t => {
    const many = Object.fromEntries(Array.from({ length: 90 }, (_, index) => [`k${index}`, 'x'.repeat(95)]))
    const wrong: Array<[object, [number, string]]> = [
      [{}, [400, 'invalid_request']],
      [{ ...usual, peerId: '' }, [400, 'invalid_request']],
      [{ ...usual, peerId: 'a\tb' }, [400, 'invalid_request']],
      [{ ...usual, peerId: 'x'.repeat(129) }, [400, 'invalid_request']],
      [{ ...usual, permissions: ['fly'] }, [400, 'invalid_request']],
      [{ ...usual, expiresInSec: 86_401 }, [400, 'invalid_request']],
      [{ ...usual, channels: Array.from({ length: 101 }, () => 'a') }, [400, 'invalid_request']],
      [{ ...usual, channels: ['_metered/x'] }, [403, 'channel_reserved']],
      [{ ...usual, channels: ['a\nb'] }, [400, 'invalid_channel']],
      [{ ...usual, metadata: many }, [413, 'invalid_request']],
      [{ ...usual, peerMetadata: { text: 'x'.repeat(4100) } }, [413, 'invalid_request']],
      [{ ...usual, channels: Array.from({ length: 100 }, (_, index) => `${index}${'x'.repeat(200)}`) }, [413, 'invalid_request']]
    ]
    for (const [body, error] of wrong) t.same(errorOf(t, await mint(body)), error, JSON.stringify(body).slice(0, 60))
    t.same(errorOf(t, await registry.call('POST', '/v1/tokens', { token, raw: '{' })), [400, 'invalid_request'])
    t.same(errorOf(t, await registry.call('POST', '/v1/tokens', { token })), [400, 'invalid_request'])
  })

  await t.test('POST /v1/tokens: the name of another principal is refused', async t => {
    const agent = await registry.join('agent-one')
    for (const peerId of ['agent-one', 'user-admin', '$host']) {
      t.same(errorOf(t, await mint({ ...usual, peerId })), [409, 'name_taken'], peerId)
    }
    t.equal((await mint({ peerId: 'agent-one', channels: ['agents/a'], permissions: ['subscribe'] }, agent)).status, 200)
    const admin = await registry.admin()
    t.equal((await registry.post('/v1/tokens', { ...admin, body: { ...usual, peerId: 'user-admin' } })).status, 200)
    t.same(errorOf(t, await mint({ peerId: 'x', channels: ['agents/a'] }, await registry.join('user-mary'))), [403, 'action_not_permitted'])
  })

  await t.test('POST /v1/tokens: rights beyond those of the caller are refused', async t => {
    const agent = await registry.join('agent-two')
    const errors = async (channels: string[], permissions = ['subscribe'], by = agent) => {
      const answer = await mint({ peerId: 'child', channels, permissions }, by)
      return answer.status === 200 ? 200 : errorOf(t, answer)[1]
    }
    for (const channel of ['agents/a', 'agents/*', 'agents/**', 'agents/a*', 'agent-two/deep/**']) {
      t.equal(await errors([channel]), 200, channel)
    }
    for (const channel of ['a', '*', '**', 'agents*', 'agents**', 'agents', 'agent-one/x']) {
      t.equal(await errors([channel]), 'channel_not_authorized', channel)
    }
    const narrow = forge(agent, { grants: [{ channels: ['room/*'], allow: ['subscribe'] }] })
    t.equal(await errors(['room/*'], ['subscribe'], narrow), 200)
    t.equal(await errors(['room/a*'], ['subscribe'], narrow), 200)
    t.equal(await errors(['room/**'], ['subscribe'], narrow), 'channel_not_authorized')
    t.equal(await errors(['room/a'], ['publish'], narrow), 'action_not_permitted')
    t.equal(await errors(['room/a'], ['send'], narrow), 'action_not_permitted')
    const brief = forge(agent, { exp: Math.floor(Date.now() / 1000) + 100 })
    const { body } = await mint({ peerId: 'child', channels: [], expiresInSec: 3600 }, brief)
    t.ok(body.expiresAt <= Math.ceil(Date.now() / 1000) + 100, 'and it does not outlive the token of its caller')
  })
})

t.test('channels', async t => {
  const { findings, before } = answerChecker()
  const registry = await build(t, v1Options, { before, server: { routerOptions: { maxParamLength: 256 } } })
  const names = ['room-1', 'app_abc/room-1', 'any thing ✓', '100%', 'a/peers', '*', 'x'.repeat(256)]

  await t.test('/v1 channels: presence, publish and history', async t => {
    for (const channel of names) {
      const path = `/v1/channels/${encodeURIComponent(channel)}`
      t.same((await registry.get(`${path}/peers`, { token })).body, { channel, peers: [] }, channel)
      const alice = await peer(registry, 'alice', { peerMetadata: { username: 'Alice' } })
      alice.send({ type: 'subscribe', channel, requestId: 's' })
      await alice.next('presence')
      t.same(
        (await registry.get(`${path}/peers`, { token })).body.peers, [{ peerId: 'alice', metadata: { username: 'Alice', role: 'peer' } }]
      )
      const published = (await registry.post(`${path}/publish`, { token, body: { data: { n: 1 }, from: 'system' } })).body
      t.match(published, { channel, offset: 1, subscribers: 1 })
      t.match(await alice.next('message'), { channel, from: 'system', data: { n: 1 } })
      t.match((await registry.post(`${path}/publish`, { token, body: { data: null } })).body, { offset: 2 })
      t.match(await alice.next('message'), { from: '$sk_id_test', data: null })
      const history = (await registry.get(`${path}/history`, { token })).body
      t.match(history, {
        channel,
        epoch: published.epoch,
        offset: 2,
        recovered: true,
        messages: [
          { from: 'system', data: { n: 1 }, offset: 1 }, { data: null, offset: 2 }
        ]
      })
      t.same((await registry.get(
        `${path}/history?epoch=${published.epoch}&offset=1&limit=5`, { token }
      )).body.messages, history.messages.slice(1))
      alice.close()
      await alice.closed
      await until(async () => (await registry.get(`${path}/peers`, { token })).body.peers.length === 0)
    }
  })

  await t.test('/v1 channels: messages with one msgId are published once', async t => {
    const publish = () => registry.post('/v1/channels/dup/publish', { token, body: { data: 1, msgId: 'm1' } })
    const [first, second] = [(await publish()).body, (await publish()).body]
    t.same([second.offset, second.duplicate, first.duplicate], [first.offset, true, undefined])
  })

  await t.test('/v1 channels: the publisher is the caller or a named peer', async t => {
    const agent = await registry.join('agent-one')
    const publish = async (by: string, from?: string) =>
      registry.post('/v1/channels/agents%2Fa/publish', { token: by, body: { data: 1, ...(from && { from }) } })
    t.equal((await publish(agent)).status, 200)
    t.equal((await publish(agent, 'agent-one')).status, 200)
    t.same(errorOf(t, await publish(agent, 'system')), [403, 'action_not_permitted'])
    t.same(errorOf(t, await publish(token, 'agent-one')), [409, 'name_taken'])
    const { body: { messages } } = await registry.get('/v1/channels/agents%2Fa/history', { token: agent })
    t.same(messages.map(({ from }: { from: string }) => from), ['agent-one', 'agent-one'])
  })

  await t.test('/v1 channels: invalid requests are refused', async t => {
    const agent = await registry.join('agent-two')
    const wrong: Array<[Promise<Answer>, [number, string]]> = [
      [registry.post('/v1/channels/a/publish', { token, body: {} }), [400, 'invalid_request']],
      [registry.post('/v1/channels/a/publish', { token, body: { data: 'x'.repeat(65_536) } }), [413, 'invalid_request']],
      [registry.post('/v1/channels/_metered%2Fa/publish', { token, body: { data: 1 } }), [403, 'channel_reserved']],
      [registry.post('/v1/channels/%24agents/publish', { token, body: { data: 1 } }), [403, 'channel_reserved']],
      [registry.get('/v1/channels/__proto__/peers', { token }), [400, 'invalid_channel']],
      [registry.get('/v1/channels/a%0Ab/peers', { token }), [400, 'invalid_request']],
      [registry.get('/v1/channels/room/peers', { token: agent }), [403, 'channel_not_authorized']],
      [registry.post('/v1/channels/room/publish', { token: agent, body: { data: 1 } }), [403, 'channel_not_authorized']],
      [registry.get('/v1/channels/room/history', { token: agent }), [403, 'channel_not_authorized']],
      [registry.get('/v1/channels/a/history?limit=0', { token }), [400, 'invalid_request']],
      [registry.get('/v1/channels/a/history?offset=1', { token }), [400, 'invalid_request']],
      [registry.call('PUT', '/v1/channels/a/publish', { token }), [405, 'method_not_allowed']]
    ]
    for (const [answer, error] of wrong) t.same(errorOf(t, await answer), error)
  })

  t.same(findings, [])
})

t.test('/v1 channels: a host whose path limit is too low for some names gets a warning', async t => {
  let log = ''
  const stream = new Writable({ write (chunk, _encoding, done) { log += chunk; done() } })
  await build(t, v1Options, { server: { logger: { stream } } })
  t.match(log, /maxParamLength/)
})

t.test('peers', async t => {
  const { findings, before } = answerChecker()
  const registry = await build(t, v1Options, { before })

  await t.test('/v1 peers: a message is sent to a peer', async t => {
    const alice = await peer(registry, 'alice')
    const send = (id: string, body: object, by = token) => registry.post(`/v1/peers/${encodeURIComponent(id)}/send`, { token: by, body })
    t.match((await send('alice', { data: [1], from: 'system' })).body, { offset: 1, delivered: true })
    t.match(await alice.next('direct'), { from: 'system', data: [1] })
    t.match((await send('alice', { data: 2, level: 'delivered', msgId: 'm' })).body, { offset: 2, delivered: true })
    t.match((await send('alice', { data: 2, msgId: 'm' })).body, { offset: 2, duplicate: true })
    await registry.join('agent-one')
    t.match((await send('agent-one', { data: 1 })).body, { delivered: false }, 'a registered peer gets it later')
    t.same(errorOf(t, await send('nobody', { data: 1 })), [404, 'peer_not_found'])
    t.same(errorOf(t, await send('alice', {})), [400, 'invalid_request'])
    t.same(
      errorOf(t, await send('alice', { data: 1 }, forge(await registry.join('agent-two'), { grants: [] }))), [403, 'action_not_permitted']
    )
  })

  await t.test('/v1 peers: a request is sent to a peer or to a capability', async t => {
    const agent = await registry.agentSocket(await registry.join('worker-one', { capabilities: ['summarise'] }))
    agent.ws.on('message', raw => {
      const frame = JSON.parse(String(raw)) as { type: string, rid: string, from: string, data: { op: string } }
      if (frame.type !== 'request') return
      if (frame.data.op === 'reply') agent.send({ type: 'reply', rid: frame.rid, data: { from: frame.from, sum: 2 } })
      if (frame.data.op === 'reject') agent.send({ type: 'reject', rid: frame.rid, code: 'busy', message: 'Later' })
      if (frame.data.op === 'wait') agent.send({ type: 'accept', rid: frame.rid })
    })
    const ask = (path: string, body: object, headers = {}) => registry.post(`/v1/${path}`, { token, body, headers })
    t.same((await ask('peers/worker-one/request', { data: { op: 'reply' }, timeoutMs: 5000 })).body, {
      from: 'worker-one', data: { from: '$sk_id_test', sum: 2 }
    })
    t.same((await ask('request', { capability: 'summarise', data: { op: 'reply' }, from: 'planner' })).body, {
      from: 'worker-one', data: { from: 'planner', sum: 2 }
    })
    const rejected = await ask('request', { capability: 'summarise', data: { op: 'reject' } })
    t.same(errorOf(t, rejected), [502, 'request_rejected'])
    t.equal(rejected.body.reason, 'busy')
    t.same(errorOf(t, await ask('peers/worker-one/request', { data: { op: 'wait' }, timeoutMs: 100 })), [504, 'deadline_exceeded'])
    t.same(errorOf(t, await ask('peers/nobody/request', { data: 1 })), [503, 'agent_offline'])
    t.same(errorOf(t, await ask('request', { capability: 'nothing', data: 1 })), [503, 'no_responders'])
    t.same(errorOf(t, await ask('request', { data: 1 })), [400, 'invalid_request'])
    t.same(errorOf(t, await ask('request', { capability: 'summarise', data: 1, timeoutMs: 300_001 })), [400, 'invalid_request'])
    const weak = forge(await registry.join('agent-three'), { grants: [] })
    t.same(errorOf(
      t, await registry.post('/v1/request', { token: weak, body: { capability: 'summarise', data: 1 } })
    ), [403, 'action_not_permitted'])

    await t.test('/v1 peers: closing the HTTP request cancels it', async () => {
      const call = httpRequest(`${registry.base}/v1/peers/worker-one/request`, {
        method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      })
      call.on('error', () => {})
      call.end(JSON.stringify({ data: { op: 'wait', mine: true }, timeoutMs: 60_000 }))
      await until(() => agent.all.some(({ type, data }) => type === 'request' && data.mine))
      call.destroy()
      const { rid } = agent.all.find(({ type, data }) => type === 'request' && data.mine)
      await until(() => agent.all.some(frame => frame.type === 'request_cancelled' && frame.rid === rid))
    })
  })

  await t.test('/v1 peers: a peer is disconnected, wherever it is connected', async t => {
    const clients = [await peer(registry, 'bob'), await peer(registry, 'bob'), await peer(registry, 'carol')]
    t.same((await registry.delete('/v1/peers/bob', { token })).body, { peerId: 'bob', closed: 2 })
    t.same(await Promise.all(clients.slice(0, 2).map(({ closed }) => closed)), [
      { code: 4020, reason: 'Disconnected by an admin' }, { code: 4020, reason: 'Disconnected by an admin' }
    ])
    t.same((await registry.delete('/v1/peers/bob', { token })).body, { peerId: 'bob', closed: 0 })
    const agentToken = await registry.join('agent-four')
    const agent = [await registry.agentSocket(agentToken), await peerSocket(registry, agentToken)]
    t.equal((await registry.delete('/v1/peers/agent-four', { token })).body.closed, 2)
    for (const { closed } of agent) t.equal((await closed).code, 4020)
    t.same(errorOf(t, await registry.delete('/v1/peers/a%00', { token })), [400, 'invalid_request'])
  })

  t.same(findings, [])
})

t.test('usage', async t => {
  const { findings, before } = answerChecker()
  const registry = await build(t, { ...v1Options, v1Ws: { maxConnections: 7 } }, { before })
  const client = await peer(registry, 'alice')
  client.send({ type: 'ping' })
  await client.next('pong')
  t.match((await registry.get('/v1/usage', { token })).body, {
    appId: 'default', periodEndUnix: null, concurrentNow: 1, messagesUsed: 1, plan: { name: null, maxConcurrentConnections: 7 }
  })
  t.same(findings, [])
})

/** A key-value store that fails to store responses. */
class FaultyState extends MemoryKeyValueStore {
  readonly #fault: () => Error

  constructor (fault: () => Error) {
    super()
    this.#fault = fault
  }

  override put (...[entry, onlyIf]: Parameters<MemoryKeyValueStore['put']>): Promise<boolean> {
    if (entry.kind === 'idempotency') throw this.#fault()
    return super.put(entry, onlyIf)
  }
}

t.test('backend faults', async t => {
  async function mintWith (fault: () => Error) {
    const registry = await buildV1(
      t, { storage: { agents: new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 }), kv: new FaultyState(fault) } }
    )
    return registry.post('/v1/tokens', { token, body: { peerId: 'a', channels: [] }, headers: { 'idempotency-key': 'k' } })
  }

  await t.test('backend faults: a store outage is answered with a retry time', async t => {
    const answer = await mintWith(() => problem('storage-unavailable', 'Away', { headers: { 'retry-after': '2' } }))
    t.same(errorOf(t, answer), [503, 'storage_unavailable'])
    t.ok(Number(answer.headers.get('retry-after')) > 0)
  })

  await t.test('backend faults: an internal error discloses nothing', async t => {
    const answer = await mintWith(() => new Error('a secret'))
    t.same(errorOf(t, answer), [500, 'internal_error'])
    t.notMatch(answer.text, /secret/)
  })
})
