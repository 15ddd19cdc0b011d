import assert from 'node:assert/strict'
import { range, recordOf, type Case, type Scene } from './scene.js'

const preserved = { exact: true, preservation: true }

/** Every second of a release, at most 15 % of `size` more are dead, and not fewer either until all are. */
function assertRate (dead: readonly number[], size: number) {
  for (const [index, count] of dead.entries()) {
    const due = (index + 1) * 0.15 * size
    assert.ok(count <= Math.ceil(due) + 1, `${count} dead after ${index + 1} s`)
    assert.ok(count >= Math.min(size, Math.floor(due)), `only ${count} dead after ${index + 1} s`)
  }
  assert.equal(dead.at(-1), size)
}

async function assertHeld (scene: Scene, ids: readonly string[]) {
  for (const id of ids) assert.deepEqual([scene.record(id).state, scene.record(id).held], ['suspect', true])
}

/** Self-preservation: many leases that end at once are held, and it ends. */
export const preservation: Case[] = [
  ...([
    [9, 9, false], [10, 3, false], [10, 4, true], [10, 10, true], [20, 3, false], [20, 4, true], [40, 6, false], [40, 7, true], [100, 15, false], [100, 16, true]
  ] as const).map(([size, lost, held]): Case => [`${lost} of ${size} agents that fall silent at once ${held ? 'are held' : 'die'}`, async scene => {
    const ids = await scene.silence(size, lost)
    assert.deepEqual(scene.news(), ids.map(id => held ? `state ${id} protected` : `dead ${id} lease-expired`))
    if (held) await assertHeld(scene, ids)
  }, preserved]),
  ['without self-preservation all die', async scene => {
    assert.equal((await scene.silence(20, 20)).length, scene.count('dead'))
  }],
  ['leases that ended within the last lease count, those before do not', async scene => {
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
  ['agents that drained, were in maintenance or unregistered count for nothing', async scene => {
    const ids = await scene.fleet(24)
    for (const [index, id] of ids.slice(0, 10).entries()) await scene.setState(id, index % 2 ? 'draining' : 'maintenance')
    for (const id of ids.slice(20)) await scene.store.remove({ id, reason: 'left' })
    await scene.pass(500)
    await scene.store.renew(ids.slice(13, 20).map(id => ({ id })))
    await scene.pass(500)
    assert.equal(await scene.store.expire({ cleanup: false }), 13)
    assert.equal(scene.count('dead', 'lease-expired'), 13)
  }, preserved],
  ['agents that drained die also while others are held', async scene => {
    const ids = await scene.fleet(20)
    await scene.setState(ids[0]!, 'draining')
    await scene.end()
    assert.equal(scene.record(ids[0]!).state, 'dead')
    await assertHeld(scene, ids.slice(1))
  }, preserved],
  ['a held agent recovers by a sign of life, with a new lease', async scene => {
    const ids = await scene.silence(20, 4)
    scene.news()
    const record = recordOf(await scene.renew(ids[0]!))
    assert.deepEqual([record.state, record.held, scene.news()], ['alive', false, [`alive ${ids[0]} resumed`]])
    await scene.store.renew(range(20).slice(4).map(index => ({ id: `agent-${index}` })))
    await scene.pass(999)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
  }, preserved],
  ['a held agent may be changed, drained, registered again and removed', async scene => {
    const [one, two, three, four] = await scene.silence(20, 4)
    const updated = recordOf(await scene.store.update({ id: one!, content: scene.record(one!), revision: scene.record(one!).revision }))
    assert.deepEqual([updated.state, updated.held], ['suspect', true])
    assert.deepEqual([recordOf(await scene.setState(two!, 'draining')).held, scene.record(two!).state], [false, 'draining'])
    assert.deepEqual([recordOf(await scene.register(three!)).held, scene.record(three!).state], [false, 'starting'])
    recordOf(await scene.store.remove({ id: four!, reason: 'left' }))
    recordOf(await scene.setState(one!, 'suspect'))
    await assertHeld(scene, [one!])
  }, preserved],
  ['what is held goes after three leases, at 15 % of the fleet a second', async scene => {
    const ids = await scene.silence(20, 20)
    await scene.sweep(2)
    await scene.pass(999)
    await scene.store.expire({ cleanup: true })
    await assertHeld(scene, ids)
    await scene.pass(1)
    assertRate(await scene.sweep(8), 20)
    assert.equal(scene.count('dead', 'preservation-ended'), 20)
  }, preserved],
  ['what is held goes at once when that is asked for, at the same rate', async scene => {
    await scene.silence(40, 40)
    await scene.store.release()
    assertRate(await scene.sweep(8), 40)
  }, preserved],
  ['a release that had nothing to release does not weaken the next hold', async scene => {
    await scene.store.release()
    const ids = await scene.silence(20, 20)
    await scene.sweep(2)
    await assertHeld(scene, ids)
    await scene.store.release()
    await scene.store.renew(ids.map(id => ({ id })))
    await scene.end()
    await scene.sweep(2)
    assert.equal(scene.count('dead'), 0)
  }, preserved],
  ['who shows life during a release stays', async scene => {
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
  ['time that the registry stood still is given to what is held', async scene => {
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
  ['a release goes on at its rate after the registry stood still', async scene => {
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
