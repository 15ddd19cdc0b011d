import t from 'tap'
import { KeyRing, keyRingSecret } from '../../../src/auth/keys.js'
import { PasswordHasher } from '../../../src/auth/passwords.js'
import { problem } from '../../../src/errors.js'
import { addressKey } from '../../../src/lib/address.js'
import { Attempts, type AttemptsOptions, type AttemptTarget } from '../../../src/auth/attempts.js'
import { MemoryKeyValueStore, type MemoryKeyValueStoreOptions } from '../../../src/storage/memory/kv-store.js'
import { Sessions } from '../../../src/auth/sessions.js'
import { cheapCost, cheapHasher, manualClock, refusal, shared } from './helper.js'

const secret = keyRingSecret('a secret of at least 32 characters')
const use = { agentId: 'agent-one', agentType: 'testing', capabilities: ['read', 'write'] }

t.test('agent keys: every configured key is found at its full length', async t => {
  const long = 'k'.repeat(199)
  const keys = Array.from({ length: 20 }, (_, n) => `agent-key-${n}`)
  const ring = new KeyRing([...keys, `${long}1`, { key: `${long}2`, exclusive: true, ids: ['agent-one'], maxAgents: 3 }], secret)
  t.equal(ring.size, 22)
  for (const key of keys) t.match(ring.find(key), { exclusive: false })
  t.match(ring.find(`${long}2`), { exclusive: true, ids: ['agent-one'], maxAgents: 3 })
  t.equal(ring.find(long), undefined)
  t.equal(ring.find(`${keys[0]}x`), undefined)
  t.equal(ring.find(''), undefined)
})

t.test('agent keys: only digests are stored, and they are deterministic', async t => {
  const ring = new KeyRing(['agent-key-1'], secret)
  const found = ring.find('agent-key-1')!
  t.notMatch(JSON.stringify(found), 'agent-key-1')
  t.equal(ring.byDigest(found.digest), found)
  t.equal(ring.byDigest('agent-key-1'), undefined)
  t.equal(new KeyRing(['agent-key-1'], keyRingSecret('a secret of at least 32 characters')).find('agent-key-1')?.digest, found.digest)
  t.not(new KeyRing(['agent-key-1'], keyRingSecret('another secret of 32 characters!')).find('agent-key-1')?.digest, found.digest)
})

t.test('agent keys: a duplicate key stops the start without being disclosed', async t => {
  const build = () => new KeyRing(['agent-key-1', { key: 'agent-key-1', exclusive: true }], secret)
  t.throws(build, { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: 'Invalid options: agentKeys.1: this key is configured twice' })
})

t.test('agent keys: a key may be limited to ids, types and capabilities', async t => {
  const ring = new KeyRing([], secret)
  const key = (limits: { ids?: string[], types?: string[], capabilities?: string[] }) => ({ digest: 'd', exclusive: false, ...limits })
  const passing = [{}, {
    ids: [
      'other', 'agent-one'
    ]
  }, { ids: ['agent-*'] }, { ids: ['*'] }, { types: ['TESTING'] }, { capabilities: ['write', 'read', 'more'] }]
  for (const limits of passing) t.equal(ring.denialReason(key(limits), use), undefined, JSON.stringify(limits))
  t.match(ring.denialReason(key({ ids: ['agent', 'agent-one-more', 'agent-1*'] }), use), /agent_id 'agent-one'/)
  t.match(ring.denialReason(key({ types: ['test'] }), use), /agent_type 'testing'/)
  t.match(ring.denialReason(key({ capabilities: ['read'] }), use), /capability 'write'/)
  t.match(ring.denialReason(key({ capabilities: [] }), use), /capability 'read'/)
})

t.test('passwords: a hash matches only its password, and two hashes of one password differ', async t => {
  const hasher = cheapHasher()
  const [first, second] = await Promise.all([hasher.hashPassword('pässword'), hasher.hashPassword('pässword')])
  t.not(first, second)
  t.notMatch(first, 'pässword')
  t.equal(await hasher.verifyPassword('pässword', first), true)
  t.equal(await hasher.verifyPassword('pa\u0308ssword', first), true, 'in either Unicode form')
  t.equal(await hasher.verifyPassword('password', first), false)
})

t.test('passwords: a hash with other work factors still verifies', async t => {
  const hash = await new PasswordHasher({ cost: { N: 16, r: 2, p: 2 } }).hashPassword('secret')
  t.equal(await cheapHasher().verifyPassword('secret', hash), true)
})

t.test('passwords: the default work factors fit into memory limits', async t => {
  const hasher = new PasswordHasher()
  const hash = await hasher.hashPassword('secret')
  t.match(hash, /^scrypt\$32768\$8\$3\$/)
  t.equal(await hasher.verifyPassword('secret', hash), true)
})

