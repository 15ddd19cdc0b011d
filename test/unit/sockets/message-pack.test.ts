import { deepStrictEqual } from 'node:assert/strict'
import { decode, encode } from '@msgpack/msgpack'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { pack, unpack } from '../../../src/protocol/message-pack.js'
import { PoisonousFrame } from '../../../src/protocol/validation.js'
import { build, fingerprint, type Client, type Harness, type Json } from '../../support/harness.js'
import { assertAlive, nextWhere } from './helper.js'
import { seed } from '../../support/lengths.js'

const packed = 'agent-registry.msgpack'
const generous = { messagesPerSecond: 1_000_000, burst: 1_000_000 }
const options = {
  publicWs: { ...generous, intervalMs: 60_000 },
  agentsWs: { ...generous, intervalMs: 60_000 },
  dashboardWs: { ...generous, intervalMs: 60_000 },
  sockets: {
    messagesPerSecondPerAddress: 1_000_000,
    burstPerAddress: 1_000_000,
    messagesPerSecondPerPrincipal: 1_000_000,
    burstPerPrincipal: 1_000_000
  }
}

const kindsOf = new WeakMap<Client, boolean[]>()

/** A client that records whether each frame was binary. */
function open (registry: Harness, path: string, protocols: string[], headers: Record<string, string> = {}): Client {
  const client = registry.socket(path, protocols, { headers })
  const kinds: boolean[] = []
  kindsOf.set(client, kinds)
  client.ws.on('message', (_data, isBinary) => kinds.push(isBinary))
  return client
}

const sendPacked = (client: Client, frame: unknown) => { client.ws.send(encode(frame)) }

/** Frames without members that depend on the time or the connection. */
function withoutVolatile (frame: Json): Json {
  const moments = new Set(['timestamp', 'connectionId', 'serverTime', 'expiresAt', 'last_seen', 'started_at'])
  return JSON.parse(JSON.stringify(frame, (key, value) => moments.has(key) ? undefined : value))
}

/** The answer to a frame sent in the encoding of the client. */
async function answer (client: Client, frame: Json, isPacked: boolean): Promise<Json> {
  const requestId = `q-${frame.requestId ?? frame.type}`
  if (isPacked) sendPacked(client, { ...frame, requestId })
  else client.send({ ...frame, requestId })
  return withoutVolatile(await nextWhere(client, undefined as unknown as string, answer => answer.requestId === requestId))
}

/** Sends the same frames in both encodings, and in text on a MessagePack connection. */
async function assertSameAnswers (t: Test, { json, binary }: { json: Client, binary: Client }, frames: object[]) {
  for (const frame of frames) {
    const expected = await answer(json, frame, false)
    t.strictSame(await answer(binary, frame, true), expected, expected.type)
    t.strictSame(await answer(binary, frame, false), expected, 'requested in text')
  }
  t.ok(kindsOf.get(json)!.every(isBinary => !isBinary))
  t.ok(kindsOf.get(binary)!.every(Boolean))
  binary.send('PING ')
  t.equal(await nextWhere(binary, 'pong', frame => frame === 'pong'), 'pong')
  t.equal(kindsOf.get(binary)!.at(-1), false, 'bare words stay text')
}

const wrong = [{ type: 'nope' }, { type: 7 }, {}, { type: 'watch', filter: { nothing: 1 } }, { type: 'watch', since: 7 }]

t.test('MessagePack: on the public tier each answer equals that of JSON', async t => {
  const registry = await build(t, options)
  for (let n = 0; n < 5; n++) await registry.join(`agent-${n}`, { context_brief: 'An agent with a name such as 🦊 or é' })
  const [json, binary] = [open(registry, '/public/ws', []), open(registry, '/public/ws', [packed])]
  const [welcome, packedWelcome] = [await json.next('welcome'), await binary.next('welcome')]
  t.strictSame(packedWelcome, welcome)
  t.equal(binary.ws.protocol, packed)
  await assertSameAnswers(t, { json, binary }, [
    { type: 'ping' }, { type: 'get_discovery' }, { type: 'get_discovery', page: 2, page_size: 2 }, { type: 'watch' }, { type: 'unwatch' },
    ...wrong
  ])
  for (const client of [json, binary]) client.send({ type: 'watch', snapshot: true })
  t.strictSame(withoutVolatile(await binary.next('agents_snapshot')), withoutVolatile(await json.next('agents_snapshot')))
  await registry.join('agent-new')
  t.strictSame(withoutVolatile(await binary.next('agents_delta')), withoutVolatile(await json.next('agents_delta')))
})

