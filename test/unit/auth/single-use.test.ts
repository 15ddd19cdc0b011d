import t from 'tap'
import { OneTimeTokens, type OneTimeRequest } from '../../../src/auth/tokens.js'
import { Tickets } from '../../../src/auth/tickets.js'
import { MemoryKeyValueStore, type MemoryKeyValueStoreOptions } from '../../../src/storage/memory/kv-store.js'
import { manualClock, principal, refusal } from './helper.js'

function build (options: MemoryKeyValueStoreOptions = {}) {
  const now = manualClock()
  const state = new MemoryKeyValueStore({ clock: now, ...options })
  return { now, state, tickets: new Tickets({ state, now }), oneTime: new OneTimeTokens({ state, now }) }
}

/** A request whose answer another process makes up from the first one's. */
function asked<T> (key: string, run: () => Promise<T>): OneTimeRequest<unknown, unknown> {
  return { key, run, record: result => result, replay: recorded => ({ recalled: recorded }) }
}

t.test('a ticket opens one socket of its tier', async t => {
  const tickets = build().tickets
  const bearer = principal()
  const { ticket, expires_in: life } = await tickets.issue({ tier: 'agents', principal: bearer })
  t.match(ticket, /^[\w-]{43}$/)
  t.equal(life, 30)
  t.same(await tickets.take(ticket, 'agents'), bearer)
  t.equal(await tickets.take(ticket, 'agents'), undefined)
  t.equal(await tickets.take('x', 'agents'), undefined)
})

t.test('a ticket for another tier is oneTime and opens nothing', async t => {
  const tickets = build().tickets
  const { ticket } = await tickets.issue({ tier: 'agents', principal: principal() })
  t.equal(await tickets.take(ticket, 'dashboard'), undefined)
  t.equal(await tickets.take(ticket, 'agents'), undefined)
})

t.test('tickets end after 30 s, and the oldest make room', async t => {
  const { tickets, now } = build({ limits: { ticket: 2 } })
  const issued = []
  for (let n = 0; n < 3; n++) issued.push((await tickets.issue({ tier: 'public', principal: principal() })).ticket)
  const [first, second, third] = issued as [string, string, string]
  t.equal(await tickets.take(first, 'public'), undefined)
  now.advance(29_999)
  t.ok(await tickets.take(second, 'public'))
  now.advance(1)
  t.equal(await tickets.take(third, 'public'), undefined)
})

t.test('a temporary token gets no ticket', async t => {
  const tickets = build().tickets
  const issue = () => tickets.issue({ tier: 'agents', principal: principal({ type: 'temp' }) })
  t.match(await refusal(issue), { type: 'insufficient-permissions', status: 403 })
})

const used = { type: 'token-invalid', status: 401, detail: 'This temporary token has been used' }

/** A promise to be settled by the test. */
function pending<T> () {
  let resolve!: (value: T) => void
  let reject!: (error: Error) => void
  const promise = new Promise<T>((_resolve, _reject) => { [resolve, reject] = [_resolve, _reject] })
  return { promise, resolve, reject }
}

t.test('a temporary token is oneTime by the first success', async t => {
  const oneTime = build().oneTime
  t.equal(await oneTime.use('t1', asked('a', async () => 1)), 1)
  t.same(await refusal(() => oneTime.use('t1', asked('b', async () => 2))), used)
  t.equal(await oneTime.use('t2', asked('b', async () => 2)), 2)
})

t.test('the same request gets the same answer for a minute', async t => {
  const { oneTime, now } = build()
  const answer = { token: 'x' }
  await oneTime.use('t1', asked('a', async () => answer))
  now.advance(59_999)
  t.equal(await oneTime.use('t1', asked('a', async () => ({ token: 'y' }))), answer)
  now.advance(1)
  t.same(await refusal(() => oneTime.use('t1', asked('a', async () => answer))), used)
  now.advance(14 * 60_000)
  t.equal(await oneTime.use('t1', asked('a', async () => answer)), answer, 'by then the token itself has expired')
})

t.test('a failure spends nothing', async t => {
  const oneTime = build().oneTime
  await t.rejects(oneTime.use('t1', asked('a', async () => { throw new Error('later') })), { message: 'later' })
  await t.rejects(oneTime.use('t1', asked('a', () => { throw new Error('at once') })), { message: 'at once' })
  t.equal(await oneTime.use('t1', asked('b', async () => 2)), 2)
})

