import assert from 'node:assert/strict'
import { owner, recordOf, type Case } from './scene.js'

const exact = { exact: true }

/** Leases, death, retention and revival. */
export const liveness: Case[] = [
  ['a lease ends at its deadline, and not before', async scene => {
    await scene.agent('one')
    await scene.pass(scene.settings.leaseMs - 1)
    assert.equal(await scene.store.expire({ cleanup: true }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: true }), 1)
    assert.deepEqual([scene.record('one').state, scene.news()], ['dead', ['dead one lease-expired']])
  }, exact],
  ['a death keeps when the agent was last seen', async scene => {
    const { lastSeen } = await scene.agent('one')
    assert.equal(await scene.end(), 1)
    assert.deepEqual([scene.record('one').lastSeen, scene.record('one').held], [lastSeen, false])
  }],
  ['a sign of life moves the deadline', async scene => {
    const { leaseMs } = scene.settings
    await scene.agent('one')
    await scene.agent('two')
    await scene.pass(leaseMs / 2)
    await scene.renew('one')
    await scene.pass(leaseMs / 2)
    await scene.store.expire({ cleanup: false })
    assert.deepEqual(scene.news(), ['dead two lease-expired'])
    await scene.pass(leaseMs / 2)
    await scene.store.expire({ cleanup: false })
    assert.deepEqual(scene.news(), ['dead one lease-expired'])
  }],
  ...([['alive', true], ['draining', true], ['maintenance', true], ['suspect', false]] as const).map(([state, renews]): Case => [
    `asking an agent to be ${state} is ${renews ? 'a sign of life' : 'none'}`, async scene => {
      const { lastSeen } = await scene.agent('one')
      await scene.pass(scene.settings.leaseMs / 2)
      assert.equal(recordOf(await scene.setState('one', state)).lastSeen > lastSeen, renews)
      await scene.pass(scene.settings.leaseMs / 2)
      assert.equal(await scene.store.expire({ cleanup: false }), renews ? 0 : 1)
    }]),
  ['an update is no sign of life', async scene => {
    const { revision, body, type, capabilities } = await scene.agent('one')
    await scene.pass(scene.settings.leaseMs / 2)
    recordOf(await scene.store.update({ id: 'one', content: { body, type, capabilities }, revision }))
    await scene.pass(scene.settings.leaseMs / 2)
    assert.equal(await scene.store.expire({ cleanup: false }), 1)
  }],
  ['agents that drain or are in maintenance die too', async scene => {
    await scene.agent('one', 'draining')
    await scene.agent('two', 'maintenance')
    assert.equal(await scene.end(), 2)
    assert.deepEqual(scene.news(), ['dead one lease-expired', 'dead two lease-expired'])
  }],
  ['however many sweep, a death is one change', async scene => {
    const ids = await scene.fleet(5)
    await scene.pass(scene.settings.leaseMs)
    const counts = await Promise.all([1, 2, 3].map(() => scene.store.expire({ cleanup: true })))
    assert.equal(counts.reduce((sum, count) => sum + count), 5)
    assert.deepEqual(scene.news().sort(), ids.map(id => `dead ${id} lease-expired`))
  }],
  ['a dead agent is removed after its retention, by a sweep that cleans up', async scene => {
    const { retentionMs } = scene.settings
    await scene.agent('one', 'dead')
    await scene.pass(retentionMs - 1)
    assert.equal(await scene.store.expire({ cleanup: true }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
    assert.equal(await scene.store.expire({ cleanup: true }), 1)
    assert.deepEqual([scene.news(), scene.changes.at(-1)!.after], [['unregistered one retention'], null])
    assert.deepEqual(await scene.renew('one'), { ok: false, reason: 'not-found' })
  }, exact],
  ['an agent that comes back before it is removed stays', async scene => {
    const { retentionMs } = scene.settings
    await scene.agent('one', 'dead')
    await scene.agent('two', 'dead')
    recordOf(await scene.renew('one'))
    recordOf(await scene.register('two', { claim: owner }))
    for (let passed = 0; passed < retentionMs; passed += 100) {
      await scene.pass(100)
      await scene.store.renew([{ id: 'one' }, { id: 'two' }])
      await scene.store.expire({ cleanup: true })
    }
    assert.deepEqual(scene.news(), ['alive one revived', 'registered two replaced', 'alive two first-sign'])
  }],
  ['who dies again has its whole retention again', async scene => {
    await scene.agent('one', 'dead')
    await scene.pass(scene.settings.retentionMs - 1)
    await scene.renew('one')
    assert.equal(await scene.end(), 1)
    await scene.pass(scene.settings.retentionMs - 1)
    assert.equal(await scene.store.expire({ cleanup: true }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: true }), 1)
  }, exact],
  ['time that the registry stood still is given to every lease', async scene => {
    await scene.fleet(2)
    await scene.pass(500)
    await scene.store.extend(500)
    await scene.renew('agent-1')
    await scene.pass(999)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: false }), 2)
  }, exact],
  ['what hears of a death may change others of the same sweep', async scene => {
    const ids = await scene.fleet(3)
    let calls: Array<Promise<unknown>> = []
    scene.onChange = ({ event, id }) => {
      if (event === 'dead' && id === ids[0]) calls = [scene.store.remove({ id, reason: 'test' }), scene.store.remove({ id: ids[1]!, reason: 'test' }), scene.renew(ids[2]!)]
    }
    await scene.end()
    await Promise.all(calls)
    const last = ids.map(id => scene.changes.findLast(change => change.id === id)!)
    assert.deepEqual(last.slice(0, 2).map(({ event, after }) => [event, after]), [['unregistered', null], ['unregistered', null]])
    assert.equal(last[2]!.after!.state, 'alive')
  }]
]
