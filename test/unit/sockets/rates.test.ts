import t from 'tap'
import { createFrameRates, FrameRate, rateLimitKey } from '../../../src/limits/frame-rate.js'
import { SharedBuckets } from '../../../src/limits/keyed-buckets.js'
import { resolveOptions } from '../../../src/options.js'
import { manualClock, principal, start } from '../auth/helper.js'

const agent = principal({ agentId: 'agent-one', subject: 'agent-one' })

/** Rates as configured, by a clock that stands still. */
function world (sockets: object) {
  const now = manualClock()
  const rates = createFrameRates(resolveOptions({ sockets }), now)
  const connection = (addressKey = '192.0.2.1', perSecond = 1000) => new FrameRate(rates, { perSecond, burst: perSecond }, { addressKey, now: now() })
  return { now, rates, connection }
}

t.test('a bucket is shared while somebody uses it, kept until it is full again, and then dropped without a timer', async t => {
  const now = manualClock()
  const buckets = new SharedBuckets({ perSecond: 10, burst: 2 }, now)
  const [first, second] = [buckets.join('a'), buckets.join('a')]
  t.equal(first, second)
  t.strictSame([first.bucket.take(now()), second.bucket.take(now()), first.bucket.take(now())], [0, 0, 100])
  buckets.leave(first)
  buckets.leave(second)
  t.equal(buckets.size, 1)
  const again = buckets.join('a')
  t.equal(again.bucket.take(now()), 100, 'a new connection is no new start')
  buckets.leave(again)
  now.advance(200)
  const full = buckets.join('a')
  t.not(full.bucket, again.bucket, 'full again, and forgotten')
  buckets.leave(full)
  t.equal(buckets.size, 0)
  for (let i = 0; i < 10_000; i++) {
    const one = buckets.join(`key-${i}`)
    one.bucket.take(now())
    buckets.leave(one)
    now.advance(1)
  }
  t.ok(buckets.size < 500, `${buckets.size} of 10,000 are kept`)
})

t.test('a frame that one bucket refuses takes nothing from the others, and the wait is that of the slowest', async t => {
  const { now, rates, connection } = world({ messagesPerSecondPerPrincipal: 10, burstPerPrincipal: 2, messagesPerSecondPerAddress: 4, burstPerAddress: 3 })
  const [one, other] = [connection(), connection()]
  one.setPrincipal(agent)
  t.strictSame([one.take(now()), one.take(now())], [0, 0])
  t.equal(one.take(now()), 100, 'the principal has none left')
  t.equal(other.take(now()), 0, 'the third of the address, which the refused one did not take')
  t.equal(one.take(now()), 250, 'after which both have one')
  now.advance(249)
  t.equal(one.take(now()), 1)
  t.equal(other.take(now()), 1)
  now.advance(1)
  t.equal(one.take(now()), 0)
  t.equal(connection('192.0.2.2').take(now()), 0, 'another address is no neighbour')
  one.leave()
  other.leave()
  t.equal(rates.principals.size, 1, 'until it is full')
})

t.test('an agent is one sender whatever its token says, anybody else is by role and subject', async t => {
  const same = [agent, principal({ agentId: 'agent-one', subject: 'somebody', tokenId: 'other' })]
  const others = [principal({ type: 'user', role: 'user', agentId: null, subject: 'agent-one' }), principal({ type: 'admin', role: 'admin', agentId: null, subject: 'agent-one' }), principal({ agentId: 'agent-two' })]
  t.equal(new Set(same.map(rateLimitKey)).size, 1)
  t.equal(new Set([...same, ...others].map(rateLimitKey)).size, 4)
  const { now, connection } = world({ messagesPerSecondPerPrincipal: 1, burstPerPrincipal: 1 })
  const moved = connection()
  moved.setPrincipal(agent)
  moved.setPrincipal(same[1]!)
  t.strictSame([moved.take(now()), moved.take(now())], [0, 1000])
  moved.setPrincipal(others[0]!)
  t.equal(moved.take(now()), 0, 'somebody else now')
  const back = connection()
  back.setPrincipal(agent)
  t.equal(back.take(now()), 1000, 'what was taken before is not forgotten')
})

t.test('rates that are not configured follow from those of a connection and from the places of the tiers', async t => {
  const filled = async (options: object) => {
    const { principals, addresses } = createFrameRates(resolveOptions(options), manualClock())
    return [principals, addresses].map(buckets => {
      const { bucket } = buckets.join('a')
      let count = 0
      while (bucket.take(start) === 0) count++
      return [count, Math.round(bucket.fullAt - start)]
    })
  }
  t.strictSame(await filled({}), [[400, 2000], [2000, 2000]])
  t.strictSame(await filled({ agentsWs: { messagesPerSecond: 10, burst: 1000, maxConnections: 9895 } }), [[2000, 10_000], [20_000, 2000]])
})

t.test('abuse is to go on for ten seconds without a pause of one; whoever obeys is not blamed for a neighbour', async t => {
  const { now, connection } = world({ messagesPerSecondPerAddress: 10, burstPerAddress: 10 })
  const [flood, pausing] = [connection('a', 2), connection('b', 2)]
  let [elapsed, abuseAt] = [0, 0]
  for (; elapsed <= 12_000; elapsed += 100) {
    flood.take(now())
    if (elapsed % 2000 < 500) pausing.take(now())
    if (flood.isAbuse) abuseAt ||= elapsed
    now.advance(100)
  }
  t.ok(abuseAt > 10_000 && abuseAt < 11_000, `after ${abuseAt} ms`)
  t.notOk(pausing.isAbuse)
  const [greedy, obedient, deaf] = [connection('c'), connection('c'), connection('c')]
  let due = 0
  for (elapsed = 0; elapsed <= 12_000; elapsed += 20) {
    greedy.take(now())
    deaf.take(now())
    if (elapsed >= due) due = elapsed + Math.max(500, obedient.take(now()))
    now.advance(20)
  }
  t.notOk(obedient.isAbuse)
  t.ok(deaf.isAbuse, 'who does not wait as told is')
})

t.test('what is refused faster than it can be of use is a flood, for as long as it lasts', async t => {
  const { now, connection } = world({})
  const sender = connection('a', 1)
  for (let i = 0; i <= 100; i++) sender.take(now())
  t.notOk(sender.isFlood)
  sender.take(now())
  t.ok(sender.isFlood)
  now.advance(100)
  sender.take(now())
  t.notOk(sender.isFlood)
})
