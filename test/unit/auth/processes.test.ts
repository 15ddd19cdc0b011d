import t from 'tap'
import { Attempts, type AttemptTarget } from '../../../src/auth/attempts.js'
import { PersistedSecrets } from '../../../src/auth/keys.js'
import { Revocations, type Revoked } from '../../../src/auth/revocations.js'
import { Sessions } from '../../../src/auth/sessions.js'
import { KeyValueReplica } from '../../../src/storage/kv-store.js'
import { MemoryKeyValueStore, type MemoryKeyValueStoreOptions } from '../../../src/storage/memory/kv-store.js'
import { forever } from '../../../src/storage/kv-store.js'
import { problem } from '../../../src/errors.js'
import { type OneTimeRequest, OneTimeTokens } from '../../../src/auth/tokens.js'
import { Tickets } from '../../../src/auth/tickets.js'
import { manualClock, principal, refusal, shared } from './helper.js'

const hour = 3_600_000
const root = { username: 'root', fingerprint: 'browser-1', address: '192.0.2.1' }

/** Two processes on one store, and the events of each. */
function build () {
  const now = manualClock()
  const store = new MemoryKeyValueStore({ clock: now })
  const process = () => {
    const state = shared(now, store)
    const sessions = new Sessions({ kvReplica: state, timeoutMs: 60_000, maxSessions: 2, now })
    const revocations = new Revocations({ kvReplica: state, maxTokenLifeMs: hour, now })
    const ended: string[] = []
    const revoked: Revoked[] = []
    sessions.on('ended', ({ id }, reason) => { ended.push(`${id} ${reason}`) })
    revocations.on('revoked', what => { revoked.push(what) })
    return { state, sessions, revocations, ended, revoked }
  }
  return { now, store, one: process(), two: process() }
}

t.test('auth across processes: a session opened at one and ended at another is notified once at each', async t => {
  const { one, two } = build()
  const { id } = await one.sessions.open(root)
  t.match(await two.sessions.check(id, 'browser-1'), root)
  t.equal(await two.sessions.end(id), true)
  t.equal(await one.sessions.find(id), undefined)
  t.equal(await one.sessions.end(id), false)
  t.same([one.ended, two.ended], [[`${id} ended`], [`${id} logout`]])
})

t.test('auth across processes: each process expires a session on its own', async t => {
  const { now, one, two } = build()
  const { id } = await one.sessions.open(root)
  now.advance(60_000)
  await one.sessions.sweep()
  t.same([one.ended, two.ended], [[`${id} expired`], []])
  await two.sessions.sweep()
  await one.sessions.sweep()
  t.same([one.ended, two.ended], [[`${id} expired`], [`${id} expired`]])
})

t.test('auth across processes: an expired session is not notified as ended by a caller', async t => {
  const { now, one, two } = build()
  const { id } = await one.sessions.open(root)
  now.advance(60_000)
  two.state.changed({ kind: 'session', key: id, value: null, until: now() })
  t.same(two.ended, [`${id} expired`])
})

t.test('auth across processes: the session limit of a user covers all processes', async t => {
  const { one, two, store } = build()
  const opened = await Promise.all([one, two, one, two, one].map(({ sessions }) => sessions.open(root)))
  const kept = new Set((await store.list('session')).map(({ key }) => key))
  t.equal(kept.size, 2)
  for (const { sessions, ended } of [one, two]) {
    for (const { id } of opened) t.equal(await sessions.find(id) !== undefined, kept.has(id))
    t.same(ended.map(text => text.split(' ')[0]).sort(), opened.map(({ id }) => id).filter(id => !kept.has(id)).sort())
  }
})

t.test('auth across processes: of two processes that set a PIN one succeeds', async t => {
  const { one, two } = build()
  const { id } = await one.sessions.open(root)
  t.same((await Promise.all([one.sessions.setPin(id, 'h1'), two.sessions.setPin(id, 'h2')])).sort(), ['already-set', 'set'])
  t.equal((await one.sessions.find(id))?.pinHash, (await two.sessions.find(id))?.pinHash)
})

t.test('auth across processes: a session that ends while its PIN is set is not found', async t => {
  const { one, two } = build()
  const { id } = await one.sessions.open(root)
  t.same(await Promise.all([two.sessions.end(id), one.sessions.setPin(id, 'h1')]), [true, 'not-found'])
})

