import t from 'tap'
import { ExpiringMap } from '../../../src/lib/expiring-map.js'
import { Revocations, type Revoked } from '../../../src/auth/revocations.js'
import { manualClock, principal, shared } from './helper.js'

const hour = 3_600_000

function build () {
  const now = manualClock()
  return { now, revocations: new Revocations({ state: shared(now), maxTokenLifeMs: hour, now }) }
}

t.test('a token is revoked by its id', async t => {
  const { revocations, now } = build()
  await revocations.revokeToken('token-1', now() / 1000 + 60)
  await revocations.revokeToken('token-2', null)
  t.equal(revocations.check(principal()), 'revoked')
  t.equal(revocations.check(principal({ tokenId: 'token-2' })), 'revoked')
  t.equal(revocations.check(principal({ tokenId: 'token-3' })), 'ok')
})

t.test('tokens of an agent end up to an incarnation', async t => {
  const { revocations, now } = build()
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  t.equal(revocations.check(principal({ incarnation: 4 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: 5 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: 6 })), 'ok')
  t.equal(revocations.check(principal({ agentId: 'agent-two' })), 'ok')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: now() - 1 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: undefined })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: now() })), 'ok', 'what was issued later is not meant')
  t.equal(revocations.check(principal({ type: 'admin', role: 'admin' })), 'ok', 'an admin is no agent, whatever the name')
})

t.test('what has ended stays ended, whatever becomes of its entry in the store', async t => {
  const now = manualClock()
  const state = shared(now)
  const revocations = new Revocations({ state, maxTokenLifeMs: hour, now })
  await revocations.revokeToken('token-1', null)
  await revocations.revokeAgent({ agentId: 'agent-two', incarnation: 5, mayRegister: false })
  for (const [kind, key] of [['revoked-token', 'token-1'], ['revoked-agent', 'agent-two']] as const) t.type(await state.store.take(kind, key), 'string')
  state.reloaded([])
  t.equal(revocations.check(principal()), 'revoked')
  t.equal(revocations.check(principal({ agentId: 'agent-two', tokenId: 'token-3' })), 'revoked')
})

t.test('an agent that left may only register again', async t => {
  const { revocations } = build()
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: true })
  t.equal(revocations.check(principal()), 'register-only')
  t.equal(revocations.check(principal({ incarnation: 6 })), 'ok')
})

t.test('of several revocations the stricter and the newer count', async t => {
  const { revocations } = build()
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 7, mayRegister: true })
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 6, mayRegister: true })
  t.same([5, 6, 7, 8].map(incarnation => revocations.check(principal({ incarnation }))), ['revoked', 'register-only', 'register-only', 'ok'])
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 7, mayRegister: false })
  t.equal(revocations.check(principal({ incarnation: 7 })), 'revoked')
})

t.test('nothing is kept longer than a token can live', async t => {
  const { revocations, now } = build()
  await revocations.revokeToken('token-1', now() / 1000 + 60)
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
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
  const stop = revocations.on('revoked', revoked => told.push(revoked))
  await revocations.revokeToken('token-1', null)
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: true })
  stop()
  await revocations.revokeToken('token-2', null)
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
