import t from 'tap'
import { MemoryAgentStore } from '../../../src/index.js'
import { build } from '../../support/harness.js'
import { assertAlive, openers, refusalOf, strangeFrames } from './helper.js'

const tiers = ['public', 'agents'] as const

/** A ping of exactly this many bytes. */
function pingOf (bytes: number): string {
  const frame = JSON.stringify({ type: 'ping', pad: '' })
  return frame.replace('""', `"${'x'.repeat(bytes - frame.length)}"`)
}

for (const tier of tiers) {
  t.test(`${tier}: pings as text in any case and as JSON are answered, pongs are not`, async t => {
    const client = await openers[tier](await build(t))
    for (const text of ['ping', 'PING', ' Ping\n', '\tpInG ']) {
      client.send(text)
      t.equal(await client.next(), 'pong', JSON.stringify(text))
    }
    for (const pong of ['pong', ' PONG\n', { type: 'pong' }]) client.send(pong)
    client.send({ type: 'ping', requestId: 'r1' })
    const { timestamp, ...frame } = await client.next()
    t.strictSame(frame, { type: 'pong', requestId: 'r1' })
    t.ok(Math.abs(timestamp - Date.now() / 1000) < 10, 'epoch seconds')
    client.send({ type: 'ping' })
    t.strictSame(Object.keys(await client.next()), ['type', 'timestamp'])
  })

  t.test(`${tier}: what is no frame is answered with an error, and the socket lives`, async t => {
    const client = await openers[tier](await build(t))
    const cases: Array<[string, unknown, object]> = [
      ['not JSON', 'hello', { code: 'malformed_message', message: 'Invalid JSON format' }],
      ['nothing', '', { code: 'malformed_message', message: 'Invalid JSON format' }],
      ['an array', '[1]', { code: 'malformed_message', message: 'Expected a JSON object' }],
      ['a number', '5', { code: 'malformed_message', message: 'Expected a JSON object' }],
      ['null', 'null', { code: 'malformed_message', message: 'Expected a JSON object' }],
      ['a string', '"ping"', { code: 'malformed_message', message: 'Expected a JSON object' }],
      ['NaN', '{"type":"ping","x":NaN}', { code: 'malformed_message' }],
      ['a prototype', '{"type":"ping","__proto__":{"admin":true}}', { code: 'malformed_message' }],
      ['a constructor', '{"type":"ping","constructor":{"prototype":{"admin":true}}}', { code: 'malformed_message' }],
      ['a prototype further in', '{"type":"watch","filter":{"__proto__":{"status":"alive"}}}', { code: 'malformed_message' }],
      ['no type', { requestId: 'r' }, { code: 'unknown_type', message: 'Unknown message type: None', requestId: 'r' }],
      ['a type that is null', { type: null }, { code: 'unknown_type', message: 'Unknown message type: None' }],
      ['a type that is a number', { type: 5 }, { code: 'unknown_type', message: 'Unknown message type: 5' }],
      ['an unknown type', { type: 'nope', requestId: 'r' }, { code: 'unknown_type', message: 'Unknown message type: nope', requestId: 'r' }],
      ['a long unknown type', { type: 'x'.repeat(1000) }, { code: 'unknown_type', message: `Unknown message type: ${'x'.repeat(100)}` }],
      ['a type that objects have', { type: 'constructor', requestId: 'r' }, { code: 'unknown_type', requestId: 'r' }],
      ['a frame of the server', { type: 'bookmark', requestId: 'r' }, { code: 'unknown_type', requestId: 'r' }],
      ['a member of the wrong kind', { type: 'watch', since: 5, requestId: 'r' }, { code: 'invalid_frame', message: /^\/since: /, requestId: 'r' }],
      ['an unknown filter', { type: 'watch', filter: { owner: 'me' }, requestId: 'r' }, { code: 'invalid_frame', requestId: 'r' }],
      ['an empty requestId', { type: 'ping', requestId: '' }, { code: 'invalid_frame', requestId: undefined }],
      ['a requestId of 129 characters', { type: 'ping', requestId: 'r'.repeat(129) }, { code: 'invalid_frame', requestId: undefined }],
      ['a requestId that is a number', { type: 'ping', requestId: 5 }, { code: 'invalid_frame', requestId: undefined }],
      ['a binary frame', Buffer.from('{"type":"ping"}'), { code: 'unsupported_encoding' }]
    ]
    for (const [name, frame, expected] of cases) t.match(await refusalOf(client, frame), expected, name)
    client.send({ type: 'ping', requestId: 'r'.repeat(128) })
    t.equal((await client.next('pong')).requestId.length, 128)
    t.notOk('admin' in {})
    t.strictSame(strangeFrames(tier, client.all), [])
  })

  t.test(`${tier}: a frame over the limit is refused and the socket lives; over the hard limit it is closed`, async t => {
    const client = await openers[tier](await build(t))
    const limit = tier === 'public' ? 4096 : 65_536 + 4096
    client.send(pingOf(limit))
    await client.next('pong')
    t.match(await refusalOf(client, pingOf(limit + 1)), { code: 'message_too_large' })
    t.match(await refusalOf(client, pingOf(262_144)), { code: 'message_too_large' })
    client.send(pingOf(300_000))
    t.equal((await client.closed).code, 1009)
  })
}

