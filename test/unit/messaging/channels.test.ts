import fc from 'fast-check'
import t from 'tap'
import type { LogEntry, LogPage, LogPosition } from '../../../src/storage/message-broker.js'
import { Delivery } from '../../../src/messaging/subscription.js'
import { MemoryMessageBroker } from '../../../src/storage/memory/message-broker.js'
import type { Peer } from '../../../src/messaging/peer.js'
import { Rights } from '../../../src/auth/rights.js'
import { PatternSubscription, Subscription } from '../../../src/messaging/subscription.js'
import { ChannelHooks } from '../../../src/messaging/access.js'
import { Channels } from '../../../src/messaging/channels.js'
import { Presence } from '../../../src/messaging/presence/presence.js'
import { ProcessMessages } from '../../../src/messaging/process-messages.js'
import { Replica } from '../../../src/registry/replica.js'
import { Deadlines } from '../../../src/lib/deadlines.js'
import { isProblem } from '../../../src/errors.js'
import { parseChannel, isPattern, parsePattern, formatChannel } from '../../../src/protocol/channel-names.js'
import type { Json } from '../../support/harness.js'
import { seed } from '../../support/lengths.js'

const bearer = {
  type: 'agent',
  role: 'agent',
  subject: 'one',
  agentId: 'one',
  incarnation: 1,
  tokenId: 't',
  sessionId: null,
  expiresAt: null,
  scopes: [],
  keyDigest: null
} as const
const channel = 'workflows/run-1'
const epoch = 'e'

/** A peer that records its frames, and reports them as sent when `take` is called. */
class Listener implements Peer {
  readonly id = 'socket'
  readonly peerId = 'one'
  readonly dialect = 'agents'
  readonly authenticatedPrincipal = bearer
  readonly rights = new Rights(bearer)
  readonly isOpen = true
  readonly observes = false
  readonly delivered: Json[] = []
  readonly #next = new Map<string, () => void>()

  push ({ text }: { text: string }): void {
    const { type, offset } = JSON.parse(text)
    this.delivered.push(type === 'message' ? offset : `${type} ${offset}`)
  }

  whenSent (kind: string, go: () => void): void {
    this.#next.set(kind, go)
  }

