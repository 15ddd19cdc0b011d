import { once } from 'node:events'
import { type Duplex, PassThrough } from 'node:stream'
import fastifyWebsocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import { decode } from '@msgpack/msgpack'
import fc from 'fast-check'
import type { FastifyInstance } from 'fastify'
import { WebSocket, WebSocketServer } from 'ws'
import t from 'tap'
import { rawSocketFault } from '../../../src/sockets/transport/self-test.js'
import { FrameBatch } from '../../../src/sockets/outbound.js'
import { EncodedMessage, type Encoding, headerSize, protocolPing, textPing, textPong } from '../../../src/protocol/encoded-message.js'
import { MemoryAgentStore } from '../../../src/index.js'
import { hardPayloadLimit } from '../../../src/sockets/transport/ws.js'
import { optionsFromEnv } from '../../../src/server/env.js'
import { build, type Client, type Harness, until, withDefaults } from '../../support/harness.js'
import { rawOf, receives, socketPairs } from './pairs.js'
import { assertAlive, openers, refusalOf, undocumentedFrames } from './helper.js'
import { seed } from '../../support/lengths.js'
import { testBehaviours, fastSettings } from './behaviours.js'

const encodings: Encoding[] = ['json', 'msgpack']
/** Payload sizes around each change of the frame header, and one larger. */
const sizes = [2, 125, 126, 127, 65_535, 65_536, 65_537, 300_000]

/** JSON of this many bytes, with several different characters. */
const textOf = (size: number) => size < 5 ? '[]' : JSON.stringify([`é${'x'.repeat(size - 6)}`])

const batchOf = (messages: readonly EncodedMessage[]): FrameBatch =>
  messages.slice(1).reduce((batch, message) => batch.and(message), new FrameBatch(messages[0]!, null))

t.test('frame writer: clients read frames with every header length, single and joined', async t => {
  const { open } = await socketPairs(t)
  const pair = await open()
  const messages = sizes.map(size => new EncodedMessage(textOf(size)))
  t.strictSame(messages.map(message => message.size('json')), sizes.map(size => headerSize(size) + size))
  for (const encoding of encodings) {
    for (const message of messages) rawOf(pair.server).write(message.frame(encoding))
    rawOf(pair.server).write(batchOf([protocolPing, ...messages, textPong]).bytes(encoding))
  }
  const [json, packed] = [messages.map(({ text }) => text), messages.map(({ text }) => JSON.parse(text))]
  const received = await receives(pair, 4 * messages.length + 2)
  t.strictSame(
    received.map(data => typeof data === 'string' ? data : decode(data)), [...json, ...json, 'pong', ...packed, ...packed, 'pong']
  )
  t.equal(pair.pings, 2)
})

t.test('frame writer: a message is encoded once per encoding, and bare words are text in both', async t => {
  const message = new EncodedMessage('{"type":"x"}')
  for (const encoding of encodings) {
    t.equal(message.frame(encoding), message.frame(encoding))
    t.equal(message.frame(encoding).length, message.size(encoding))
    t.equal(new FrameBatch(message, null).bytes(encoding), message.frame(encoding), 'a single message is its own batch')
  }
  t.not(message.frame('json'), message.frame('msgpack'))
  for (const word of [textPing, textPong, protocolPing]) t.equal(word.frame('msgpack'), word.frame('json'))
})

t.test('frame writer: sockets with the same pending messages share one buffer', async t => {
  const [a, b, c] = ['[1]', '[2]', '[3]'].map(text => new EncodedMessage(text)) as [EncodedMessage, EncodedMessage, EncodedMessage]
  const first = new FrameBatch(a, null)
  const [one, two, other] = [first.and(b).and(c), first.and(b).and(c), first.and(c)]
  t.equal(one, two)
  for (const encoding of encodings) t.equal(one.bytes(encoding), two.bytes(encoding))
  t.strictSame(other.messages(), [a, c])
  t.strictSame([one.messages(), one.count], [[a, b, c], 3])
})

t.test(`frame writer: a batch is the concatenation of its frames (TEST_SEED=${seed})`, async () => {
  const message = fc.oneof(fc.jsonValue()
    .map(value => new EncodedMessage(JSON.stringify([value]))), fc.constantFrom(protocolPing, textPing))
  fc.assert(fc.property(fc.array(message, { minLength: 1, maxLength: 20 }), fc.constantFrom(...encodings), (messages, encoding) => {
    const joined = batchOf(messages).bytes(encoding)
    return joined.equals(Buffer.concat(messages.map(message => new EncodedMessage(message.text, message.opcode).frame(encoding))))
  }))
})