/** The store as a process without notifications sees it. */
function deafTo (store: MemoryKeyValueStore): MemoryKeyValueStore {
  return new Proxy(store, { get: (target, name) => name === 'open' ? async () => [] : target[name as 'get'].bind(target) })
}

t.test('auth across processes: an unknown session is looked up, and an ended one is looked up once', async t => {
  const { now, store, one } = build()
  const state = shared(now, deafTo(store))
  const sessions = new Sessions({ kvReplica: state, timeoutMs: 60_000, maxSessions: 2, now })
  const { id, expiresAt } = await one.sessions.open(root)
  t.match(await sessions.find(id), root)
  await one.sessions.end(id)
  t.match(await sessions.find(id), root, 'it has not received the end either')
  state.changed({ kind: 'session', key: id, value: null, until: expiresAt })
  t.equal(await sessions.find(id), undefined)
  t.equal(await sessions.find('never there'), undefined)
  await store.put({
    kind: 'session', key: 'never there', value: JSON.stringify({ ...root, id: 'never there', expiresAt, pinHash: null }), until: expiresAt
  })
  t.equal(await sessions.find('never there'), undefined)
  state.changed({ kind: 'session', key: id, value: JSON.stringify({ ...root, id, expiresAt, pinHash: null }), until: expiresAt })
  t.equal(await sessions.find(id), undefined, 'late events do not revive a session')
})

t.test('auth across processes: after a reload missing sessions have ended, and revocations persist', async t => {
  const { now, one, two, store } = build()
  const [first, second] = [await one.sessions.open(root), await one.sessions.open(root)]
  await one.revocations.revokeToken('token-1', null)
  const entries = (await store.list('session')).filter(({ key }) => key !== first.id)
  const news = { kind: 'revoked-token', key: 'token-2', value: '', until: now() + hour } as const
  for (let times = 0; times < 2; times++) two.state.reloaded([...entries, news])
  t.same(two.ended, [`${first.id} ended`])
  t.ok(await two.sessions.find(second.id))
  t.same(two.revoked, [{ jti: 'token-1' }, { jti: 'token-2' }])
  for (const tokenId of ['token-1', 'token-2']) t.equal(two.revocations.check(principal({ tokenId })), 'revoked')
})

t.test('auth across processes: a revocation applies at all processes, and each is notified once', async t => {
  const { now, store, one, two } = build()
  await one.revocations.revokeToken('token-1', now() / 1000 + 60)
  await two.revocations.revokeToken('token-1', now() / 1000 + 60)
  await one.revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: true })
  const expected = [{ jti: 'token-1' }, { agentId: 'agent-one', incarnation: 5, mayRegister: true }]
  t.same([one.revoked, two.revoked], [expected, expected])
  t.equal(two.revocations.check(principal({ tokenId: 'token-1' })), 'revoked')
  t.equal(two.revocations.check(principal({ tokenId: 'token-3' })), 'register-only')
  const state = new KeyValueReplica(store)
  await state.open()
  const late = new Revocations({ kvReplica: state, maxTokenLifeMs: hour, now })
  late.on('revoked', () => t.fail('earlier revocations are not notified'))
  t.equal(late.check(principal({ tokenId: 'token-3' })), 'register-only', 'a process that starts later has them')
})

t.test('auth across processes: concurrent revocations for one agent are all kept', async t => {
  const { one, two } = build()
  await Promise.all([
    one.revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false }),
    two.revocations.revokeAgent({ agentId: 'agent-one', incarnation: 7, mayRegister: true })
  ])
  for (const { revocations } of [one, two]) {
    t.same([5, 6, 7, 8].map(incarnation =>
      revocations.check(principal({ incarnation }))), ['revoked', 'register-only', 'register-only', 'ok'])
  }
})

t.test('auth across processes: a process without a previous revocation extends it', async t => {
  const { one, now, store } = build()
  const deaf = shared(now, deafTo(store))
  await one.revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  await new Revocations({ kvReplica: deaf, maxTokenLifeMs: hour, now }).revokeAgent(
    { agentId: 'agent-one', incarnation: 7, mayRegister: true }
  )
  t.same([5, 7].map(incarnation => one.revocations.check(principal({ incarnation }))), ['revoked', 'register-only'])
})

const home: AttemptTarget = { address: '192.0.2.1', account: 'root', kind: 'login' }
const client = { address: '192.0.2.1', kind: 'key' } as const
const wrong = () => { throw problem('authentication-failed', 'no') }

