import t, { type Test } from 'tap'
import { Value } from '@sinclair/typebox/value'
import { v1ServerFrames } from '../../../src/protocol/frames/v1.js'
import { closeCodes } from '../../../src/protocol/codes.js'
import { registration, sleep, type Client, type Json } from '../../support/harness.js'
import { assertAlive, expired, forge, nextWhere, refusalOf, sendTogether } from './helper.js'
import { buildV1, peer, peerSocket, peerToken, publishableKey, secretKey } from './v1-helper.js'

/** Sends a frame. @returns its `ack` or `error` */
async function answerTo (client: Client, frame: object): Promise<Json> {
  const requestId = `r${Math.random()}`
  client.send({ requestId, ...frame })
  for (;;) {
    const answer = await client.next()
    if (answer.requestId === ((frame as { requestId?: string }).requestId ?? requestId)) return answer
  }
}

async function codeOf (client: Client, frame: object): Promise<string> {
  return (await answerTo(client, frame)).code
}

/** Checks that every received frame is in the catalogue of the tier. */
function assertKnown (t: Test, { all }: Client) {
  for (const frame of all) t.ok(v1ServerFrames.some(schema => Value.Check(schema, frame)), JSON.stringify(frame))
}

t.test('/v1 protocol', async t => {
  await t.test('/v1: the first frame is a welcome with the rights of this peer', async t => {
    const registry = await buildV1(t)
    const before = Date.now() / 1000
    const metadata = { iceServers: [{ urls: ['stun:stun.example:3478'] }] }
    const { welcome, ...client } = await peer(registry, 'u_alice_123', { metadata, peerMetadata: { username: 'Alice' }, expiresInSec: 600 })
    t.same(Object.keys(welcome), ['type', 'peerId', 'expiresAt', 'serverTime', 'maxMessageSize', 'metadata'])
    t.match(welcome, { type: 'welcome', peerId: 'u_alice_123', maxMessageSize: 65_536, metadata })
    t.ok(Math.abs(welcome.expiresAt - before - 600) < 60)
    t.ok(Math.abs(welcome.serverTime - before) < 60)
    t.equal(client.all.length, 1)
  })

  await t.test('/v1: a subscription gets an ack, then presence', async t => {
    const registry = await buildV1(t)
    const alice = await peer(registry, 'alice', { channels: ['app_abc/*'], peerMetadata: { username: 'Alice' } })
    alice.send('{"type":"subscribe","channel":"app_abc/room-1","requestId":"sub-1","includeSenderMetadata":false}')
    t.match(await alice.next(), { type: 'ack', requestId: 'sub-1', channel: 'app_abc/room-1', offset: 0 })
    const snapshot = {
      type: 'presence',
      channel: 'app_abc/room-1',
      snapshot: true,
      joined: [
        { peerId: 'alice', metadata: { username: 'Alice', role: 'peer' } }
      ],
      left: []
    }
    t.match(await alice.next(), snapshot)
    const bob = await peer(registry, 'bob')
    await answerTo(bob, { type: 'subscribe', channel: 'app_abc/room-1' })
    t.match(await alice.next(), { type: 'presence', channel: 'app_abc/room-1', joined: [{ peerId: 'bob' }], left: [] })
    bob.close()
    t.match(await alice.next(), { type: 'presence', channel: 'app_abc/room-1', joined: [], left: [{ peerId: 'bob' }] })
    assertKnown(t, alice)
  })

  await t.test('/v1: a publish reaches all other subscribers, with metadata on request', async t => {
    const registry = await buildV1(t)
    const [alice, bob, carol] = [
      await peer(registry, 'alice', { peerMetadata: { username: 'Alice' } }), await peer(registry, 'bob'), await peer(registry, 'carol')
    ]
    await answerTo(alice, { type: 'subscribe', channel: 'app_abc/room-1' })
    await answerTo(bob, { type: 'subscribe', channel: 'app_abc/room-1', includeSenderMetadata: true })
    await answerTo(carol, { type: 'subscribe', channel: 'app_abc/room-1' })
    alice.send('{"type":"publish","channel":"app_abc/room-1","data":{"anything":"json-serializable"},"requestId":"pub-1"}')
    t.match(await alice.next('ack'), { type: 'ack', requestId: 'pub-1', channel: 'app_abc/room-1', offset: 1 })
    t.match(await bob.next('message'), {
      type: 'message',
      channel: 'app_abc/room-1',
      from: 'alice',
      data: {
        anything: 'json-serializable'
      },
      fromMetadata: { username: 'Alice' }
    })
    t.notOk('fromMetadata' in await carol.next('message'))
    t.same(await alice.pending(), [], 'but not the sender')
    t.equal(await codeOf(carol, { type: 'unsubscribe', channel: 'app_abc/room-1', requestId: 'unsub-1' }), undefined)
    alice.send({ type: 'publish', channel: 'app_abc/room-1', data: null })
    t.equal((await bob.next('message')).data, null)
    await assertAlive(carol)
    t.equal(carol.all.filter(({ type }) => type === 'message').length, 1, 'and not former subscribers')
    for (const client of [alice, bob, carol]) assertKnown(t, client)
  })

  await t.test('/v1: a send reaches one peer', async t => {
    const registry = await buildV1(t)
    const [alice, bob] = [await peer(registry, 'alice', { peerMetadata: { username: 'Alice' } }), await peer(registry, 'bob')]
    alice.send('{"type":"send","to":"bob","data":{"anything":"json-serializable"},"requestId":"send-1"}')
    t.match(await alice.next(), { type: 'ack', requestId: 'send-1' })
    t.match(
      await bob.next(), { type: 'direct', from: 'alice', data: { anything: 'json-serializable' }, fromMetadata: { username: 'Alice' } }
    )
    assertKnown(t, bob)
  })

  await t.test('/v1: a ping gets a pong, and bare text is an invalid frame', async t => {
    const client = await peer(await buildV1(t), 'alice')
    t.match(await answerTo(client, { type: 'ping' }), { type: 'pong' })
    client.send({ type: 'ping' })
    t.equal((await client.next()).type, 'pong')
    client.send('ping')
    t.equal((await client.next()).code, 'malformed_message')
  })

  await t.test('/v1: an ack is sent on request', async t => {
    const client = await peer(await buildV1(t), 'alice', { permissions: ['subscribe', 'publish', 'send'] })
    for (const frame of [
      { type: 'subscribe', channel: 'a' }, { type: 'publish', channel: 'a', data: 1 }, { type: 'send', to: 'alice', data: 1 },
      { type: 'unsubscribe', channel: 'a' }
    ]) client.send(frame)
    t.equal((await client.next()).type, 'direct')
    await assertAlive(client)
    t.same(client.all.map(({ type }) => type), ['welcome', 'direct', 'pong'])
  })

  await t.test('/v1: a shutdown notifies peers with a retry time', async t => {
    const registry = await buildV1(t)
    const client = await peer(registry, 'alice')
    const closing = registry.app.close()
    t.ok((await client.next('going_away')).retryAfterMs >= 0)
    t.equal((await client.closed).code, closeCodes.goingAway)
    await closing
  })
})