t.test('MessagePack: it works on the agents tier, with the token in any of its places', async t => {
  const registry = await build(t, options)
  const token = await registry.join()
  await registry.post('/agents/agent-one/heartbeat', { token })
  const ways: Record<string, () => Promise<Client>> = {
    'as a subprotocol': async () => open(registry, '/agents/ws', [packed, `bearer.${token}`]),
    'as a subprotocol that comes first': async () => open(registry, '/agents/ws', [`bearer.${token}`, packed]),
    'in a header': async () => open(registry, '/agents/ws', [packed], { authorization: `Bearer ${token}` }),
    'in a first frame of MessagePack': async () => {
      const client = open(registry, '/agents/ws', [packed])
      await client.next('auth_required')
      sendPacked(client, { token })
      return client
    }
  }
  const json = open(registry, '/agents/ws', [`bearer.${token}`, 'agent-registry.json'])
  const expected = withoutVolatile(await json.next('auth_success'))
  const list = withoutVolatile(await json.next('list'))
  for (const [name, way] of Object.entries(ways)) {
    const binary = await way()
    t.strictSame(withoutVolatile(await binary.next('auth_success')), expected, name)
    t.strictSame(withoutVolatile(await binary.next('list')), list)
    t.equal(binary.ws.protocol, packed)
    await assertSameAnswers(t, {
      json, binary
    }, [{ type: 'ping' }, { type: 'status', status: 'alive' }, { type: 'watch' }, { type: 'auth', token: 'no token' }, ...wrong])
    binary.close()
  }
  const alone = await open(registry, '/agents/ws', [`bearer.${token}`]).refused
  t.match([alone.status, JSON.parse(alone.text).type], [400, /request-error$/])
  const refused = open(registry, '/agents/ws', [packed, 'bearer.nonsense'])
  t.equal((await refused.closed).code, 4001)
})

t.test('MessagePack: it works on the dashboard tier', async t => {
  const registry = await build(t, options)
  await registry.join()
  const { token } = await registry.admin()
  async function dashboard (protocols: string[]) {
    const client = open(registry, '/dashboard/ws', protocols, protocols.length === 2 ? { 'x-client-fingerprint': fingerprint } : {})
    if (protocols.length < 2) await client.opened
    if (protocols.length === 1) sendPacked(client, { type: 'auth', token })
    if (protocols.length === 0) client.send({ type: 'auth', token })
    await client.next('logs')
    return client
  }
  const json = await dashboard([])
  for (const protocols of [[packed], [packed, `bearer.${token}`]]) {
    const binary = await dashboard(protocols)
    t.strictSame(binary.all.map(({ type }) => type), json.all.slice(0, binary.all.length).map(({ type }) => type),
      'starts as the other did')
    await assertSameAnswers(
      t, { json, binary }, [{ type: 'ping' }, { type: 'pause_monitoring' }, { type: 'resume_monitoring' }, { type: 'watch' }, ...wrong]
    )
    binary.close()
  }
})

t.test('MessagePack: a binary frame without the subprotocol is refused with a hint', async t => {
  const registry = await build(t, options)
  for (const protocols of [[], ['agent-registry.json'], ['something-else', 'agent-registry.json']]) {
    const client = open(registry, '/public/ws', protocols)
    await client.next('welcome')
    sendPacked(client, { type: 'ping', requestId: 'r' })
    t.match(await client.next('error'), { code: 'unsupported_encoding' })
    await assertAlive(client)
  }
})

const bytes = (...parts: Array<number | string | Uint8Array>) =>
  Buffer.concat(parts.map(part => typeof part === 'number' ? Buffer.from([part]) : Buffer.from(part)))
const ping = { type: 'ping', requestId: 'r' }
/** `{type: 'ping', requestId: 'r', x: …}` with an x that the encoder would not produce. */
const withX = (x: Uint8Array) => bytes(0x83, encode('type'), encode('ping'), encode('requestId'), encode('r'), encode('x'), x)
const deep = (depth: number) => bytes(Buffer.alloc(depth, 0x91), 0xc0)
const int64 = (first: number, hex: string) => bytes(first, Buffer.from(hex, 'hex'))

