import assert from 'node:assert/strict'
import { owner, range, recordOf, type AgentCase, type AgentScene } from './agent-scene.js'

const exact = { exact: true }

/** Leases, death, retention and revival. */
export const liveness: AgentCase[] = [
  ['a lease expires at its deadline, and not before', async scene => {
    await scene.agent('one')
    await scene.pass(scene.settings.leaseMs - 1)
    assert.equal(await scene.store.expire({ cleanup: true }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: true }), 1)
    assert.deepEqual([scene.record('one').state, scene.newChanges()], ['dead', ['dead one lease-expired']])
  }, exact],
  ['a dead agent keeps the time of its last heartbeat', async scene => {
    const { lastSeen } = await scene.agent('one')
    assert.equal(await scene.endLeases(), 1)
    assert.deepEqual([scene.record('one').lastSeen, scene.record('one').held], [lastSeen, false])
  }],
  ['a heartbeat moves the deadline', async scene => {
    const { leaseMs } = scene.settings
    await scene.agent('one')
    await scene.agent('two')
    await scene.pass(leaseMs / 2)
    await scene.renew('one')
    await scene.pass(leaseMs / 2)
    await scene.store.expire({ cleanup: false })
    assert.deepEqual(scene.newChanges(), ['dead two lease-expired'])
    await scene.pass(leaseMs / 2)
    await scene.store.expire({ cleanup: false })
    assert.deepEqual(scene.newChanges(), ['dead one lease-expired'])
  }],
  ...([['alive', true], ['draining', true], ['maintenance', true], ['suspect', false]] as const).map(([state, renews]): AgentCase => [
    `setting the state ${state} ${renews ? 'is' : 'is not'} a heartbeat`, async scene => {
      const { lastSeen } = await scene.agent('one')
      await scene.pass(scene.settings.leaseMs / 2)
      assert.equal(recordOf(await scene.setState('one', state)).lastSeen > lastSeen, renews)
      await scene.pass(scene.settings.leaseMs / 2)
      assert.equal(await scene.store.expire({ cleanup: false }), renews ? 0 : 1)
    }]),
  ['an update is not a heartbeat', async scene => {
    const { revision, body, type, capabilities } = await scene.agent('one')
    await scene.pass(scene.settings.leaseMs / 2)
    recordOf(await scene.store.update({ id: 'one', content: { body, type, capabilities }, revision }))
    await scene.pass(scene.settings.leaseMs / 2)
    assert.equal(await scene.store.expire({ cleanup: false }), 1)
  }],
  ['agents that are draining or in maintenance die too', async scene => {
    await scene.agent('one', 'draining')
    await scene.agent('two', 'maintenance')
    assert.equal(await scene.endLeases(), 2)
    assert.deepEqual(scene.newChanges(), ['dead one lease-expired', 'dead two lease-expired'])
  }],
  ['a death is one change, however many sweeps run concurrently', async scene => {
    const ids = await scene.fleet(5)
    await scene.pass(scene.settings.leaseMs)
    const counts = await Promise.all([1, 2, 3].map(() => scene.store.expire({ cleanup: true })))
    assert.equal(counts.reduce((sum, count) => sum + count), 5)
    assert.deepEqual(scene.newChanges().sort(), ids.map(id => `dead ${id} lease-expired`))
  }],
  ['a dead agent is removed after its retention, by a sweep with cleanup', async scene => {
    const { retentionMs } = scene.settings
    await scene.agent('one', 'dead')
    await scene.pass(retentionMs - 1)
    assert.equal(await scene.store.expire({ cleanup: true }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
    assert.equal(await scene.store.expire({ cleanup: true }), 1)
    assert.deepEqual([scene.newChanges(), scene.changes.at(-1)!.after], [['unregistered one retention'], null])
    assert.deepEqual(await scene.renew('one'), { ok: false, reason: 'not-found' })
  }, exact],
  ['a dead agent that sends a heartbeat or registers again is not removed', async scene => {
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
    assert.deepEqual(scene.newChanges(), ['alive one revived', 'registered two replaced', 'alive two first-sign'])
  }],
  ['an agent that dies again has a full retention again', async scene => {
    await scene.agent('one', 'dead')
    await scene.pass(scene.settings.retentionMs - 1)
    await scene.renew('one')
    assert.equal(await scene.endLeases(), 1)
    await scene.pass(scene.settings.retentionMs - 1)
    assert.equal(await scene.store.expire({ cleanup: true }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: true }), 1)
  }, exact],
  ['extend moves every lease by the time that the registry stood still', async scene => {
    await scene.fleet(2)
    await scene.pass(500)
    await scene.store.extend(500)
    await scene.renew('agent-1')
    await scene.pass(999)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
    await scene.pass(1)
    assert.equal(await scene.store.expire({ cleanup: false }), 2)
  }, exact],
  ['a listener that is notified of a death may change other agents of the same sweep', async scene => {
    const ids = await scene.fleet(3)
    let calls: Array<Promise<unknown>> = []
    scene.onChange = ({ event, id }) => {
      if (event === 'dead' && id === ids[0]) {
        calls = [
          scene.store.remove({ id, reason: 'test' }),
          scene.store.remove({ id: ids[1]!, reason: 'test' }),
          scene.renew(ids[2]!)
        ]
      }
    }
    await scene.endLeases()
    await Promise.all(calls)
    const last = ids.map(id => scene.changes.findLast(change => change.id === id)!)
    assert.deepEqual(last.slice(0, 2).map(({ event, after }) => [event, after]), [['unregistered', null], ['unregistered', null]])
    assert.equal(last[2]!.after!.state, 'alive')
  }]
]