t.test('passwords: without a hash verification fails after the same work', async t => {
  const hasher = new PasswordHasher({ cost: cheapCost, concurrency: 1, queue: 0 })
  const busy = hasher.verifyPassword('anything', null)
  t.match(await refusal(() => hasher.verifyPassword('anything', null)), { type: 'rate-limit-exceeded' }, 'it uses a slot as others do')
  t.equal(await busy, false)
})

t.test('passwords: a malformed hash is an error', async t => {
  await t.rejects(cheapHasher().verifyPassword('x', 'plain text'), TypeError)
})

t.test('passwords: two checks run at once, some wait, and the others are refused', async t => {
  const hasher = new PasswordHasher({ cost: cheapCost, queue: 3 })
  const tries = Array.from({ length: 8 }, () => hasher.hashPassword('secret'))
  const settled = await Promise.allSettled(tries)
  t.same(settled.map(({ status }) => status), [...Array(5).fill('fulfilled'), ...Array(3).fill('rejected')])
  t.match(await refusal(() => tries[7]), { type: 'rate-limit-exceeded', status: 429 })
  t.ok(await hasher.hashPassword('secret'), 'and slots are free again')
})

const home: AttemptTarget = { address: '192.0.2.1', account: 'root', kind: 'login' }
const client: AttemptTarget = { address: '192.0.2.1', kind: 'key' }
const wrong = async () => { throw problem('authentication-failed', 'no') }
const right = async () => 'yes'

function build ({ limits, ...options }: Partial<AttemptsOptions> & Pick<MemoryKeyValueStoreOptions, 'limits'> = {}) {
  const now = manualClock()
  const state = new MemoryKeyValueStore({ clock: now, limits })
  return { now, state, attempts: new Attempts({ kv: state, burst: 5, windowMs: 50_000, now, ...options }) }
}

async function fail (attempts: Attempts, target: AttemptTarget, times: number) {
  const types: string[] = []
  for (let n = 0; n < times; n++) types.push((await refusal(() => attempts.attempt(target, wrong))).type)
  return types
}

t.test('attempts: a burst of failures is allowed, then none', async t => {
  const { attempts } = build()
  t.same(await fail(attempts, home, 6), [...Array(5).fill('authentication-failed'), 'rate-limit-exceeded'])
  let checked = false
  const refused = attempts.attempt(home, async () => { checked = true })
  await t.rejects(
    refused, { statusCode: 429, message: 'Too many failed attempts', members: { retry_after: 10 }, headers: { 'retry-after': '10' } }
  )
  t.equal(checked, false)
})

t.test('attempts: attempts are returned one by one, and a client that waits the stated time is allowed', async t => {
  const { attempts, now } = build()
  await fail(attempts, home, 5)
  now.advance(9_999)
  t.same(await fail(attempts, home, 1), ['rate-limit-exceeded'])
  now.advance(1)
  t.same(await fail(attempts, home, 2), ['authentication-failed', 'rate-limit-exceeded'])
  now.advance(1_000_000)
  t.same(await fail(attempts, home, 6), [...Array(5).fill('authentication-failed'), 'rate-limit-exceeded'], 'never more than a burst')
})

