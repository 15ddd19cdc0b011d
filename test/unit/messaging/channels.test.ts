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
import type { Json } from '../../support/harness.js'

const bearer = { type: 'agent', role: 'agent', subject: 'one', agentId: 'one', incarnation: 1, tokenId: 't', sessionId: null, expiresAt: null, scopes: [], keyDigest: null } as const
const channel = 'workflows/run-1'
const epoch = 'e'

/** A peer that keeps what it is sent, and has taken it when `take` is called. */
class Listener implements Peer {
  readonly id = 'socket'
  readonly peerId = 'one'
  readonly dialect = 'agents'
  readonly bearer = bearer
  readonly rights = new Rights(bearer)
  readonly isOpen = true
  readonly observes = false
  readonly heard: Json[] = []
  readonly #next = new Map<string, () => void>()

  push ({ text }: { text: string }): void {
    const { type, offset } = JSON.parse(text)
    this.heard.push(type === 'message' ? offset : `${type} ${offset}`)
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
const page = (from: number, to: number, end: number, recovered = true, of = epoch): LogPage => ({ epoch: of, offset: end, recovered, entries: Array.from({ length: to - from + 1 }, (_, n) => entry(from + n)) })

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

t.test('what came live while earlier messages were read follows them, each once', async t => {
  const { peer, subscription } = subscribe({ epoch, offset: 2 })
  for (const offset of [4, 5, 6]) subscription.deliver(delivery(offset))
  const told: Json[] = []
  subscription.open({ epoch, offset: 4 }, page(3, 5, 5), (position, recovered) => told.push(position, recovered, peer.heard.length))
  t.same(told, [{ epoch, offset: 5 }, true, 0])
  subscription.deliver(delivery(7))
  t.same(peer.heard, [3, 4, 5, 6, 7])
  t.same(subscription.position, { epoch, offset: 7 })
  subscription.open({ epoch, offset: 9 }, undefined, () => t.fail('it is open'))
})

t.test('live messages that are too many to wait are read', async t => {
  const { peer, subscription, asked } = subscribe({ epoch, offset: 0 }, [page(2, 600, 600)])
  for (let offset = 2; offset <= 600; offset++) subscription.deliver(delivery(offset))
  subscription.open({ epoch, offset: 1 }, page(1, 1, 1), () => {})
  t.same(peer.heard, [1])
  await peer.take()
  t.same(asked, [{ epoch, offset: 1 }])
  t.same(peer.heard, Array.from({ length: 600 }, (_, n) => n + 1))
  subscription.deliver(delivery(601))
  t.equal(peer.heard.at(-1), 601)
})

t.test('a loss while earlier messages are read is told when they were', async t => {
  const { peer, subscription } = subscribe({ epoch, offset: 0 }, [page(5, 6, 6, false, 'f')])
  subscription.open({ epoch, offset: 2 }, page(1, 2, 4), () => {})
  subscription.reportGap(channel, { epoch: 'f', offset: 4 })
  for (const offset of [5, 6]) subscription.deliver(delivery(offset, 'f'))
  await peer.take()
  t.same(peer.heard, [1, 2, 'channel_gap 4', 5, 6])
  subscription.reportGap(channel, { epoch: 'f', offset: 9 })
  subscription.deliver(delivery(10, 'f'))
  t.same(peer.heard.slice(5), ['channel_gap 9', 10])
})

t.test('a loss before the subscription has its answer leads to another reading', async t => {
  const { peer, subscription } = subscribe(undefined, [page(1, 0, 7, false, 'f')])
  subscription.reportGap(channel, { epoch: 'f', offset: 7 })
  subscription.open({ epoch, offset: 3 }, undefined, () => {})
  await peer.take()
  subscription.deliver(delivery(8, 'f'))
  t.same(peer.heard, ['channel_gap 7', 8])
})

t.test('what cannot be read is read later, and not for who has gone', async t => {
  const { peer, subscription, stalled, pages } = subscribe({ epoch, offset: 0 })
  subscription.open({ epoch, offset: 3 }, page(1, 2, 3), () => {})
  await peer.take()
  t.same(stalled, [subscription])
  pages.push(page(3, 3, 3))
  subscription.resume()
  await peer.take()
  t.same(peer.heard, [1, 2, 3])
  const gone = subscribe({ epoch, offset: 0 }, [page(3, 3, 3)])
  gone.subscription.open({ epoch, offset: 3 }, page(1, 2, 3), () => {})
  gone.subscription.resume()
  gone.subscription.end()
  await gone.peer.take()
  gone.subscription.resume()
  gone.subscription.deliver(delivery(4))
  t.same([gone.peer.heard, gone.asked.length], [[1, 2], 1])
})

t.test('a position says what is covered', async t => {
  const wanted: Array<[since: LogPosition, page: LogPage, heard: number[]]> = [
    [{ epoch, offset: 9 }, page(1, 5, 5, false), []],
    [{ epoch, offset: 1 }, page(4, 5, 5, false), [4, 5]],
    [{ epoch: 'old', offset: 7 }, page(1, 2, 2, false), [1, 2]],
    [{ epoch: 'old', offset: 7 }, page(1, 0, 4, false), []],
    [{ epoch, offset: 5 }, page(1, 0, 5), []]
  ]
  for (const [since, given, heard] of wanted) {
    const { peer, subscription } = subscribe(since)
    subscription.open({ epoch, offset: 0 }, given, () => {})
    t.same(peer.heard, heard)
    t.same(subscription.position, { epoch, offset: given.offset })
    subscription.deliver(delivery(given.offset + 1))
    t.same(peer.heard, [...heard, given.offset + 1])
  }
})

t.test('a name that comes to a pattern of the same connection neither loses nor repeats what is under way', async t => {
  const { peer, subscription } = subscribe()
  subscription.deliveredByPattern()
  t.equal(subscription.isSoleSource, false)
  subscription.deliveredByPattern(delivery(3))
  subscription.open({ epoch, offset: 5 }, undefined, () => {})
  t.equal(subscription.isSoleSource, true)
  for (const offset of [3, 4, 5, 4, 6]) subscription.deliver(delivery(offset))
  t.same(peer.heard, [4, 5, 6])
  const alone = subscribe()
  alone.subscription.open({ epoch, offset: 5 }, undefined, () => {})
  for (const offset of [4, 5, 6]) alone.subscription.deliver(delivery(offset))
  t.same(alone.peer.heard, [6])
})

t.test('a pattern tells its connection until the name does, and nothing before it has its answer', async t => {
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
  t.same(peer.heard, [2, 'channel_gap 2', 3, 4, 'channel_gap 4'])
  channels.delete(channel, subscription)
  channels.delete(channel, subscription)
  channels.appended(channel, epoch, entry(5))
  t.equal(peer.heard.at(-1), 5)
})