const hostile: Record<string, Uint8Array> = {
  'nothing at all': bytes(),
  'a header without its bytes': bytes(0xda, 1),
  'a truncated string': encode(ping).subarray(0, -1),
  'a truncated map': bytes(0x82, encode('type'), encode('ping')),
  'a truncated number': withX(bytes(0xcb, 1, 2, 3)),
  'trailing bytes': bytes(encode(ping), 0xc0),
  'two frames in one': bytes(encode(ping), encode(ping)),
  'an unused byte': withX(bytes(0xc1)),
  'an array of 2^32 members': bytes(0xdd, Buffer.alloc(4, 0xff)),
  'a map of 2^32 members': bytes(0xdf, Buffer.alloc(4, 0xff)),
  'a string of 2^32 bytes': withX(bytes(0xdb, Buffer.alloc(4, 0xff))),
  'arrays in arrays that each announce 65,535': Buffer.from('dcffff'.repeat(20_000), 'hex'),
  'maps in arrays that announce more than the input holds': Buffer.from('9fde7fff'.repeat(10_000), 'hex'),
  '60,000 nested arrays': deep(60_000),
  '60,000 nested maps': bytes(Buffer.concat(Array.from({ length: 20_000 }, () => bytes(0x81, encode('k')))), 0xc0, 0xc0),
  bytes: withX(encode(new Uint8Array([1, 2, 3]))),
  'a date': withX(encode(new Date())),
  'an extension': withX(bytes(0xd4, 5, 1)),
  'a long extension': withX(bytes(0xc7, 3, 5, 1, 2, 3)),
  'a number as a key': bytes(0x81, 1, 1),
  'an array as a key': bytes(0x81, 0x91, 1, 1),
  'null as a key': bytes(0x81, 0xc0, 1),
  NaN: withX(encode(Number.NaN)),
  Infinity: withX(encode(Infinity)),
  'minus Infinity, deep inside': withX(encode([{ a: [-Infinity] }])),
  'text that is not UTF-8': withX(bytes(0xa2, 0xc3, 0x28)),
  'text that ends in the middle of a character': withX(bytes(0xa1, 0xe2)),
  'an incomplete character': withX(bytes(0xa3, 0xed, 0xa0, 0x80)),
  'a long text that is not UTF-8': withX(bytes(0xd9, 250, Buffer.alloc(249, 'x'), 0xff)),
  'a key that is not UTF-8': bytes(0x81, 0xa1, 0xff, 1),
  'an array': encode([ping]),
  'a text': encode('ping'),
  null: bytes(0xc0)
}

/** The answer to input that decodes as JSON does. */
const unusual: Record<string, { frame: Uint8Array, answer: object }> = {
  'a member that is 20,000 deep': { frame: withX(deep(20_000)), answer: { type: 'pong', requestId: 'r' } },
  'a type that is 20,000 deep': {
    frame: bytes(
      0x82, encode('type'), deep(20_000), encode('requestId'), encode('r')
    ),
    answer: { type: 'error', code: 'unknown_type', requestId: 'r' }
  },
  'a 64-bit integer': { frame: withX(int64(0xcf, 'ffffffffffffffff')), answer: { type: 'pong', requestId: 'r' } },
  'a negative 64-bit integer': { frame: withX(int64(0xd3, '8000000000000000')), answer: { type: 'pong', requestId: 'r' } },
  'a 32-bit float': { frame: withX(bytes(0xca, 0x3f, 0xc0, 0, 0)), answer: { type: 'pong', requestId: 'r' } },
  'an empty key': { frame: encode({ ...ping, '': 1 }), answer: { type: 'pong', requestId: 'r' } },
  'the last of two members with one name': {
    frame: bytes(0x82, encode('type'), encode('nope'), encode('type'), encode('ping')), answer: { type: 'pong' }
  },
  'a member named constructor': { frame: encode({ ...ping, constructor: 1 }), answer: { type: 'pong', requestId: 'r' } }
}

const proto = bytes(encode('__proto__'), encode({ admin: true }))
const poisonous: Record<string, Uint8Array> = {
  'a member __proto__': bytes(0x83, encode('type'), encode('ping'), encode('requestId'), encode('r'), proto),
  '__proto__ before the rest': bytes(0x83, proto, encode('type'), encode('ping'), encode('requestId'), encode('r')),
  '__proto__ inside': withX(bytes(0x91, 0x81, proto)),
  '__proto__ in a longer form': bytes(
    0xde, 0, 3, encode('type'), encode('ping'), encode('requestId'), encode('r'), 0xda, 0, 9, '__proto__', 1
  ),
  'constructor.prototype': encode({ ...ping, constructor: { prototype: { admin: true } } }),
  'constructor.prototype inside': encode({ ...ping, x: [{ constructor: { prototype: 1 } }] })
}

t.test('MessagePack: undecodable frames are malformed, as invalid JSON is', async t => {
  const registry = await build(t, options)
  const client = open(registry, '/agents/ws', [packed, `bearer.${await registry.join()}`])
  await client.next('list')
  const before = process.memoryUsage().rss
  for (const [name, frame] of Object.entries(hostile)) {
    client.ws.send(frame)
    t.match(await client.next('error'), { code: 'malformed_message' }, name)
  }
  for (let round = 0; round < 100; round++) for (const frame of Object.values(hostile).slice(8, 13)) client.ws.send(frame)
  await assertAlive(client)
  t.ok(process.memoryUsage().rss - before < 300_000_000, 'announced sizes allocate nothing')
  for (const [name, { frame, answer }] of Object.entries(unusual)) {
    client.ws.send(frame)
    t.match(await client.next(), answer, name)
  }
})