t.test('/v1 authentication', async t => {
  const registry = await buildV1(t, {
    peerKeys: [
      { key: publishableKey, channels: ['lobby'], permissions: ['subscribe'], origins: ['https://app.example.com'], maxConnections: 1 }
    ]
  })
  const tokens = {
    agent: await registry.join('agent-one'),
    temp: await registry.tempToken('agent-two'),
    peer: await peerToken(registry, 'alice')
  }
  const closeOf = async (query: string, headers: Record<string, string> = {}) =>
    (await registry.socket(`/v1${query}`, [], { headers }).closed).code
  const firstOf = async (query: string, headers: Record<string, string> = {}, protocols: string[] = []) =>
    registry.socket(`/v1${query}`, protocols, { headers }).next()

  await t.test('/v1 authentication: a token in the query, a header or a subprotocol is accepted', async t => {
    t.equal((await firstOf(`?token=${tokens.peer}`)).peerId, 'alice')
    t.equal((await firstOf('', { authorization: `Bearer ${tokens.peer}` })).peerId, 'alice')
    t.equal((await firstOf('', {}, ['agent-registry.json', `bearer.${tokens.peer}`])).peerId, 'alice')
    t.match(await firstOf(`?token=${tokens.agent}`), { peerId: 'agent-one' })
    t.match(await firstOf(`?token=${(await registry.admin()).token}`), { peerId: 'user-admin' })
  })

  await t.test('/v1 authentication: a missing or wrong token is reported after the upgrade', async t => {
    for (const query of ['', '?token=', '?token=nonsense', '?key=nonsense', '?token=a&token=b', `?token=${forge(
      tokens.peer, {}, 'another secret of more than 32 characters'
    )}`, `?ticket=${tokens.peer}`]) {
      t.equal(await closeOf(query), closeCodes.tokenInvalid, query)
    }
    t.equal(await closeOf(`?token=${expired(tokens.peer)}`), closeCodes.tokenExpired)
    t.equal(await closeOf(`?token=${tokens.temp}`), closeCodes.notAllowed)
    for (const missing of ['channels', 'permissions']) {
      t.equal(await closeOf(`?token=${forge(tokens.peer, { [missing]: undefined })}`), closeCodes.tokenInvalid, missing)
    }
  })

  await t.test('/v1 authentication: a publishable key gives a new identity each time, from its origins, up to its limit', async t => {
    const origin = { origin: 'https://app.example.com' }
    t.equal(await closeOf(`?key=${publishableKey}`), closeCodes.notAllowed, 'a client without an origin is not a page')
    t.equal(await closeOf(`?key=${publishableKey}`, { origin: 'https://evil.example.com' }), closeCodes.notAllowed)
    const client = registry.socket(`/v1?key=${publishableKey}`, [], { headers: origin })
    const { peerId, expiresAt } = await client.next('welcome')
    t.match(peerId, /^[\w-]{36}$/)
    t.equal(expiresAt, null)
    t.equal(await closeOf(`?key=${publishableKey}`, origin), closeCodes.overQuota)
    client.close()
    await client.closed
    t.not((await firstOf(`?key=${publishableKey}`, origin)).peerId, peerId)
  })

  await t.test('/v1 authentication: an agent named like a user is refused', async t => {
    t.equal(await closeOf(`?token=${await registry.join('user-admin')}`), closeCodes.notAllowed)
  })

  await t.test('/v1 authentication: a request that is not an upgrade is refused', async t => {
    t.equal((await registry.get('/v1')).status, 400)
  })
})