const preserved = { exact: true, preservation: true }

/** In every second of a release 15 % of `size` agents die, no more and no fewer, until all are dead. */
function assertRate (dead: readonly number[], size: number) {
  for (const [index, count] of dead.entries()) {
    const due = (index + 1) * 0.15 * size
    assert.ok(count <= Math.ceil(due) + 1, `${count} dead after ${index + 1} s`)
    assert.ok(count >= Math.min(size, Math.floor(due)), `only ${count} dead after ${index + 1} s`)
  }
  assert.equal(dead.at(-1), size)
}

async function assertHeld (scene: AgentScene, ids: readonly string[]) {
  for (const id of ids) assert.deepEqual([scene.record(id).state, scene.record(id).held], ['suspect', true])
}

/** Self-preservation: many leases that end at once are held, for a limited time. */
export const preservation: AgentCase[] = [
  ...([
    [9, 9, false], [10, 3, false], [10, 4, true], [10, 10, true], [20, 3, false], [20, 4, true],
    [40, 6, false], [40, 7, true], [100, 15, false], [100, 16, true]
  ] as const).map(([size, lost, held]): AgentCase =>
    [`${lost} of ${size} agents without a heartbeat ${held ? 'are held' : 'die'}`, async scene => {
      const ids = await scene.silence(size, lost)
      assert.deepEqual(scene.newChanges(), ids.map(id => held ? `state ${id} protected` : `dead ${id} lease-expired`))
      if (held) await assertHeld(scene, ids)
    }, preserved]),
  ['without self-preservation all agents die', async scene => {
    assert.equal((await scene.silence(20, 20)).length, scene.count('dead'))
  }],
  ['only leases that ended within the last lease period count', async scene => {
    const { leaseMs } = scene.settings
    const ids = range(40).map(index => ({ id: `agent-${index}` }))
    await scene.silence(40, 5)
    await scene.store.renew(ids.slice(7))
    await scene.pass(leaseMs / 2)
    assert.equal(await scene.store.expire({ cleanup: false }), 2)
    await assertHeld(scene, ['agent-5', 'agent-6'])
    await scene.store.renew(ids.slice(5))
    await scene.pass(leaseMs / 2)
    await scene.store.renew(ids.slice(7))
    await scene.pass(leaseMs / 2)
    assert.equal(await scene.store.expire({ cleanup: false }), 2)
    assert.equal(scene.count('dead'), 7)
  }, preserved],
  ['agents that were draining, in maintenance or unregistered do not count', async scene => {
    const ids = await scene.fleet(24)
    for (const [index, id] of ids.slice(0, 10).entries()) await scene.setState(id, index % 2 ? 'draining' : 'maintenance')
    for (const id of ids.slice(20)) await scene.store.remove({ id, reason: 'left' })
    await scene.pass(500)
    await scene.store.renew(ids.slice(13, 20).map(id => ({ id })))
    await scene.pass(500)
    assert.equal(await scene.store.expire({ cleanup: false }), 13)
    assert.equal(scene.count('dead', 'lease-expired'), 13)
  }, preserved],
  ['draining agents die while others are held', async scene => {
    const ids = await scene.fleet(20)
    await scene.setState(ids[0]!, 'draining')
    await scene.endLeases()
    assert.equal(scene.record(ids[0]!).state, 'dead')
    await assertHeld(scene, ids.slice(1))
  }, preserved],
  ['a heartbeat gives a held agent a new lease', async scene => {
    const ids = await scene.silence(20, 4)
    scene.newChanges()
    const record = recordOf(await scene.renew(ids[0]!))
    assert.deepEqual([record.state, record.held, scene.newChanges()], ['alive', false, [`alive ${ids[0]} resumed`]])
    await scene.store.renew(range(20).slice(4).map(index => ({ id: `agent-${index}` })))
    await scene.pass(999)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
  }, preserved],
  ['a held agent can be updated, drained, registered again and removed', async scene => {
    const [one, two, three, four] = await scene.silence(20, 4)
    const updated = recordOf(await scene.store.update({ id: one!, content: scene.record(one!), revision: scene.record(one!).revision }))
    assert.deepEqual([updated.state, updated.held], ['suspect', true])
    assert.deepEqual([recordOf(await scene.setState(two!, 'draining')).held, scene.record(two!).state], [false, 'draining'])
    assert.deepEqual([recordOf(await scene.register(three!)).held, scene.record(three!).state], [false, 'starting'])
    recordOf(await scene.store.remove({ id: four!, reason: 'left' }))
    recordOf(await scene.setState(one!, 'suspect'))
    await assertHeld(scene, [one!])
  }, preserved],
  ['held agents die after three leases, at 15 % of the fleet per second', async scene => {
    const ids = await scene.silence(20, 20)
    await scene.sweep(2)
    await scene.pass(999)
    await scene.store.expire({ cleanup: true })
    await assertHeld(scene, ids)
    await scene.pass(1)
    assertRate(await scene.sweep(8), 20)
    assert.equal(scene.count('dead', 'preservation-ended'), 20)
  }, preserved],
  ['release ends the holds at once, at the same rate', async scene => {
    await scene.silence(40, 40)
    await scene.store.release()
    assertRate(await scene.sweep(8), 40)
  }, preserved],
  ['a release without held agents does not affect the next hold', async scene => {
    await scene.store.release()
    const ids = await scene.silence(20, 20)
    await scene.sweep(2)
    await assertHeld(scene, ids)
    await scene.store.release()
    await scene.store.renew(ids.map(id => ({ id })))
    await scene.endLeases()
    await scene.sweep(2)
    assert.equal(scene.count('dead'), 0)
  }, preserved],
  ['agents with heartbeats during a release stay alive', async scene => {
    const ids = await scene.silence(20, 20)
    await scene.store.release()
    await scene.sweep(1)
    const living = ids.filter(id => scene.record(id).state !== 'dead').slice(0, 10).map(id => ({ id }))
    for (const second of range(10)) {
      await scene.store.renew(living)
      await scene.pass(900)
      await scene.store.expire({ cleanup: false })
      assert.ok(scene.count('dead') <= 10, `in second ${second}`)
    }
    assert.deepEqual(living.map(({ id }) => scene.record(id).state), Array(10).fill('alive'))
  }, preserved],
  ['extend moves holds by the time that the registry stood still', async scene => {
    const ids = await scene.silence(20, 20)
    await scene.pass(5000)
    await scene.store.extend(5000)
    await scene.pass(2999)
    await scene.store.expire({ cleanup: false })
    await assertHeld(scene, ids)
    await scene.pass(1)
    await scene.store.expire({ cleanup: false })
    assert.equal(scene.count('dead'), 1)
  }, preserved],
  ['a release continues at its rate after the registry stood still', async scene => {
    await scene.silence(20, 20)
    await scene.store.release()
    await scene.sweep(1)
    const before = scene.count('dead')
    await scene.pass(5000)
    await scene.store.extend(5000)
    await scene.store.expire({ cleanup: false })
    assert.ok(scene.count('dead') - before <= 1)
  }, preserved]
]