t.test('MessagePack: members that poison an object are refused as in JSON, with the requestId', async t => {
  const registry = await build(t, options)
  const [json, binary] = [await registry.watcher(), open(registry, '/public/ws', [packed])]
  await binary.next('welcome')
  json.send('{"type":"ping","requestId":"r","__proto__":{"admin":true}}')
  const expected = await json.next('error')
  t.match(expected, { code: 'malformed_message', requestId: 'r' })
  for (const [name, frame] of Object.entries(poisonous)) {
    binary.ws.send(frame)
    t.strictSame(await binary.next('error'), expected, name)
  }
  for (const frame of [
    bytes(0x82, proto, encode('requestId'), encode(7)), bytes(0x82, proto, encode('requestId'), 0x81, proto), bytes(0x91, 0x81, proto)
  ]) {
    binary.ws.send(frame)
    const error = await binary.next('error')
    t.strictSame([error.code, error.requestId], ['malformed_message', undefined], 'without one that could be read')
  }
  t.equal(({} as { admin?: boolean }).admin, undefined)
  await assertAlive(binary)
})

t.test('MessagePack: oversized and excess frames are answered as in text', async t => {
  const registry = await build(t, { publicWs: { messagesPerSecond: 1, burst: 3 } })
  const client = open(registry, '/public/ws', [packed])
  await client.next('welcome')
  sendPacked(client, { type: 'ping', pad: 'x'.repeat(5000) })
  t.equal((await client.next('error')).code, 'message_too_large')
  for (const requestId of ['a', 'b', 'c']) sendPacked(client, { type: 'ping', requestId })
  t.match(await client.next('error'), { code: 'rate_limited', requestId: 'c' })
})

const isPlain = (text: string) => !/__proto__|constructor/.test(text)

t.test(`MessagePack: any JSON survives a round trip (TEST_SEED=${seed})`, async () => {
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 6 }).map(value => JSON.stringify(value)).filter(isPlain), text => {
    const value = JSON.parse(text)
    const data = pack(text)
    deepStrictEqual(decode(data), value)
    deepStrictEqual(unpack(Buffer.from(data)), value)
  }), { numRuns: 2000 })
})

t.test('MessagePack: a text is encoded at any depth and with any characters', async t => {
  const depth = 500
  t.equal(JSON.stringify(decode(pack('['.repeat(depth) + ']'.repeat(depth)))).length, 2 * depth)
  const halves = ['\ud800', 'a\udc00b', '\udc00\ud800', '🦊', '\\ud800', '\\\ud800', 'é\ud83d', '\ud83d\ud83d\ude00']
  const text = JSON.stringify({ halves, '\ud800': 1 })
  const expected = { halves: ['\ufffd', 'a\ufffdb', '\ufffd\ufffd', '🦊', '\\ud800', '\\\ufffd', 'é\ufffd', '\ufffd😀'], '\ufffd': 1 }
  t.strictSame(decode(pack(text)), expected)
  t.strictSame(unpack(Buffer.from(pack(text))), expected, 'and is decoded here too')
  t.strictSame(decode(pack('"\\uD83D\\uDE00 \\uD83D"')), '😀 \ufffd')
})

t.test(`MessagePack: random bytes are decoded as by a reference decoder, or refused (TEST_SEED=${seed})`, async t => {
  let read = 0
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), data => {
    let value: unknown
    try { value = unpack(Buffer.from(data)) } catch { return }
    if (value instanceof PoisonousFrame) return
    deepStrictEqual(value, decode(data))
    read++
  }), { numRuns: 5_000 })
  t.ok(read > 0)
})

t.test(`MessagePack: a connection stays open whatever bytes it gets (TEST_SEED=${seed})`, async t => {
  const registry = await build(t, options)
  const client = open(registry, '/public/ws', [packed])
  await client.next('welcome')
  const frames = fc.sample(fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.jsonValue()
    .map(value => encode(value).map((byte, index) => index % 7 === 3 ? byte ^ 0x91 : byte))), 3000)
  for (const frame of frames) client.ws.send(frame)
  await assertAlive(client)
  t.ok(client.all.every(frame => frame.type !== 'error' || ['malformed_message', 'unknown_type', 'invalid_frame'].includes(frame.code)))
  t.ok(client.all.filter(({ code }) => code === 'malformed_message').length > 1000)
})