/** The attempt limiters of two processes, with the lockouts. */
function buildAttempts () {
  const now = manualClock()
  const state = new MemoryKeyValueStore({ clock: now })
  const locked: string[] = []
  function make (name: string) {
    const attempts = new Attempts({ kv: state, burst: 5, windowMs: 50_000, now })
    attempts.on('lockout', ({ kind }) => { locked.push(`${name} ${kind}`) })
    return attempts
  }
  return { now, locked, one: make('one'), two: make('two') }
}

t.test('auth across processes: attempts are counted and returned across all processes', async t => {
  const { now, one, two, locked } = buildAttempts()
  for (const attempts of [one, two, one, two, one]) {
    t.match(await refusal(() =>
      attempts.attempt(home, wrong)), { type: 'authentication-failed' })
  }
  for (const attempts of [one, two]) t.match(await refusal(() => attempts.attempt(home, () => 'right')), { type: 'rate-limit-exceeded' })
  t.same(locked, ['one login', 'two login'])
  now.advance(10_000)
  t.equal(await two.attempt(home, () => 'right'), 'right')
  for (let n = 0; n < 5; n++) await refusal(() => one.attempt({ ...home, address: `198.51.100.${n}` }, wrong))
  t.equal(await two.attempt(home, () => 'right'), 'right', 'a success at one counts at all')
})

t.test('auth across processes: key guesses at several processes share one limit', async t => {
  const { now, one, two } = buildAttempts()
  for (let n = 0; n < 5; n++) t.match(await refusal(() => one.attemptLocally(client, wrong)), { type: 'authentication-failed' })
  t.match(await refusal(() => one.attemptLocally(client, () => 'right')), { type: 'rate-limit-exceeded' })
  t.match(await refusal(() => two.attemptLocally(client, wrong)), { type: 'rate-limit-exceeded', status: 429 })
  t.match(await refusal(() => two.attemptLocally(client, () => 'right')), { type: 'rate-limit-exceeded' }, 'and is known from then on')
  t.equal(await two.attemptLocally({ ...client, address: '192.0.2.2' }, () => 'right'), 'right')
  now.advance(10_000)
  t.equal(await two.attemptLocally(client, () => 'right'), 'right')
})

t.test('auth across processes: failures other than guesses cost a key nothing', async t => {
  const { one } = buildAttempts()
  for (let n = 0; n < 10; n++) await t.rejects(one.attemptLocally(client, () => { throw new Error('broken') }), { message: 'broken' })
  t.equal(await one.attemptLocally(client, () => 'right'), 'right')
})

t.test('auth across processes: secrets are created once, and restored where a store has lost them', async t => {
  const store = new MemoryKeyValueStore()
  const [one, two] = [new PersistedSecrets(store), new PersistedSecrets(store)]
  const [a, b] = await Promise.all([one.tokens(), two.tokens()])
  t.equal(a, b)
  t.match(a, /^[\w-]{64}$/)
  const digest = await one.agentKeys('the first secret of the tokens')
  t.same(await two.agentKeys('another secret'), digest, 'a rotation changes no owner')
  const empty = new MemoryKeyValueStore()
  t.not((await new PersistedSecrets(empty).agentKeys('another secret')).toString('hex'), digest.toString('hex'))
  for (const { key } of await store.list('secret')) await store.take('secret', key)
  await one.restore()
  await two.restore()
  t.same((await store.list('secret')).map(({ key, until }) => [key, until]).sort(), [['agent-keys', forever], ['tokens', forever]])
  t.equal(await new PersistedSecrets(store).tokens(), a)
})

t.test('auth across processes: a secret lost during a lookup is created again', async t => {
  const store = new MemoryKeyValueStore()
  let losses = 1
  const losing = new Proxy(store, {
    get: (target, name) => name === 'put' && losses-- > 0 ? async () => false : target[name as 'get'].bind(target)
  })
  t.match(await new PersistedSecrets(losing).tokens(), /^[\w-]{64}$/)
})

function buildSingleUse (options: MemoryKeyValueStoreOptions = {}) {
  const now = manualClock()
  const state = new MemoryKeyValueStore({ clock: now, ...options })
  return { now, state, tickets: new Tickets({ kv: state, now }), oneTime: new OneTimeTokens({ kv: state, now }) }
}

