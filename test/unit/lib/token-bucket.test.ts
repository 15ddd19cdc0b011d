import fc from 'fast-check'
import t from 'tap'
import { TokenBucket } from '../../../src/lib/token-bucket.js'

const start = Date.UTC(2030, 0, 1)

t.test('a burst at once, then the rate', async t => {
  const bucket = new TokenBucket({ perSecond: 10, burst: 3, now: start })
  t.strictSame([0, 0, 0, 0, 0].map(() => bucket.take(start)), [0, 0, 0, 100, 100])
  t.equal(bucket.take(start + 99), 1)
  t.equal(bucket.take(start + 100), 0)
  t.equal(bucket.fullAt, start + 400)
  t.strictSame([0, 0, 0, 0].map(() => bucket.take(start + 60_000)), [0, 0, 0, 100], 'a long silence gives one burst, not more')
})

t.test('a clock that is set back neither gives nor takes', async t => {
  const bucket = new TokenBucket({ perSecond: 10, burst: 1, now: start })
  t.equal(bucket.take(start), 0)
  t.equal(bucket.take(start - 3_600_000), 100)
  t.equal(bucket.take(start - 3_600_000 + 100), 0)
})

t.test('the wait is exact, whatever the rate and whatever came before: after it there is a token, a millisecond sooner there is none', async () => {
  const pauses = fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 200 })
  fc.assert(fc.property(fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 1, max: 50 }), pauses, (perSecond, burst, pauses) => {
    const bucket = new TokenBucket({ perSecond, burst, now: start })
    let [now, passed] = [start, 0]
    for (const pause of pauses) {
      now += pause
      const wait = bucket.take(now)
      if (wait > 1 && bucket.wait(now + wait - 1) === 0) return false
      now += wait
      if (wait > 0 && bucket.take(now) > 0) return false
      passed++
      if (passed > burst + (now - start) / 1000 * perSecond + 1e-3) return false
    }
    return true
  }), { numRuns: 300 })
})