t.test('a frame that the store fails on is an error of ours, and the socket lives', async t => {
  let failure: Error | undefined
  class FailingStore extends MemoryAgentStore {
    override async setState (command: Parameters<MemoryAgentStore['setState']>[0]) {
      if (failure) throw failure
      return super.setState(command)
    }
  }
  const registry = await build(t, { store: new FailingStore({ leaseMs: 60_000, retentionMs: 60_000 }) })
  const client = await registry.agentSocket(await registry.join())
  failure = new Error('disk on fire at /secret/place')
  t.strictSame(await refusalOf(client, { type: 'status', status: 'alive', requestId: 'r' }), { type: 'error', code: 'internal_error', message: 'Internal error', requestId: 'r' })
  failure = Object.assign(new Error('The store is away'), { type: 'storage-unavailable', statusCode: 503 })
  const { retryAfterMs, ...refusal } = await refusalOf(client, { type: 'status', status: 'alive', requestId: 'r' })
  t.strictSame(refusal, { type: 'error', code: 'storage_unavailable', message: 'The store is away', requestId: 'r' })
  t.ok(Number.isInteger(retryAfterMs) && retryAfterMs >= 1000 && retryAfterMs <= 3000, `${retryAfterMs} ms, another time for each`)
  failure = undefined
  client.send({ type: 'status', status: 'alive', requestId: 'r' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'r' })
})

t.test('a record that cannot be shown is an error of ours for who asks, and for nobody else', async t => {
  class OddStore extends MemoryAgentStore {
    override async register (command: Parameters<MemoryAgentStore['register']>[0]) {
      return super.register(command.id === 'agent-odd' ? { ...command, content: { ...command.content, body: '{"odd":}' } } : command)
    }
  }
  const registry = await build(t, { publicFields: [], store: new OddStore({ leaseMs: 60_000, retentionMs: 60_000 }) })
  await registry.join('agent-odd')
  const client = await registry.watcher()
  t.match(await refusalOf(client, { type: 'get_discovery', requestId: 'r' }), { code: 'internal_error', requestId: 'r' })
  await assertAlive(await registry.watcher())
})

t.test('a requestId that waits for its answer cannot be used for another frame', async t => {
  let release = () => {}
  class SlowStore extends MemoryAgentStore {
    override async setState (command: Parameters<MemoryAgentStore['setState']>[0]) {
      await new Promise<void>(resolve => { release = resolve })
      return super.setState(command)
    }
  }
  const registry = await build(t, { store: new SlowStore({ leaseMs: 60_000, retentionMs: 60_000 }) })
  const client = await registry.agentSocket(await registry.join())
  for (const frame of [{ type: 'status', status: 'draining', requestId: 'r' }, { type: 'unwatch', requestId: 'r' }, { type: 'unwatch', requestId: 'other' }]) client.send(frame)
  t.strictSame(await client.next('error'), { type: 'error', code: 'malformed_message', message: 'This requestId is in use' })
  release()
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'r' }, 'the first is untouched')
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'other' })
  client.send({ type: 'unwatch', requestId: 'r' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'r' }, 'and free again')
})

t.test('a frame sent twice with the same requestId is answered twice', async t => {
  const client = await openers.public(await build(t))
  for (let i = 0; i < 2; i++) client.send({ type: 'unwatch', requestId: 'same' })
  for (let i = 0; i < 2; i++) t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'same' })
  client.send({ type: 'unwatch' })
  await assertAlive(client)
  t.equal(client.all.filter(({ type }) => type === 'ack').length, 2, 'the bare ack is for those who ask for one')
})