t.test('attempts: concurrent attempts count before they end', async t => {
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

t.test('attempts: only 401 and 403 count', async t => {
  const { attempts, state } = build()
  for (let n = 0; n < 20; n++) {
    t.equal(await attempts.attempt(home, right), 'yes')
    await t.rejects(attempts.attempt(home, async () => { throw problem('invalid-input', 'no') }))
    await t.rejects(attempts.attempt(home, () => { throw new Error('broken') }))
  }
  t.equal(state.bucketCount, 0, 'and nothing is stored for them')
  for (let n = 0; n < 5; n++) await t.rejects(attempts.attempt(home, () => { throw problem('insufficient-permissions', 'no') }))
  t.same(await fail(attempts, home, 1), ['rate-limit-exceeded'])
})

t.test('attempts: a success returns only its own attempt', async t => {
  const { attempts } = build()
  for (let n = 0; n < 5; n++) {
    await fail(attempts, { ...home, account: undefined }, 1)
    await attempts.attempt(home, right).catch(() => {})
  }
  t.same(await fail(attempts, { ...home, account: undefined }, 1), ['rate-limit-exceeded'])
})

t.test('attempts: synchronous checks do not count against each other', async t => {
  const { attempts } = build()
  const many = await Promise.all(Array.from({ length: 100 }, (_, n) => attempts.attemptLocally(client, () => n)))
  t.equal(many.length, 100)
})

t.test('attempts: an account is limited over all addresses, and an address over all accounts', async t => {
  const { attempts } = build()
  for (let n = 0; n < 5; n++) await fail(attempts, { ...home, address: `198.51.100.${n}` }, 1)
  t.same(await fail(attempts, home, 1), ['rate-limit-exceeded'])
  t.same(await fail(attempts, { ...home, account: 'other' }, 1), ['authentication-failed'])
  t.same(await fail(attempts, { ...home, kind: 'pin' }, 1), ['authentication-failed'], 'kinds are counted separately')
  const spray = build().attempts
  for (let n = 0; n < 5; n++) await fail(spray, { ...home, account: `user-${n}` }, 1)
  t.same(await fail(spray, home, 1), ['rate-limit-exceeded'])
})

t.test('attempts: other addresses cannot lock out an address that has logged in before', async t => {
  const { attempts } = build({ limits: { known: 2 } })
  await attempts.attempt(home, right)
  for (let n = 0; n < 6; n++) await fail(attempts, { ...home, address: `198.51.100.${n}` }, 1)
  t.equal(await attempts.attempt(home, right), 'yes')
  t.match(await refusal(() => attempts.attempt({ ...home, address: '203.0.113.9' }, right)), { type: 'rate-limit-exceeded' })
  t.same(await fail(attempts, home, 6), [...Array(5).fill('authentication-failed'), 'rate-limit-exceeded'],
    'and it has no more attempts than others')
})

t.test('attempts: the number of remembered addresses is bounded', async t => {
  const { attempts } = build({ limits: { known: 2 } })
  for (const address of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) await attempts.attempt({ ...home, address }, right)
  for (let n = 0; n < 5; n++) await fail(attempts, { ...home, address: `198.51.100.${n}` }, 1)
  t.match(await refusal(() => attempts.attempt(home, right)), { type: 'rate-limit-exceeded' }, 'the oldest is evicted')
  t.equal(await attempts.attempt({ ...home, address: '192.0.2.2' }, right), 'yes')
})

t.test('attempts: an IPv6 network counts as one address, and a mapped address as IPv4', async t => {
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

const root = { username: 'root', fingerprint: 'browser-1', address: '192.0.2.1' }

function buildSessions () {
  const now = manualClock()
  const sessions = new Sessions({ kvReplica: shared(now), timeoutMs: 60_000, maxSessions: 2, now })
  const ended: string[] = []
  const stop = sessions.on('ended', ({ id }, reason) => ended.push(`${id} ${reason}`))
  return { now, sessions, ended, stop }
}

t.test('sessions: a session is found until it expires', async t => {
  const { sessions, now, ended } = buildSessions()
  const session = await sessions.open(root)
  t.match(session, { ...root, pinHash: null, expiresAt: now() + 60_000 })
  now.advance(59_999)
  t.same(await sessions.find(session.id), session)
  now.advance(1)
  t.equal(await sessions.find(session.id), undefined)
  t.same(ended, [`${session.id} expired`])
  t.equal(await sessions.end(session.id), false)
  t.equal(ended.length, 1)
})

t.test('sessions: the fingerprint must match that of the login', async t => {
  const { sessions } = buildSessions()
  const { id } = await sessions.open(root)
  t.match(await sessions.check(id, 'browser-1'), { id })
  for (const wrong of ['browser-2', '', 'browser-11']) t.equal(await sessions.check(id, wrong), undefined)
  t.equal(await sessions.check('nobody', 'browser-1'), undefined)
})

t.test('sessions: the newest sessions of a user are kept', async t => {
  const { sessions, ended } = buildSessions()
  const [first, second] = [await sessions.open(root), await sessions.open(root)]
  const other = await sessions.open({ ...root, username: 'other' })
  const third = await sessions.open(root)
  t.same(ended, [`${first.id} replaced`])
  for (const { id } of [second, third, other]) t.ok(await sessions.find(id))
})

t.test('sessions: ending one calls the listeners until they unsubscribe', async t => {
  const { sessions, ended, stop } = buildSessions()
  const [first, second] = [await sessions.open(root), await sessions.open(root)]
  t.equal(await sessions.end(first.id), true)
  t.equal(await sessions.find(first.id), undefined)
  stop()
  t.equal(await sessions.end(second.id), true)
  t.same(ended, [`${first.id} logout`])
})

t.test('sessions: a PIN is set once', async t => {
  const { sessions } = buildSessions()
  const { id } = await sessions.open(root)
  t.same(await Promise.all([sessions.setPin(id, 'h1'), sessions.setPin(id, 'h2')]), ['set', 'already-set'])
  t.match(await sessions.find(id), { pinHash: 'h1' })
  t.equal(await sessions.setPin('nobody', 'h1'), 'not-found')
})

t.test('sessions: sweeping and opening another session end expired ones', async t => {
  const { sessions, now, ended } = buildSessions()
  await sessions.open(root)
  now.advance(30_000)
  const young = await sessions.open(root)
  now.advance(30_000)
  await sessions.sweep()
  t.equal(sessions.size, 1)
  t.equal(ended.length, 1)
  now.advance(30_000)
  await sessions.open({ ...root, username: 'other' })
  t.same(ended[1], `${young.id} expired`)
})