t.test('/v1 authentication: the token of a peer is refused elsewhere', async t => {
  const registry = await buildV1(t)
  const token = await peerToken(registry, 'alice')
  t.equal((await registry.socket('/agents/ws', [], { headers: { authorization: `Bearer ${token}` } }).closed).code, closeCodes.notAllowed)
  t.equal((await registry.socket(`/agents/ws?token=${token}`).closed).code, closeCodes.notAllowed)
  const first = registry.socket('/agents/ws')
  await first.next('auth_required')
  first.send({ token })
  t.equal((await first.closed).code, closeCodes.policyViolation)
  t.equal(
    (await registry.socket('/dashboard/ws', [], { headers: { authorization: `Bearer ${token}` } }).closed).code, closeCodes.notAllowed
  )
  for (const path of ['/agents', '/agents/stats', '/agents/changes', '/v1/usage', '/v1/channels/a/peers']) {
    t.equal((await registry.get(path, { token })).status, 403, path)
  }
  for (const path of ['/agents/register', '/tokens/refresh', '/ws-tickets', '/v1/tokens', '/tokens/mint']) {
    t.equal((await registry.post(path, { token, body: registration() })).status, 403, path)
  }
  t.equal((await registry.post(`/tokens/validate?token=${token}`)).body.valid, false)
})

t.test('/v1 rights', async t => {
  const registry = await buildV1(t)

  await t.test('/v1 rights: the token lists channels, and a trailing star is a prefix', async t => {
    const client = await peer(registry, 'alice', { channels: ['room-*', 'deep/**', 'exact', 'a*b'] })
    const may: string[] = ['room-1', 'room-*', 'deep/a', 'deep/a/b', 'exact', 'a*b']
    const mayNot = ['room-', 'room-1/2', 'room', 'deep/', 'deep', 'exact2', 'exac', 'axb', '*', '**', 'other']
    for (const channel of may) t.equal((await answerTo(client, { type: 'subscribe', channel })).type, 'ack', channel)
    for (const channel of mayNot) t.equal(await codeOf(client, { type: 'subscribe', channel }), 'channel_not_authorized', channel)
  })

  await t.test('/v1 rights: only permitted actions are allowed', async t => {
    const client = await peer(registry, 'bob', { permissions: ['subscribe'] })
    t.equal((await answerTo(client, { type: 'subscribe', channel: 'a' })).type, 'ack')
    t.equal(await codeOf(client, { type: 'publish', channel: 'a', data: 1 }), 'action_not_permitted')
    t.equal(await codeOf(client, { type: 'send', to: 'bob', data: 1 }), 'action_not_permitted')
    await assertAlive(client)
    t.notOk(client.all.some(({ type }) => type === 'presence'), 'without the right there is no presence')
  })

  await t.test('/v1 rights: an agent has its grants, and its frames renew its lease', async t => {
    const client = await peerSocket(registry, await registry.join('agent-one'))
    for (const channel of ['agents/x', 'agent-one/inbox']) t.equal((await answerTo(client, { type: 'subscribe', channel })).type, 'ack')
    t.equal(await codeOf(client, { type: 'subscribe', channel: 'room-1' }), 'channel_not_authorized')
    const granted = await peerSocket(
      registry, forge(await registry.join('agent-two'), { grants: [{ channels: ['room-1'], allow: ['publish'] }] })
    )
    t.equal((await answerTo(granted, { type: 'publish', channel: 'room-1', data: 1 })).type, 'ack')
    t.equal(await codeOf(granted, { type: 'subscribe', channel: 'room-1' }), 'action_not_permitted')
  })
})