  async take (): Promise<void> {
    const next = [...this.#next.values()]
    this.#next.clear()
    for (const go of next) go()
    await new Promise(resolve => setImmediate(resolve))
  }
}

const entry = (offset: number): LogEntry => ({ offset, from: 'two', data: '1', at: 1 })
const delivery = (offset: number, of = epoch) => new Delivery(channel, of, entry(offset))
const page = (from: number, to: number, end: number, recovered = true, of = epoch): LogPage =>
  ({ epoch: of, offset: end, recovered, entries: Array.from({ length: to - from + 1 }, (_, n) => entry(from + n)) })

function subscribe (since?: LogPosition, pages: LogPage[] = []) {
  const peer = new Listener()
  const stalled: Subscription[] = []
  const asked: LogPosition[] = []
  const subscription = new Subscription({
    peer,
    channel,
    withMetadata: false,
    since,
    onStalled: subscription => { stalled.push(subscription) },
    read: async position => {
      asked.push(position)
      const next = pages.shift()
      if (!next) throw new Error('away')
      return next
    }
  })
  return { peer, subscription, stalled, asked, pages }
}

t.test('subscription: live messages received during a replay follow the replay, each once', async t => {
  const { peer, subscription } = subscribe({ epoch, offset: 2 })
  for (const offset of [4, 5, 6]) subscription.deliver(delivery(offset))
  const received: Json[] = []
  subscription.open({ epoch, offset: 4 }, page(3, 5, 5), (position, recovered) => received.push(position, recovered, peer.delivered.length))
  t.same(received, [{ epoch, offset: 5 }, true, 0])
  subscription.deliver(delivery(7))
  t.same(peer.delivered, [3, 4, 5, 6, 7])
  t.same(subscription.position, { epoch, offset: 7 })
  subscription.open({ epoch, offset: 9 }, undefined, () => t.fail('the channel is open'))
})

t.test('subscription: live messages beyond the queue limit are read from the log', async t => {
  const { peer, subscription, asked } = subscribe({ epoch, offset: 0 }, [page(2, 600, 600)])
  for (let offset = 2; offset <= 600; offset++) subscription.deliver(delivery(offset))
  subscription.open({ epoch, offset: 1 }, page(1, 1, 1), () => {})
  t.same(peer.delivered, [1])
  await peer.take()
  t.same(asked, [{ epoch, offset: 1 }])
  t.same(peer.delivered, Array.from({ length: 600 }, (_, n) => n + 1))
  subscription.deliver(delivery(601))
  t.equal(peer.delivered.at(-1), 601)
})

t.test('subscription: a gap during a replay is reported at its place', async t => {
  const { peer, subscription } = subscribe({ epoch, offset: 0 }, [page(5, 6, 6, false, 'f')])
  subscription.open({ epoch, offset: 2 }, page(1, 2, 4), () => {})
  subscription.reportGap(channel, { epoch: 'f', offset: 4 })
  for (const offset of [5, 6]) subscription.deliver(delivery(offset, 'f'))
  await peer.take()
  t.same(peer.delivered, [1, 2, 'channel_gap 4', 5, 6])
  subscription.reportGap(channel, { epoch: 'f', offset: 9 })
  subscription.deliver(delivery(10, 'f'))
  t.same(peer.delivered.slice(5), ['channel_gap 9', 10])
})

t.test('subscription: a gap before the answer to the subscription causes another read', async t => {
  const { peer, subscription } = subscribe(undefined, [page(1, 0, 7, false, 'f')])
  subscription.reportGap(channel, { epoch: 'f', offset: 7 })
  subscription.open({ epoch, offset: 3 }, undefined, () => {})
  await peer.take()
  subscription.deliver(delivery(8, 'f'))
  t.same(peer.delivered, ['channel_gap 7', 8])
})

t.test('subscription: a failed read is retried, unless the connection has closed', async t => {
  const { peer, subscription, stalled, pages } = subscribe({ epoch, offset: 0 })
  subscription.open({ epoch, offset: 3 }, page(1, 2, 3), () => {})
  await peer.take()
  t.same(stalled, [subscription])
  pages.push(page(3, 3, 3))
  subscription.resume()
  await peer.take()
  t.same(peer.delivered, [1, 2, 3])
  const gone = subscribe({ epoch, offset: 0 }, [page(3, 3, 3)])
  gone.subscription.open({ epoch, offset: 3 }, page(1, 2, 3), () => {})
  gone.subscription.resume()
  gone.subscription.end()
  await gone.peer.take()
  gone.subscription.resume()
  gone.subscription.deliver(delivery(4))
  t.same([gone.peer.delivered, gone.asked.length], [[1, 2], 1])
})

t.test('subscription: a position states the range that it covers', async t => {
  const wanted: Array<[since: LogPosition, page: LogPage, delivered: number[]]> = [
    [{ epoch, offset: 9 }, page(1, 5, 5, false), []],
    [{ epoch, offset: 1 }, page(4, 5, 5, false), [4, 5]],
    [{ epoch: 'old', offset: 7 }, page(1, 2, 2, false), [1, 2]],
    [{ epoch: 'old', offset: 7 }, page(1, 0, 4, false), []],
    [{ epoch, offset: 5 }, page(1, 0, 5), []]
  ]
  for (const [since, given, delivered] of wanted) {
    const { peer, subscription } = subscribe(since)
    subscription.open({ epoch, offset: 0 }, given, () => {})
    t.same(peer.delivered, delivered)
    t.same(subscription.position, { epoch, offset: given.offset })
    subscription.deliver(delivery(given.offset + 1))
    t.same(peer.delivered, [...delivered, given.offset + 1])
  }
})

t.test('subscription: a channel that joins a pattern of one connection neither loses nor repeats messages', async t => {
  const { peer, subscription } = subscribe()
  subscription.deliveredByPattern()
  t.equal(subscription.isSoleSource, false)
  subscription.deliveredByPattern(delivery(3))
  subscription.open({ epoch, offset: 5 }, undefined, () => {})
  t.equal(subscription.isSoleSource, true)
  for (const offset of [3, 4, 5, 4, 6]) subscription.deliver(delivery(offset))
  t.same(peer.delivered, [4, 5, 6])
  const alone = subscribe()
  alone.subscription.open({ epoch, offset: 5 }, undefined, () => {})
  for (const offset of [4, 5, 6]) alone.subscription.deliver(delivery(offset))
  t.same(alone.peer.delivered, [6])
})

t.test('subscription: a pattern delivers until the channel does, and nothing before its answer', async t => {
  const broker = new MemoryMessageBroker()
  await broker.open({ appended () {}, logGap () {}, presenceChanged () {}, presenceReloaded () {}, processMessage () {} })
  const deadlines = new Deadlines(() => 0)
  const presence = new Presence({ broker, processMessages: new ProcessMessages(broker), deadlines, replica: new Replica() })
  const hooks = new ChannelHooks({ hookTimeoutMs: 1000, onError: error => { throw error } })
  const channels = new Channels({ broker, hooks, presence })
  const { peer, subscription } = subscribe()
  const pattern = new PatternSubscription(peer)
  await channels.addPattern('workflows/*', pattern)
  channels.appended(channel, epoch, entry(1))
  channels.logGap(channel, { epoch, offset: 1 })
  pattern.isOpen = true
  channels.appended(channel, epoch, entry(2))
  channels.logGap(channel, { epoch, offset: 2 })
  subscription.deliveredByPattern()
  await channels.add(channel, subscription)
  channels.appended(channel, epoch, entry(3))
  subscription.open({ epoch, offset: 3 }, undefined, () => {})
  channels.appended(channel, epoch, entry(4))
  channels.logGap(channel, { epoch, offset: 4 })
  t.same(peer.delivered, [2, 'channel_gap 2', 3, 4, 'channel_gap 4'])
  channels.delete(channel, subscription)
  channels.delete(channel, subscription)
  channels.appended(channel, epoch, entry(5))
  t.equal(peer.delivered.at(-1), 5)
})

const invalid = 'invalid-channel'
const reserved = 'channel-reserved'

/** The type of the problem with which a name is refused. */
function refusalOf (go: () => string): string | undefined {
  try {
    go()
  } catch (error) {
    return isProblem(error) ? error.type : String(error)
  }
}

const show = (name: string) => JSON.stringify(name).slice(0, 80)

t.test('channel names: an agent channel consists of segments of a small alphabet', async t => {
  for (const name of ['a', 'a/b', 'workflows/run-1/subtasks', 'A.b:c@d_e-f/0', 'user-ann/inbox', 'a'.repeat(256)]) {
    t.equal(parseChannel(name, 'agents'), name)
    t.equal(formatChannel(name, 'agents'), name)
    t.equal(formatChannel(name, 'v1'), name)
  }
})

t.test('channel names: an invalid name is refused in both dialects', async t => {
  for (const name of ['', 'a\nb', 'a\u0000', '\u007f', 'a\u0085', 'x'.repeat(257), '__proto__', 'a/constructor', 'prototype/b']) {
    t.equal(refusalOf(() => parseChannel(name, 'agents')), invalid, show(name))
    t.equal(refusalOf(() => parseChannel(name, 'v1')), invalid, show(name))
  }
})

t.test('channel names: characters outside the alphabet of agents have one encoding', async t => {
  for (const text of [
    'a b', 'ü', 'a//b', '/a', 'a/', '/', '*', 'a/*', '%', '%2', '%zz', '%61', '%c3%bc', 'a%2fb', '%C3', '%ED%A0%80%ED%B0%80', 'a/%0A',
    'a%2Fb', '\ud800'
  ]) {
    t.equal(refusalOf(() => parseChannel(text, 'agents')), invalid, show(text))
  }
  const written: Array<[text: string, name: string]> = [
    ['my%20room', 'my room'], ['%C3%BC', 'ü'], ['a%2F%2Fb', 'a//b'], ['%2Fa', '/a'], ['a%2F', 'a/'], ['%2F', '/'], ['a/%2A', 'a/*'],
    ['%F0%9F%9A%80', '🚀'], ['%ED%A0%80', '\ud800'], ['x%ED%BF%BFy', 'x\udfffy'], ['%25', '%']
  ]
  for (const [text, name] of written) {
    t.equal(parseChannel(text, 'agents'), name, text)
    t.equal(formatChannel(name, 'agents'), text, text)
    t.equal(formatChannel(name, 'v1'), name)
  }
})

t.test('channel names: reserved names are refused', async t => {
  for (const name of ['$agents', '$', '$dead/a', '_', '_x/y', '_metered/x']) {
    t.equal(refusalOf(() =>
      parseChannel(name, 'agents')), reserved, name)
  }
  for (const name of ['$agents', '$', '_metered/x', '_internal/', '_system/x']) {
    t.equal(refusalOf(() =>
      parseChannel(name, 'v1')), reserved, name)
  }
  for (const name of ['_', '_x/y', '_metered', 'a/$b', '*', 'a/**', ' ']) t.equal(parseChannel(name, 'v1'), name)
  t.equal(refusalOf(() => parseChannel(`%5F${'x'}`, 'agents')), invalid)
  t.equal(formatChannel('$agents', 'agents'), '$agents')
})

t.test(`channel names: every name of /v1 has a unique agent spelling (TEST_SEED=${seed})`, async t => {
  const name = fc.string({
    unit: fc.oneof(
      fc.constantFrom('a', '/', '%', '*', ' ', '$', '_', '\ud800', '\udc00', '🚀'),
      fc.string({ unit: 'binary', minLength: 1, maxLength: 1 })
    ),
    minLength: 1,
    maxLength: 20
  })
  t.doesNotThrow(() => fc.assert(fc.property(name, name => {
    try {
      parseChannel(name, 'v1')
    } catch {
      return true
    }
    const text = formatChannel(name, 'agents')
    if (/^_/.test(name)) return text.startsWith('_')
    return /^[A-Za-z0-9_.:@%/-]+$/.test(text) && parseChannel(text, 'agents') === name
  }), { numRuns: 5000 }))
})

t.test('channel names: a pattern has wildcards for whole segments', async t => {
  for (const text of ['*', '**', 'a/*', 'a/**', '*/b/**', 'my%20room/*']) {
    t.equal(isPattern(text, 'agents'), true)
    t.equal(isPattern(text, 'v1'), false)
  }
  t.equal(parsePattern('my%20room/*'), 'my room/*')
  t.equal(parsePattern('a/*/**'), 'a/*/**')
  for (const text of [
    'a*', '**/a', 'a//*', '/*', 'a/***', '%2A/*', 'a%2Fb/*', 'a b/*', `${'x/'.repeat(128)}*`, '__proto__x y/*', 'constructor/*'
  ]) t.equal(refusalOf(() => parsePattern(text)), invalid, text)
  for (const text of ['$agents/*', '_x/**']) t.equal(refusalOf(() => parsePattern(text)), reserved, text)
})