type Made = ConstructorParameters<typeof WebSocket>
interface Sockets { setSocket (socket: Duplex, head: Buffer, options: object): void }

/** WebSockets for which the frame writer is not made. */
const strange: Record<string, { WebSocket: new (...made: never[]) => WebSocket, fault: RegExp }> = {
  'that masks as a client does': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      constructor (...made: Made) {
        super(...made);
        (this as unknown as { _isServer: boolean })._isServer = false
      }
    }
  },
  'that changes a byte': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      override send (data: string | Buffer, ...rest: unknown[]) {
        Reflect.apply(super.send, this, [Buffer.from(String(data).replace('e', 'E')), { binary: typeof data !== 'string' }, ...rest])
      }
    }
  },
  'that sends no data': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      override send () {}
    }
  },
  'that reports an error': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      override send () { this.emit('error', new Error('not well')) }
    }
  },
  'that pings with another frame': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      override ping () { super.ping('are you there') }
    }
  },
  'that does not report buffered bytes': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      constructor (...made: Made) {
        super(...made)
        Object.defineProperty(this, 'bufferedAmount', { value: 0 })
      }
    }
  },
  'with an intermediate stream': {
    fault: /cannot find the stream that the WebSocket writes to/,
    WebSocket: class extends WebSocket {
      setSocket (socket: Duplex, ...rest: [Buffer, object]) {
        const between = new PassThrough()
        between.pipe(socket);
        (WebSocket.prototype as unknown as Sockets).setSocket.call(this, between, ...rest)
      }
    }
  },
  'without a stream': {
    fault: /cannot find the stream that the WebSocket writes to/,
    WebSocket: class extends WebSocket {
      setSocket () {}
    }
  },
  'that counts differently': {
    fault: /cannot find the stream that the WebSocket writes to/,
    WebSocket: class extends WebSocket {
      setSocket (...made: [Duplex, Buffer, object]) {
        (WebSocket.prototype as unknown as Sockets).setSocket.apply(this, made)
        delete (this as unknown as { _sender: { _bufferedBytes?: number } })._sender._bufferedBytes
      }
    }
  },
  'that throws in its constructor': {
    fault: /not by that name/,
    WebSocket: class extends WebSocket {
      constructor (...made: Made) {
        super(...made)
        throw new Error('not by that name')
      }
    }
  },
  'that throws when it sends': {
    fault: /not at this moment/,
    WebSocket: class extends WebSocket {
      override send () { throw new Error('not at this moment') }
    }
  }
}

const serverOf = (Class: unknown) => new WebSocketServer({ noServer: true, WebSocket: Class as typeof WebSocket })

t.test('frame writer: its self-test passes with this version of ws', async t => {
  for (const options of [{}, { perMessageDeflate: true }, { maxPayload: 10 }]) {
    t.equal(rawSocketFault(new WebSocketServer({ noServer: true, ...options })), undefined)
  }
})

for (const [name, { WebSocket, fault }] of Object.entries(strange)) {
  t.test(`frame writer: the self-test rejects a WebSocket ${name}`, async t => {
    t.match(rawSocketFault(serverOf(WebSocket)), fault)
  })
}

const tiers = ['public', 'agents'] as const

/** A ping of exactly this many bytes. */
function pingOf (bytes: number): string {
  const frame = JSON.stringify({ type: 'ping', pad: '' })
  return frame.replace('""', `"${'x'.repeat(bytes - frame.length)}"`)
}