t.test('/v1 rights: an agent connected only to /v1 keeps its lease, also by answering pings', async t => {
  const registry = await buildV1(t, { lease: { durationMs: 600 } })
  const client = await peerSocket(registry, await registry.join('agent-one'))
  await sleep(3000)
  t.equal(registry.app.agentRegistry.get('agent-one')!.status, 'alive')
  t.same(client.all.map(({ type }) => type), ['welcome'], 'and only protocol pings are sent')
})

t.test('/v1: invalid frames are answered with an error, and the socket stays open', async t => {
  const registry = await buildV1(t, { messaging: { maxSubscriptions: 2 } })
  const client = await peer(registry, 'alice')
  const wrong: Array<[string, unknown]> = [
    ['malformed_message', '{'],
    ['malformed_message', '[]'],
    ['malformed_message', '"text"'],
    ['malformed_message', { type: 'subscribe', channel: 'a', requestId: '' }],
    ['malformed_message', { type: 'subscribe', channel: 'a', includeSenderMetadata: 'yes' }],
    ['unknown_type', { type: 'nope' }],
    ['unknown_type', {}],
    ['unknown_type', { type: 'auth', token: 'x' }],
    ['invalid_channel', { type: 'subscribe' }],
    ['invalid_channel', { type: 'subscribe', channel: '' }],
    ['invalid_channel', { type: 'subscribe', channel: 5 }],
    ['invalid_channel', { type: 'subscribe', channel: 'x'.repeat(257) }],
    ['invalid_channel', { type: 'publish', channel: 'a\nb', data: 1 }],
    ['invalid_channel', { type: 'unsubscribe', channel: '\u0085' }],
    ['invalid_channel', { type: 'subscribe', channel: '__proto__' }],
    ['channel_reserved', { type: 'subscribe', channel: '_metered/x' }],
    ['channel_reserved', { type: 'publish', channel: '_INTERNAL/x', data: 1 }],
    ['channel_reserved', { type: 'subscribe', channel: '_system/x' }],
    ['channel_reserved', { type: 'subscribe', channel: '$agents' }],
    ['invalid_peer_id', { type: 'send', data: 1 }],
    ['invalid_peer_id', { type: 'send', to: '', data: 1 }],
    ['invalid_peer_id', { type: 'send', to: 'x'.repeat(129), data: 1 }],
    ['invalid_peer_id', { type: 'send', to: 'a\u0000', data: 1 }],
    ['peer_not_found', { type: 'send', to: 'nobody', data: 1 }],
    ['missing_data', { type: 'send', to: 'alice' }],
    ['missing_data', { type: 'publish', channel: 'a' }],
    ['message_too_large', { type: 'publish', channel: 'a', data: 'x'.repeat(65_536) }],
    ['message_too_large', { type: 'send', to: 'alice', data: 'x'.repeat(100_000) }],
    ['unsupported_encoding', Buffer.from('{}')]
  ]
  for (const [code, frame] of wrong) t.equal((await refusalOf(client, frame)).code, code, JSON.stringify(frame).slice(0, 80))
  for (const channel of ['_metered', 'any thing ✓']) t.equal((await answerTo(client, { type: 'subscribe', channel })).type, 'ack', channel)
  t.equal(await codeOf(client, { type: 'subscribe', channel: 'third' }), 'channel_limit_exceeded')
  t.equal((await answerTo(client, { type: 'subscribe', channel: '_metered' })).type, 'ack', 'a repeated entry does not count as a third')
})

