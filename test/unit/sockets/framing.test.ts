import { PassThrough, type Duplex } from 'node:stream'
import { decode } from '@msgpack/msgpack'
import fc from 'fast-check'
import t from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { rawSocketFault } from '../../../src/sockets/transport/self-test.js'
import { FrameBatch } from '../../../src/sockets/outbound.js'
import { type Encoding, headerSize, EncodedMessage, protocolPing, textPing, textPong } from '../../../src/protocol/encoded-message.js'
import { receives, street, rawOf } from './pairs.js'

const encodings: Encoding[] = ['json', 'msgpack']
/** Sizes of payloads around which the header of a frame changes, and one beyond them all. */
const sizes = [2, 125, 126, 127, 65_535, 65_536, 65_537, 300_000]

/** JSON of so many bytes, not all of them one character. */
const textOf = (size: number) => size < 5 ? '[]' : JSON.stringify([`é${'x'.repeat(size - 6)}`])

const batchOf = (messages: readonly EncodedMessage[]): FrameBatch => messages.slice(1).reduce((batch, message) => batch.and(message), new FrameBatch(messages[0]!, null))

t.test('frames of every length of header are read by a client as they were meant, alone and joined', async t => {
  const { open } = await street(t)
  const pair = await open()
  const messages = sizes.map(size => new EncodedMessage(textOf(size)))
  t.strictSame(messages.map(message => message.size('json')), sizes.map(size => headerSize(size) + size))
  for (const encoding of encodings) {
    for (const message of messages) rawOf(pair.server).write(message.frame(encoding))
    rawOf(pair.server).write(batchOf([protocolPing, ...messages, textPong]).bytes(encoding))
  }
  const [json, packed] = [messages.map(({ text }) => text), messages.map(({ text }) => JSON.parse(text))]
  const received = await receives(pair, 4 * messages.length + 2)
  t.strictSame(received.map(data => typeof data === 'string' ? data : decode(data)), [...json, ...json, 'pong', ...packed, ...packed, 'pong'])
  t.equal(pair.pings, 2)
})

t.test('a message is made once in each encoding, and bare words are text in both', async t => {
  const message = new EncodedMessage('{"type":"x"}')
  for (const encoding of encodings) {
    t.equal(message.frame(encoding), message.frame(encoding))
    t.equal(message.frame(encoding).length, message.size(encoding))
    t.equal(new FrameBatch(message, null).bytes(encoding), message.frame(encoding), 'alone it is its own batch')
  }
  t.not(message.frame('json'), message.frame('msgpack'))
  for (const word of [textPing, textPong, protocolPing]) t.equal(word.frame('msgpack'), word.frame('json'))
})

t.test('sockets that are owed the same come to the same bytes, whichever way they came there', async t => {
  const [a, b, c] = ['[1]', '[2]', '[3]'].map(text => new EncodedMessage(text)) as [EncodedMessage, EncodedMessage, EncodedMessage]
  const first = new FrameBatch(a, null)
  const [one, two, other] = [first.and(b).and(c), first.and(b).and(c), first.and(c)]
  t.equal(one, two)
  for (const encoding of encodings) t.equal(one.bytes(encoding), two.bytes(encoding))
  t.strictSame(other.messages(), [a, c])
  t.strictSame([one.messages(), one.count], [[a, b, c], 3])
})

t.test('a batch is its frames one after the other, whatever they are', async () => {
  const message = fc.oneof(fc.jsonValue().map(value => new EncodedMessage(JSON.stringify([value]))), fc.constantFrom(protocolPing, textPing))
  fc.assert(fc.property(fc.array(message, { minLength: 1, maxLength: 20 }), fc.constantFrom(...encodings), (messages, encoding) => {
    const joined = batchOf(messages).bytes(encoding)
    return joined.equals(Buffer.concat(messages.map(message => new EncodedMessage(message.text, message.opcode).frame(encoding))))
  }))
})

type Made = ConstructorParameters<typeof WebSocket>
interface Sockets { setSocket (socket: Duplex, head: Buffer, options: object): void }

/** WebSockets that are not what frames of ours were made for. */
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
  'that sends nothing': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      override send () {}
    }
  },
  'that says that something is wrong': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      override send () { this.emit('error', new Error('not well')) }
    }
  },
  'that pings by another frame': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      override ping () { super.ping('are you there') }
    }
  },
  'that does not see what waits': {
    fault: /frames differ/,
    WebSocket: class extends WebSocket {
      constructor (...made: Made) {
        super(...made)
        Object.defineProperty(this, 'bufferedAmount', { value: 0 })
      }
    }
  },
  'with another stream in between': {
    fault: /the stream below a socket is not where it was/,
    WebSocket: class extends WebSocket {
      setSocket (socket: Duplex, ...rest: [Buffer, object]) {
        const between = new PassThrough()
        between.pipe(socket);
        (WebSocket.prototype as unknown as Sockets).setSocket.call(this, between, ...rest)
      }
    }
  },
  'without a stream': {
    fault: /the stream below a socket is not where it was/,
    WebSocket: class extends WebSocket {
      setSocket () {}
    }
  },
  'that counts in another way': {
    fault: /the stream below a socket is not where it was/,
    WebSocket: class extends WebSocket {
      setSocket (...made: [Duplex, Buffer, object]) {
        (WebSocket.prototype as unknown as Sockets).setSocket.apply(this, made)
        delete (this as unknown as { _sender: { _bufferedBytes?: number } })._sender._bufferedBytes
      }
    }
  },
  'that throws when it is made': {
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

t.test('frames of ours may go below the WebSockets of this ws', async t => {
  for (const options of [{}, { perMessageDeflate: true }, { maxPayload: 10 }]) t.equal(rawSocketFault(new WebSocketServer({ noServer: true, ...options })), undefined)
})

for (const [name, { WebSocket, fault }] of Object.entries(strange)) {
  t.test(`a WebSocket ${name} is found out`, async t => {
    t.match(rawSocketFault(serverOf(WebSocket)), fault)
  })
}