/** A request whose answer another process rebuilds from the first one. */
function asked<T> (key: string, run: () => Promise<T>): OneTimeRequest<unknown, unknown> {
  return { key, run, record: result => result, replay: recorded => ({ recalled: recorded }) }
}

t.test('tickets: a ticket opens one socket of its tier', async t => {
  const tickets = buildSingleUse().tickets
  const bearer = principal()
  const { ticket, expires_in: life } = await tickets.issue({ tier: 'agents', principal: bearer })
  t.match(ticket, /^[\w-]{43}$/)
  t.equal(life, 30)
  t.same(await tickets.take(ticket, 'agents'), bearer)
  t.equal(await tickets.take(ticket, 'agents'), undefined)
  t.equal(await tickets.take('x', 'agents'), undefined)
})

t.test('tickets: a ticket used on another tier is spent and opens nothing', async t => {
  const tickets = buildSingleUse().tickets
  const { ticket } = await tickets.issue({ tier: 'agents', principal: principal() })
  t.equal(await tickets.take(ticket, 'dashboard'), undefined)
  t.equal(await tickets.take(ticket, 'agents'), undefined)
})

t.test('tickets: tickets expire after 30 s, and the oldest are evicted at the limit', async t => {
  const { tickets, now } = buildSingleUse({ limits: { ticket: 2 } })
  const issued = []
  for (let n = 0; n < 3; n++) issued.push((await tickets.issue({ tier: 'public', principal: principal() })).ticket)
  const [first, second, third] = issued as [string, string, string]
  t.equal(await tickets.take(first, 'public'), undefined)
  now.advance(29_999)
  t.ok(await tickets.take(second, 'public'))
  now.advance(1)
  t.equal(await tickets.take(third, 'public'), undefined)
})

t.test('tickets: a temporary token gets no ticket', async t => {
  const tickets = buildSingleUse().tickets
  const issue = () => tickets.issue({ tier: 'agents', principal: principal({ type: 'temp' }) })
  t.match(await refusal(issue), { type: 'insufficient-permissions', status: 403 })
})

const used = { type: 'token-invalid', status: 401, detail: 'This temporary token has been used' }

/** A promise that the test settles. */
function pending<T> () {
  let resolve!: (value: T) => void
  let reject!: (error: Error) => void
  const promise = new Promise<T>((_resolve, _reject) => { [resolve, reject] = [_resolve, _reject] })
  return { promise, resolve, reject }
}

t.test('temporary tokens: the first success spends the token', async t => {
  const oneTime = buildSingleUse().oneTime
  t.equal(await oneTime.use('t1', asked('a', async () => 1)), 1)
  t.same(await refusal(() => oneTime.use('t1', asked('b', async () => 2))), used)
  t.equal(await oneTime.use('t2', asked('b', async () => 2)), 2)
})

t.test('temporary tokens: a repeated request gets the same response for a minute', async t => {
  const { oneTime, now } = buildSingleUse()
  const answer = { token: 'x' }
  await oneTime.use('t1', asked('a', async () => answer))
  now.advance(59_999)
  t.equal(await oneTime.use('t1', asked('a', async () => ({ token: 'y' }))), answer)
  now.advance(1)
  t.same(await refusal(() => oneTime.use('t1', asked('a', async () => answer))), used)
  now.advance(14 * 60_000)
  t.equal(await oneTime.use('t1', asked('a', async () => answer)), answer, 'by then the token itself has expired')
})

t.test('temporary tokens: a failure does not spend the token', async t => {
  const oneTime = buildSingleUse().oneTime
  await t.rejects(oneTime.use('t1', asked('a', async () => { throw new Error('later') })), { message: 'later' })
  await t.rejects(oneTime.use('t1', asked('a', () => { throw new Error('at once') })), { message: 'at once' })
  t.equal(await oneTime.use('t1', asked('b', async () => 2)), 2)
})

t.test('temporary tokens: identical concurrent requests run once', async t => {
  const oneTime = buildSingleUse().oneTime
  const first = pending<number>()
  const both = Promise.all([oneTime.use('t1', asked('a', () => first.promise)), oneTime.use('t1', asked('a', async () => 2))])
  first.resolve(1)
  t.same(await both, [1, 1])
})