for (const tier of tiers) {
  t.test(`${tier}: text pings in any case and JSON pings are answered, pongs are not`, async t => {
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

  t.test(`${tier}: an invalid frame gets an error, and the socket stays open`, async t => {
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
      ['a nested prototype', '{"type":"watch","filter":{"__proto__":{"status":"alive"}}}', { code: 'malformed_message' }],
      ['no type', { requestId: 'r' }, { code: 'unknown_type', message: 'Unknown message type: None', requestId: 'r' }],
      ['a type that is null', { type: null }, { code: 'unknown_type', message: 'Unknown message type: None' }],
      ['a type that is a number', { type: 5 }, { code: 'unknown_type', message: 'Unknown message type: 5' }],
      [
        'an unknown type', { type: 'nope', requestId: 'r' }, { code: 'unknown_type', message: 'Unknown message type: nope', requestId: 'r' }
      ],
      ['a long unknown type', { type: 'x'.repeat(1000) }, { code: 'unknown_type', message: `Unknown message type: ${'x'.repeat(100)}` }],
      ['a type named like an object member', { type: 'constructor', requestId: 'r' }, { code: 'unknown_type', requestId: 'r' }],
      ['a frame of the server', { type: 'bookmark', requestId: 'r' }, { code: 'unknown_type', requestId: 'r' }],
      ['a member of the wrong kind', {
        type: 'watch', since: 5, requestId: 'r'
      }, { code: 'invalid_frame', message: /^\/since: /, requestId: 'r' }],
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
    t.strictSame(undocumentedFrames(tier, client.all), [])
  })

  t.test(`${tier}: a frame over the limit is refused, and one over the hard limit closes the socket`, async t => {
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

t.test('errors: a store failure during a frame is an internal error, and the socket stays open', async t => {
  let failure: Error | undefined
  class FailingStore extends MemoryAgentStore {
    override async setState (command: Parameters<MemoryAgentStore['setState']>[0]) {
      if (failure) throw failure
      return super.setState(command)
    }
  }
  const registry = await build(t, { storage: { agents: new FailingStore({ leaseMs: 60_000, retentionMs: 60_000 }) } })
  const client = await registry.agentSocket(await registry.join())
  failure = new Error('disk on fire at /secret/place')
  t.strictSame(await refusalOf(client, { type: 'status', status: 'alive', requestId: 'r' }), {
    type: 'error', code: 'internal_error', message: 'Internal error', requestId: 'r'
  })
  failure = Object.assign(new Error('The store is away'), { type: 'storage-unavailable', statusCode: 503 })
  const { retryAfterMs, ...refusal } = await refusalOf(client, { type: 'status', status: 'alive', requestId: 'r' })
  t.strictSame(refusal, { type: 'error', code: 'storage_unavailable', message: 'The store is away', requestId: 'r' })
  t.ok(Number.isInteger(retryAfterMs) && retryAfterMs >= 1000 && retryAfterMs <= 3000, `${retryAfterMs} ms, different for each`)
  failure = undefined
  client.send({ type: 'status', status: 'alive', requestId: 'r' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'r' })
})

t.test('errors: a record that cannot be rendered is an internal error for its reader only', async t => {
  class OddStore extends MemoryAgentStore {
    override async register (command: Parameters<MemoryAgentStore['register']>[0]) {
      return super.register(command.id === 'agent-odd' ? { ...command, content: { ...command.content, body: '{"odd":}' } } : command)
    }
  }
  const registry = await build(t, { publicFields: [], storage: { agents: new OddStore({ leaseMs: 60_000, retentionMs: 60_000 }) } })
  await registry.join('agent-odd')
  const client = await registry.watcher()
  t.match(await refusalOf(client, { type: 'get_discovery', requestId: 'r' }), { code: 'internal_error', requestId: 'r' })
  await assertAlive(await registry.watcher())
})

t.test('requestId: one in use is refused for another frame', async t => {
  let release = () => {}
  class SlowStore extends MemoryAgentStore {
    override async setState (command: Parameters<MemoryAgentStore['setState']>[0]) {
      await new Promise<void>(resolve => { release = resolve })
      return super.setState(command)
    }
  }
  const registry = await build(t, { storage: { agents: new SlowStore({ leaseMs: 60_000, retentionMs: 60_000 }) } })
  const client = await registry.agentSocket(await registry.join())
  for (const frame of [
    { type: 'status', status: 'draining', requestId: 'r' }, { type: 'unwatch', requestId: 'r' }, { type: 'unwatch', requestId: 'other' }
  ]) client.send(frame)
  t.strictSame(await client.next('error'), { type: 'error', code: 'malformed_message', message: 'This requestId is in use' })
  release()
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'r' }, 'the first is not affected')
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'other' })
  client.send({ type: 'unwatch', requestId: 'r' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'r' }, 'and free again')
})

t.test('requestId: a frame sent twice with one requestId is answered twice', async t => {
  const client = await openers.public(await build(t))
  for (let i = 0; i < 2; i++) client.send({ type: 'unwatch', requestId: 'same' })
  for (let i = 0; i < 2; i++) t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'same' })
  client.send({ type: 'unwatch' })
  await assertAlive(client)
  t.equal(client.all.filter(({ type }) => type === 'ack').length, 2, 'the bare ack is sent on request')
})