t.test('/v1: broker failures have the error codes of existing clients', async t => {
  const registry = await buildV1(t, { authorizePublish: () => new Promise(() => {}), limits: { hookTimeoutMs: 50 } })
  t.equal(await codeOf(await peer(registry, 'alice'), { type: 'publish', channel: 'a', data: 1 }), 'backend_error')
})

t.test('/v1: presence follows the ack once and complete, also on a repeated request', async t => {
  const registry = await buildV1(t)
  const bob = await peer(registry, 'bob')
  await answerTo(bob, { type: 'subscribe', channel: 'room' })
  const alice = await peer(registry, 'alice')
  for (let round = 0; round < 20; round++) {
    const from = alice.all.length
    // Other peers join and leave meanwhile.
    const carol = await peer(registry, `carol-${round}`)
    carol.send({ type: 'subscribe', channel: 'room' })
    sendTogether(alice, [{ type: 'subscribe', channel: 'room', requestId: `s${round}` }, { type: 'ping', requestId: `p${round}` }])
    await nextWhere(alice, 'presence', ({ snapshot }) => snapshot)
    carol.close()
    await nextWhere(alice, 'presence', ({ left }) => left.length > 0)
    const frames = alice.all.slice(from)
    const ack = frames.findIndex(({ type, requestId }) => type === 'ack' && requestId === `s${round}`)
    const presences = frames.filter(({ type }) => type === 'presence')
    t.equal(presences.filter(({ snapshot }) => snapshot).length, 1)
    const shown = frames.findIndex(({ snapshot }) => snapshot)
    t.ok(shown > ack, 'after the ack')
    if (round === 0) t.equal(presences[0].snapshot, true, 'before any change')
    t.ok(frames[shown].joined.some(({ peerId }: Json) => peerId === 'bob') &&
      frames[shown].joined.some(({ peerId }: Json) => peerId === 'alice'))
    alice.send({ type: 'unsubscribe', channel: 'room' })
    await assertAlive(alice)
  }
})

t.test('/v1: agents on /agents/ws and peers on /v1 share channels', async t => {
  const registry = await buildV1(t)
  const agent = await registry.agentSocket(forge(
    await registry.join('agent-one'), { grants: [{ channels: ['**'], allow: ['subscribe', 'publish', 'presence', 'send', 'broadcast'] }] }
  ))
  const alice = await peer(registry, 'alice', { peerMetadata: { username: 'Alice' } })

  await t.test('/v1 and agents tier: channels have names in both dialects', async t => {
    for (const [name, encoded] of [
      ['room/1', 'room/1'], ['any thing ✓', 'any%20thing%20%E2%9C%93'], ['100%', '100%25'], ['a//b', 'a%2F%2Fb'], ['*', '%2A']
    ] as const) {
      t.equal((await answerTo(agent, { type: 'subscribe', channel: encoded, presence: true })).type, 'ack', encoded)
      t.equal((await answerTo(alice, { type: 'subscribe', channel: name })).type, 'ack')
      t.match(await nextWhere(agent, 'presence', ({ joined }) =>
        joined.some(({ peerId }: Json) => peerId === 'alice')), { channel: encoded })
      t.match(await nextWhere(alice, 'presence', ({ joined }) =>
        joined.some(({ peerId }: Json) => peerId === 'agent-one')), { channel: name, joined: [{}, {}] })
      agent.send({ type: 'publish', channel: encoded, data: name })
      t.match(await alice.next('message'), { channel: name, from: 'agent-one', data: name })
      alice.send({ type: 'publish', channel: name, data: name })
      t.match(await agent.next('message'), { channel: encoded, from: 'alice', data: name })
    }
  })

  await t.test('/v1 and agents tier: agents and peers send messages to each other', async t => {
    t.match(await answerTo(alice, { type: 'send', to: 'agent-one', data: { a: 1 } }), { type: 'ack' })
    t.match(await agent.next('direct'), { from: 'alice', data: { a: 1 }, fromMetadata: { username: 'Alice', role: 'peer' } })
    t.match(await answerTo(agent, { type: 'send', to: 'alice', data: [2] }), { type: 'ack', delivered: true })
    t.match(await alice.next('direct'), { from: 'agent-one', data: [2], fromMetadata: { agent_id: 'agent-one' } })
  })

  await t.test('/v1 and agents tier: it works in the /v1 dialect too, to one and to all', async t => {
    agent.send({ type: 'message', to: 'alice', content: 'hello' })
    t.match(await alice.next('direct'), { from: 'agent-one', data: 'hello' })
    agent.send({ type: 'message', content: 'hello all' })
    t.match(await alice.next('direct'), { from: 'agent-one', data: 'hello all' })
  })

  await t.test('/v1 and agents tier: presence of the tier includes both', async t => {
    await answerTo(agent, { type: 'subscribe', channel: '$agents' })
    const { joined } = await nextWhere(agent, 'presence', ({ channel, snapshot }) => channel === '$agents' && snapshot)
    t.match(joined.find(({ peerId }: Json) =>
      peerId === 'alice'), { peerId: 'alice', status: 'online', metadata: { username: 'Alice', role: 'peer' } })
    alice.close()
    t.match(await nextWhere(agent, 'presence', ({ channel, left }) =>
      channel === '$agents' && left.length > 0), { left: [{ peerId: 'alice', status: 'offline' }] })
  })
})