t.test('temporary tokens: a different request waits for the first, and is then refused or run', async t => {
  const oneTime = buildSingleUse().oneTime
  const first = pending<number>()
  const good = oneTime.use('t1', asked('a', () => first.promise))
  const late = refusal(() => oneTime.use('t1', asked('b', async () => 2)))
  first.resolve(1)
  t.equal(await good, 1)
  t.same(await late, used)
  const second = pending<number>()
  const bad = t.rejects(oneTime.use('t2', asked('a', () => second.promise)))
  const waiting = ['b', 'c'].map(key => oneTime.use('t2', asked(key, async () => key)))
  second.reject(new Error('no'))
  await bad
  t.equal(await waiting[0], 'b')
  t.same(await refusal(() => waiting[1]), used)
})

/** Two processes on one store. */
function buildTwo () {
  const { now, state, oneTime: one } = buildSingleUse()
  return { now, state, one, two: new OneTimeTokens({ kv: state, now }) }
}

t.test('temporary tokens: a token spent at one process is spent at all, and a repeat gets a rebuilt response', async t => {
  const { now, one, two } = buildTwo()
  t.equal(await one.use('t1', asked('a', async () => 1)), 1)
  t.same(await two.use('t1', asked('a', async () => 2)), { recalled: 1 })
  t.same(await refusal(() => two.use('t1', asked('b', async () => 2))), used)
  now.advance(60_000)
  t.same(await refusal(() => two.use('t1', asked('a', async () => 2))), used)
})

t.test('temporary tokens: one of two processes runs a request, the other waits for it', async t => {
  const { one, two } = buildTwo()
  const first = pending<number>()
  const running = one.use('t1', asked('a', () => first.promise))
  const waiting = [two.use('t1', asked('a', async () => 2)), refusal(() => two.use('t1', asked('b', async () => 3)))]
  setTimeout(() => first.resolve(1), 120)
  t.equal(await running, 1)
  t.same(await Promise.all(waiting), [{ recalled: 1 }, used])
})

t.test('temporary tokens: after a failure at one process the others may use the token', async t => {
  const { one, two } = buildTwo()
  const first = pending<number>()
  const failing = t.rejects(one.use('t1', asked('a', () => first.promise)), { message: 'no' })
  const waiting = two.use('t1', asked('b', async () => 2))
  setTimeout(() => first.reject(new Error('no')), 60)
  await failing
  t.equal(await waiting, 2)
})

t.test('temporary tokens: the token of a killed process can be used after a minute', async t => {
  const { now, one, two } = buildTwo()
  one.use('t1', asked('a', () => new Promise(() => {}))).catch(() => {})
  now.advance(60_000)
  t.equal(await two.use('t1', asked('a', async () => 2)), 2)
})

t.test('temporary tokens: a request that waits too long for another process is refused', async t => {
  const { now, state, one } = buildTwo()
  const two = new OneTimeTokens({ kv: state, now, waitMs: 200 })
  one.use('t1', asked('a', () => new Promise(() => {}))).catch(() => {})
  t.match(await refusal(() =>
    two.use('t1', asked('b', async () => 2))), { type: 'token-invalid', detail: 'This temporary token is in use' })
})

t.test('temporary tokens: a store outage during a request changes neither its result nor its failure', async t => {
  const state = new MemoryKeyValueStore()
  let isAway = false
  const flaky = new Proxy(state, {
    get: (target, name) => name === 'put' && isAway ? async () => { throw new Error('away') } : target[name as 'get'].bind(target)
  })
  const oneTime = new OneTimeTokens({ kv: flaky, now: Date.now })
  t.equal(await oneTime.use('t1', asked('a', async () => { isAway = true; return 1 })), 1)
  isAway = false
  await t.rejects(oneTime.use('t2', asked('a', async () => { isAway = true; throw new Error('no') })), { message: 'no' })
  await t.rejects(oneTime.use('t3', asked('a', async () => 1)), { message: 'away' })
})

t.test('tickets: of two processes that get one ticket, one opens a socket', async t => {
  const { now, state, tickets } = buildSingleUse()
  const { ticket } = await tickets.issue({ tier: 'agents', principal: principal() })
  t.notOk((await state.list('ticket')).some(entry => JSON.stringify(entry).includes(ticket)), 'the store does not publish it')
  const other = new Tickets({ kv: state, now })
  const taken = await Promise.all([tickets.take(ticket, 'agents'), other.take(ticket, 'agents')])
  t.same(taken.filter(Boolean), [principal()])
})
