import t from 'tap'
import { problem } from '../../../src/errors.js'
import { addressKey } from '../../../src/lib/address.js'
import { Attempts, type AttemptTarget, type AttemptsOptions } from '../../../src/auth/attempts.js'
import { MemoryKeyValueStore, type MemoryKeyValueStoreOptions } from '../../../src/storage/memory/kv-store.js'
import { manualClock, refusal } from './helper.js'

const home: AttemptTarget = { address: '192.0.2.1', account: 'root', kind: 'login' }
const client: AttemptTarget = { address: '192.0.2.1', kind: 'key' }
const wrong = async () => { throw problem('authentication-failed', 'no') }
const right = async () => 'yes'

function build ({ limits, ...options }: Partial<AttemptsOptions> & Pick<MemoryKeyValueStoreOptions, 'limits'> = {}) {
  const now = manualClock()
  const state = new MemoryKeyValueStore({ clock: now, limits })
  return { now, state, attempts: new Attempts({ state, burst: 5, windowMs: 50_000, now, ...options }) }
}

async function fail (attempts: Attempts, target: AttemptTarget, times: number) {
  const types: string[] = []
  for (let n = 0; n < times; n++) types.push((await refusal(() => attempts.attempt(target, wrong))).type)
  return types
}

t.test('a burst of failures is checked, then nothing is', async t => {
  const { attempts } = build()
  t.same(await fail(attempts, home, 6), [...Array(5).fill('authentication-failed'), 'rate-limit-exceeded'])
  let checked = false
  const refused = attempts.attempt(home, async () => { checked = true })
  await t.rejects(refused, { statusCode: 429, message: 'Too many failed attempts', members: { retry_after: 10 }, headers: { 'retry-after': '10' } })
  t.equal(checked, false)
})

t.test('tries come back one by one, and whoever waits as told is let in', async t => {
  const { attempts, now } = build()
  await fail(attempts, home, 5)
  now.advance(9_999)
  t.same(await fail(attempts, home, 1), ['rate-limit-exceeded'])
  now.advance(1)
  t.same(await fail(attempts, home, 2), ['authentication-failed', 'rate-limit-exceeded'])
  now.advance(1_000_000)
  t.same(await fail(attempts, home, 6), [...Array(5).fill('authentication-failed'), 'rate-limit-exceeded'], 'never more than a burst')
})

t.test('tries at the same time count before they end', async t => {
  const { attempts } = build({ burst: 20 })
  let checked = 0
  const tries = Array.from({ length: 200 }, () => attempts.attempt(home, async () => {
    checked++
    await new Promise(resolve => setImmediate(resolve))
    return wrong()
  }))
  await Promise.allSettled(tries)
  t.equal(checked, 20)
})

t.test('only 401 and 403 cost', async t => {
  const { attempts, state } = build()
  for (let n = 0; n < 20; n++) {
    t.equal(await attempts.attempt(home, right), 'yes')
    await t.rejects(attempts.attempt(home, async () => { throw problem('invalid-input', 'no') }))
    await t.rejects(attempts.attempt(home, () => { throw new Error('broken') }))
  }
  t.equal(state.bucketCount, 0, 'and nothing is kept for them')
  for (let n = 0; n < 5; n++) await t.rejects(attempts.attempt(home, () => { throw problem('insufficient-permissions', 'no') }))
  t.same(await fail(attempts, home, 1), ['rate-limit-exceeded'])
})

t.test('a success gives back its own try and no other', async t => {
  const { attempts } = build()
  for (let n = 0; n < 5; n++) {
    await fail(attempts, { ...home, account: undefined }, 1)
    await attempts.attempt(home, right).catch(() => {})
  }
  t.same(await fail(attempts, { ...home, account: undefined }, 1), ['rate-limit-exceeded'])
})

t.test('checks that do not wait do not run into each other', async t => {
  const { attempts } = build()
  const many = await Promise.all(Array.from({ length: 100 }, (_, n) => attempts.attemptNow(client, () => n)))
  t.equal(many.length, 100)
})

t.test('an account is limited over all addresses, an address over all accounts', async t => {
  const { attempts } = build()
  for (let n = 0; n < 5; n++) await fail(attempts, { ...home, address: `198.51.100.${n}` }, 1)
  t.same(await fail(attempts, home, 1), ['rate-limit-exceeded'])
  t.same(await fail(attempts, { ...home, account: 'other' }, 1), ['authentication-failed'])
  t.same(await fail(attempts, { ...home, kind: 'pin' }, 1), ['authentication-failed'], 'kinds do not share')
  const spray = build().attempts
  for (let n = 0; n < 5; n++) await fail(spray, { ...home, account: `user-${n}` }, 1)
  t.same(await fail(spray, home, 1), ['rate-limit-exceeded'])
})

t.test('strangers do not lock out an address that logged in before', async t => {
  const { attempts } = build({ limits: { known: 2 } })
  await attempts.attempt(home, right)
  for (let n = 0; n < 6; n++) await fail(attempts, { ...home, address: `198.51.100.${n}` }, 1)
  t.equal(await attempts.attempt(home, right), 'yes')
  t.match(await refusal(() => attempts.attempt({ ...home, address: '203.0.113.9' }, right)), { type: 'rate-limit-exceeded' })
  t.same(await fail(attempts, home, 6), [...Array(5).fill('authentication-failed'), 'rate-limit-exceeded'], 'and has no more tries than others')
})

t.test('only so many such addresses are remembered', async t => {
  const { attempts } = build({ limits: { known: 2 } })
  for (const address of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) await attempts.attempt({ ...home, address }, right)
  for (let n = 0; n < 5; n++) await fail(attempts, { ...home, address: `198.51.100.${n}` }, 1)
  t.match(await refusal(() => attempts.attempt(home, right)), { type: 'rate-limit-exceeded' }, 'the oldest is forgotten')
  t.equal(await attempts.attempt({ ...home, address: '192.0.2.2' }, right), 'yes')
})

t.test('an IPv6 network counts as one, and a mapped address as IPv4', async t => {
  const same: Array<[string, string]> = [
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9'],
    ['2001:DB8:1:2:3:4:5:6', '2001:db8:1:2::'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['fe80::1%eth0', 'fe80::2'],
    ['64:ff9b::192.0.2.1', '64:ff9b::']
  ]
  for (const [one, other] of same) t.equal(addressKey(one), addressKey(other), `${one} is ${other}`)
  t.not(addressKey('2001:db8:1:2::1'), addressKey('2001:db8:1:3::1'))
  t.not(addressKey('::1'), addressKey('192.0.2.1'))
  t.equal(addressKey('2001:db8::1'), '2001:db8:0:0::/64')
  t.equal(addressKey('unknown'), 'unknown')
})
