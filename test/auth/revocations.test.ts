import t from 'tap'
import { ExpiringMap } from '../../src/expiring-map.js'
import { Revocations, type Revoked } from '../../src/auth/revocations.js'
import { SpentTokens } from '../../src/auth/spent.js'
import { Tickets } from '../../src/auth/tickets.js'
import { manualClock, principal, refusal } from './helper.js'

const hour = 3_600_000

function build () {
  const now = manualClock()
  return { now, revocations: new Revocations({ maxTokenLifeMs: hour, now }) }
}

t.test('a token is revoked by its id', async t => {
  const { revocations, now } = build()
  revocations.revokeToken('token-1', now() / 1000 + 60)
  revocations.revokeToken('token-2', null)
  t.equal(revocations.check(principal()), 'revoked')
  t.equal(revocations.check(principal({ tokenId: 'token-2' })), 'revoked')
  t.equal(revocations.check(principal({ tokenId: 'token-3' })), 'ok')
})

t.test('tokens of an agent end up to an incarnation', async t => {
  const { revocations, now } = build()
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  t.equal(revocations.check(principal({ incarnation: 4 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: 5 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: 6 })), 'ok')
  t.equal(revocations.check(principal({ agentId: 'agent-two' })), 'ok')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: now() - 1 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: undefined })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: now() })), 'ok', 'what was issued later is not meant')
  t.equal(revocations.check(principal({ type: 'admin', role: 'admin' })), 'ok', 'an admin is no agent, whatever the name')
})

t.test('an agent that left may only register again', async t => {
  const { revocations } = build()
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: true })
  t.equal(revocations.check(principal()), 'register-only')
  t.equal(revocations.check(principal({ incarnation: 6 })), 'ok')
})

t.test('of several revocations the stricter and the newer count', async t => {
  const { revocations } = build()
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 7, mayRegister: true })
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 6, mayRegister: true })
  t.same([5, 6, 7, 8].map(incarnation => revocations.check(principal({ incarnation }))), ['revoked', 'register-only', 'register-only', 'ok'])
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 7, mayRegister: false })
  t.equal(revocations.check(principal({ incarnation: 7 })), 'revoked')
})

t.test('nothing is kept longer than a token can live', async t => {
  const { revocations, now } = build()
  revocations.revokeToken('token-1', now() / 1000 + 60)
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  now.advance(60_000)
  revocations.sweep()
  t.equal(revocations.size, 1)
  now.advance(hour)
  revocations.sweep()
  t.equal(revocations.size, 0)
})

t.test('listeners are told until they stop', async t => {
  const { revocations } = build()
  const told: Revoked[] = []
  const stop = revocations.onRevoke(revoked => told.push(revoked))
  revocations.revokeToken('token-1', null)
  revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: true })
  stop()
  revocations.revokeToken('token-2', null)
  t.same(told, [{ jti: 'token-1' }, { agentId: 'agent-one', incarnation: 5, mayRegister: true }])
})

t.test('an expiring map forgets what has ended, without a timer', async t => {
  const now = manualClock()
  const map = new ExpiringMap<number>(now)
  for (let n = 0; n < 63; n++) map.set(`old-${n}`, n, now() + 10)
  now.advance(10)
  t.equal(map.get('old-1'), undefined)
  map.set('new', 1, now() + 10)
  t.equal(map.size, 1)
  t.equal(map.take('new'), 1)
  t.equal(map.take('new'), undefined)
})

t.test('a ticket opens one socket of its tier', async t => {
  const tickets = new Tickets({ now: manualClock() })
  const bearer = principal()
  const { ticket, expires_in: life } = tickets.issue({ tier: 'agents', principal: bearer })
  t.match(ticket, /^[\w-]{43}$/)
  t.equal(life, 30)
  t.equal(tickets.take(ticket, 'agents'), bearer)
  t.equal(tickets.take(ticket, 'agents'), undefined)
  t.equal(tickets.take('x', 'agents'), undefined)
})

t.test('a ticket for another tier is spent and opens nothing', async t => {
  const tickets = new Tickets({ now: manualClock() })
  const { ticket } = tickets.issue({ tier: 'agents', principal: principal() })
  t.equal(tickets.take(ticket, 'dashboard'), undefined)
  t.equal(tickets.take(ticket, 'agents'), undefined)
})

t.test('tickets end after 30 s, and the oldest make room', async t => {
  const now = manualClock()
  const tickets = new Tickets({ now, limit: 2 })
  const [first, second, third] = [1, 2, 3].map(() => tickets.issue({ tier: 'public', principal: principal() }).ticket)
  t.equal(tickets.take(first, 'public'), undefined)
  now.advance(29_999)
  t.ok(tickets.take(second, 'public'))
  now.advance(1)
  t.equal(tickets.take(third, 'public'), undefined)
})

t.test('a temporary token gets no ticket', async t => {
  const tickets = new Tickets({ now: manualClock() })
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

t.test('a temporary token is spent by the first success', async t => {
  const spent = new SpentTokens({ now: manualClock() })
  t.equal(await spent.once('t1', 'a', async () => 1), 1)
  t.same(await refusal(() => spent.once('t1', 'b', async () => 2)), used)
  t.equal(await spent.once('t2', 'b', async () => 2), 2)
})

t.test('the same request gets the same answer for a minute', async t => {
  const now = manualClock()
  const spent = new SpentTokens({ now })
  const answer = { token: 'x' }
  await spent.once('t1', 'a', async () => answer)
  now.advance(59_999)
  t.equal(await spent.once('t1', 'a', async () => ({ token: 'y' })), answer)
  now.advance(1)
  t.same(await refusal(() => spent.once('t1', 'a', async () => answer)), used)
  now.advance(14 * 60_000)
  t.equal(await spent.once('t1', 'a', async () => answer), answer, 'by then the token itself has expired')
})

t.test('a failure spends nothing', async t => {
  const spent = new SpentTokens({ now: manualClock() })
  await t.rejects(spent.once('t1', 'a', async () => { throw new Error('later') }), { message: 'later' })
  await t.rejects(spent.once('t1', 'a', () => { throw new Error('at once') }), { message: 'at once' })
  t.equal(await spent.once('t1', 'b', async () => 2), 2)
})

t.test('the same request at the same time runs once', async t => {
  const spent = new SpentTokens({ now: manualClock() })
  const first = pending<number>()
  const both = Promise.all([spent.once('t1', 'a', () => first.promise), spent.once('t1', 'a', async () => 2)])
  first.resolve(1)
  t.same(await both, [1, 1])
})

t.test('another request waits for the first and is then refused or runs', async t => {
  const spent = new SpentTokens({ now: manualClock() })
  const first = pending<number>()
  const good = spent.once('t1', 'a', () => first.promise)
  const late = refusal(() => spent.once('t1', 'b', async () => 2))
  first.resolve(1)
  t.equal(await good, 1)
  t.same(await late, used)
  const second = pending<number>()
  const bad = t.rejects(spent.once('t2', 'a', () => second.promise))
  const waiting = ['b', 'c'].map(key => spent.once('t2', key, async () => key))
  second.reject(new Error('no'))
  await bad
  t.equal(await waiting[0], 'b')
  t.same(await refusal(() => waiting[1]), used)
})