t.test('/v1: a socket ends with its token', async t => {
  const registry = await buildV1(t)

  await t.test('/v1 token: it expires without a prior notice', async t => {
    const client = await peer(registry, 'alice', { expiresInSec: 2 })
    t.equal((await client.closed).code, closeCodes.tokenExpired)
    t.same(client.all.map(({ type }) => type), ['welcome'])
  })

  await t.test('/v1 token: it is revoked', async t => {
    const token = await peerToken(registry, 'alice')
    const client = await peerSocket(registry, token)
    t.equal((await registry.post('/tokens/revoke', { ...await registry.admin(), body: { token } })).status, 200)
    t.equal((await client.closed).code, closeCodes.tokenInvalid)
    t.equal((await registry.socket(`/v1?token=${token}`).closed).code, closeCodes.tokenInvalid)
  })

  await t.test('/v1 token: its session ends', async t => {
    const admin = await registry.admin()
    const { body: { token } } = await registry.post('/v1/tokens', { ...admin, body: { peerId: 'alice', channels: ['a'] } })
    const client = await peerSocket(registry, token)
    await registry.post('/auth/logout', admin)
    t.equal((await client.closed).code, closeCodes.tokenInvalid)
  })

  await t.test('/v1 token: the agent that created it leaves', async t => {
    const agent = await registry.join('agent-one')
    const {
      body: { token }
    } = await registry.post('/v1/tokens', { token: agent, body: { peerId: 'alice', channels: ['agents/a'], permissions: ['subscribe'] } })
    const client = await peerSocket(registry, token)
    await registry.delete('/agents/agent-one', { token: agent })
    t.equal((await client.closed).code, closeCodes.tokenInvalid)
    t.equal((await registry.socket(`/v1?token=${token}`).closed).code, closeCodes.tokenInvalid)
  })

  await t.test('/v1 token: an agent registers under its name', async t => {
    const token = await peerToken(registry, 'agent-two')
    const client = await peerSocket(registry, token)
    const agent = await registry.join('agent-two')
    t.equal((await client.closed).code, closeCodes.notAllowed)
    t.equal((await registry.socket(`/v1?token=${token}`).closed).code, closeCodes.notAllowed)
    const { body } = await registry.post(
      '/v1/tokens', { token: agent, body: { peerId: 'agent-two', channels: ['agents/a'], permissions: ['subscribe'] } }
    )
    t.equal((await peerSocket(registry, body.token)).welcome.peerId, 'agent-two', 'but that agent may grant its name')
  })
})

t.test('/v1: floods and oversized frames are answered as on other tiers', async t => {
  const registry = await buildV1(t, { v1Ws: { messagesPerSecond: 1, burst: 2, maxMessageSize: 1000 } })
  const client = await peer(registry, 'alice')
  t.equal(client.welcome.maxMessageSize, 1000)
  for (let i = 0; i < 3; i++) client.send({ type: 'ping' })
  t.ok((await client.next('error')).retryAfterMs > 0)
  const other = await peer(registry, 'bob')
  other.send('x'.repeat(300_000))
  t.equal((await other.closed).code, closeCodes.tooBig)
})

t.test('/v1: the tier exists only when enabled', async t => {
  const registry = await buildV1(t, { routes: { v1: false } })
  t.equal((await registry.socket('/v1?token=x').refused).status, 404)
  t.equal((await registry.get('/v1/usage', { token: secretKey })).status, 404)
})