t.test('the same request at the same time runs once', async t => {
  const oneTime = build().oneTime
  const first = pending<number>()
  const both = Promise.all([oneTime.use('t1', asked('a', () => first.promise)), oneTime.use('t1', asked('a', async () => 2))])
  first.resolve(1)
  t.same(await both, [1, 1])
})

t.test('another request waits for the first and is then refused or runs', async t => {
  const oneTime = build().oneTime
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

/** Two processes on the same store. */
function buildTwo () {
  const { now, state, oneTime: one } = build()
  return { now, state, one, two: new OneTimeTokens({ state, now }) }
}

t.test('what one process has oneTime is oneTime in all, and a repeat gets an answer made up from the first', async t => {
  const { now, one, two } = buildTwo()
  t.equal(await one.use('t1', asked('a', async () => 1)), 1)
  t.same(await two.use('t1', asked('a', async () => 2)), { recalled: 1 })
  t.same(await refusal(() => two.use('t1', asked('b', async () => 2))), used)
  now.advance(60_000)
  t.same(await refusal(() => two.use('t1', asked('a', async () => 2))), used)
})

t.test('of two processes one runs a request, the other waits for it', async t => {
  const { one, two } = buildTwo()
  const first = pending<number>()
  const running = one.use('t1', asked('a', () => first.promise))
  const waiting = [two.use('t1', asked('a', async () => 2)), refusal(() => two.use('t1', asked('b', async () => 3)))]
  setTimeout(() => first.resolve(1), 120)
  t.equal(await running, 1)
  t.same(await Promise.all(waiting), [{ recalled: 1 }, used])
})

t.test('a failure at one process leaves the token to the others', async t => {
  const { one, two } = buildTwo()
  const first = pending<number>()
  const failing = t.rejects(one.use('t1', asked('a', () => first.promise)), { message: 'no' })
  const waiting = two.use('t1', asked('b', async () => 2))
  setTimeout(() => first.reject(new Error('no')), 60)
  await failing
  t.equal(await waiting, 2)
})

t.test('the token of a process that has ended can be used after a minute', async t => {
  const { now, one, two } = buildTwo()
  one.use('t1', asked('a', () => new Promise(() => {}))).catch(() => {})
  now.advance(60_000)
  t.equal(await two.use('t1', asked('a', async () => 2)), 2)
})

t.test('whoever waits too long for another process is refused', async t => {
  const { now, state, one } = buildTwo()
  const two = new OneTimeTokens({ state, now, waitMs: 200 })
  one.use('t1', asked('a', () => new Promise(() => {}))).catch(() => {})
  t.match(await refusal(() => two.use('t1', asked('b', async () => 2))), { type: 'token-invalid', detail: 'This temporary token is in use' })
})

t.test('a store that goes away while a request runs takes back neither its result nor its failure', async t => {
  const state = new MemoryKeyValueStore()
  let isAway = false
  const flaky = new Proxy(state, {
    get: (target, name) => name === 'put' && isAway ? async () => { throw new Error('away') } : target[name as 'get'].bind(target)
  })
  const oneTime = new OneTimeTokens({ state: flaky, now: Date.now })
  t.equal(await oneTime.use('t1', asked('a', async () => { isAway = true; return 1 })), 1)
  isAway = false
  await t.rejects(oneTime.use('t2', asked('a', async () => { isAway = true; throw new Error('no') })), { message: 'no' })
  await t.rejects(oneTime.use('t3', asked('a', async () => 1)), { message: 'away' })
})

t.test('of two processes that are shown a ticket one opens a socket', async t => {
  const { now, state, tickets } = build()
  const { ticket } = await tickets.issue({ tier: 'agents', principal: principal() })
  t.notOk((await state.list('ticket')).some(entry => JSON.stringify(entry).includes(ticket)), 'the store does not tell it')
  const other = new Tickets({ state, now })
  const taken = await Promise.all([tickets.take(ticket, 'agents'), other.take(ticket, 'agents')])
  t.same(taken.filter(Boolean), [principal()])
})