const compressing = withDefaults({ ...fastSettings, sockets: { ...fastSettings.sockets, compression: true } })
const plain = { perMessageDeflate: false }
/** Compressible data above the compression threshold. */
const compressible = { metadata: { text: ['the same again and again '.repeat(2000)] } }

async function watcher (registry: Harness, protocols: string[] = [], options = {}): Promise<Client> {
  const client = registry.socket('/public/ws', protocols, options)
  await client.next('welcome')
  client.send({ type: 'watch', requestId: 'w' })
  await client.next('ack')
  return client
}

const bytesRead = ({ ws }: Client) => rawOf(ws).bytesRead
const changesOf = ({ all }: Client) => all.filter(({ type }) => type === 'agents_delta').flatMap(({ changes }) => changes)

t.test('compression: frames are compressed only if the operator enables it', async t => {
  const registry = await build(t, fastSettings)
  const client = await watcher(registry)
  t.equal(client.ws.extensions, '')
  t.equal(optionsFromEnv({ WEBSOCKET_COMPRESSION: 'true' }).options.sockets?.compression, true)
})

t.test('compression: compressed sockets behave as uncompressed ones', async t => {
  await testBehaviours(t, { registry: await build(t, compressing) })
})

t.test('sockets without the extension too', async t => {
  await testBehaviours(t, { registry: await build(t, compressing), options: plain })
})

t.test('compression: clients with and without it get the same frames, in text and in MessagePack', async t => {
  const registry = await build(t, compressing)
  const packed = ['agent-registry.msgpack']
  const clients = await Promise.all(
    [watcher(registry), watcher(registry, [], plain), watcher(registry, packed), watcher(registry, packed, plain)]
  )
  t.strictSame(clients.map(({ ws }) => ws.extensions !== ''), [true, false, true, false])
  const before = clients.map(bytesRead)
  for (let n = 0; n < 20; n++) await registry.join(`agent-${n}`, n % 2 === 0 ? compressible : {})
  await until(() => clients.every(client => changesOf(client).length === 20))
  const [first, ...others] = clients.map(changesOf)
  for (const other of others) t.strictSame(other, first)
  const [deflated, whole] = clients.map((client, index) => bytesRead(client) - before[index]!) as [number, number]
  t.ok(whole > 500_000 && deflated < whole / 10, `${deflated} of ${whole} bytes`)
})

t.test('compression: neither side keeps a context, and the window of the server is small', async t => {
  const registry = await build(t, compressing)
  const [{ headers }] = await once(registry.socket('/public/ws').ws, 'upgrade')
  t.strictSame(headers['sec-websocket-extensions'].split('; ')
    .sort(), ['client_no_context_takeover', 'permessage-deflate', 'server_max_window_bits=12', 'server_no_context_takeover'])
})

t.test('compression: compressed client frames are read, and bounded by their inflated size', async t => {
  const registry = await build(t, compressing)
  const [client, neighbour] = [await watcher(registry), await watcher(registry)]
  client.send({ type: 'ping', requestId: 'large', pad: 'x'.repeat(3000) })
  t.equal((await client.next('pong')).requestId, 'large')
  client.send({ type: 'ping', pad: 'x'.repeat(5000) })
  t.equal((await client.next('error')).code, 'message_too_large')
  client.send('x'.repeat(50_000_000))
  t.equal((await client.closed).code, 1009)
  await assertAlive(neighbour)
})

t.test('compression: a host with @fastify/websocket decides, and inflated sizes are bounded too', async t => {
  const settings = (perMessageDeflate: boolean): WebsocketPluginOptions => ({ options: { perMessageDeflate } })
  const servers: WebSocket[] = []
  async function host (app: FastifyInstance, isCompressing: boolean) {
    await app.register(fastifyWebsocket, settings(isCompressing))
    app.websocketServer.on('connection', (socket: WebSocket) => servers.push(socket))
  }
  const off = await build(t, compressing, { before: app => host(app, false) })
  t.equal((await watcher(off)).ws.extensions, '')
  const on = await build(t, fastSettings, { before: app => host(app, true) })
  const client = await watcher(on)
  t.match(client.ws.extensions, /^permessage-deflate/)
  const { _extensions: extensions } = servers.at(-1) as unknown as { _extensions: Record<string, { _maxPayload: number }> }
  t.equal(extensions['permessage-deflate']!._maxPayload, hardPayloadLimit)
  client.send('x'.repeat(50_000_000))
  t.equal((await client.closed).code, 1009)
})
