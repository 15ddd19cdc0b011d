import assert from 'node:assert/strict'
import { assertRefused, contentOf, owner, range, recordOf, type Case } from './scene.js'

/** Updates, removals, states, signs of life, and the changes that are told of them. */
export const changing: Case[] = [
  ['an update changes the content and nothing else', async scene => {
    const before = await scene.agent('one', 'draining')
    const record = recordOf(await scene.store.update({ id: 'one', content: contentOf('second'), revision: before.revision }))
    assert.deepEqual(record, { ...before, ...contentOf('second'), revision: before.revision + 1 })
    assert.deepEqual(scene.news(), ['updated one patched'])
  }],
  ['an update of another revision, or of nobody, is refused', async scene => {
    const { revision } = await scene.agent('one')
    assertRefused(await scene.store.update({ id: 'one', content: contentOf('x'), revision: revision - 1 }), 'conflict')
    assertRefused(await scene.store.update({ id: 'none', content: contentOf('x'), revision }), 'not-found')
    assert.deepEqual(scene.news(), [])
  }],
  ['of two updates of a revision at once exactly one wins', async scene => {
    const { revision } = await scene.agent('one')
    const outcomes = await Promise.all(['a', 'b'].map(text => scene.store.update({ id: 'one', content: contentOf(text), revision })))
    assertRefused(outcomes.find(({ ok }) => !ok), 'conflict')
    assert.equal(scene.news().length, 1)
  }],
  ['what is removed is told as it was last', async scene => {
    const before = await scene.agent('one')
    assert.deepEqual(recordOf(await scene.store.remove({ id: 'one', incarnation: before.incarnation, reason: 'left' })), before)
    const { n, before: was, after } = scene.changes.at(-1)!
    assert.deepEqual({ n, was, after }, { n: before.revision + 1, was: before, after: null })
    assert.deepEqual(scene.news(), ['unregistered one left'])
    assertRefused(await scene.store.remove({ id: 'one', reason: 'left' }), 'not-found')
    assert.equal(await scene.end(), 0)
  }],
  ['an agent of one key is not removed in the name of another', async scene => {
    await scene.agent('one')
    assertRefused(await scene.store.remove({ id: 'one', ownerKey: 'key-b', reason: 'removed' }), 'not-owner')
    assert.deepEqual(scene.news(), [])
    recordOf(await scene.store.remove({ id: 'one', ownerKey: 'key-a', reason: 'removed' }))
    recordOf(await scene.register('two', { claim: owner }))
    assertRefused(await scene.store.remove({ id: 'two', ownerKey: 'key-a', reason: 'removed' }), 'not-owner')
  }],
  ['an older instance neither removes, renews nor changes a newer one', async scene => {
    const { incarnation } = await scene.agent('one', 'suspect')
    const before = recordOf(await scene.register('one'))
    scene.news()
    assertRefused(await scene.store.remove({ id: 'one', incarnation, reason: 'left' }), 'stale-incarnation')
    assertRefused(await scene.renew('one', incarnation), 'stale-incarnation')
    assertRefused(await scene.setState('one', 'draining', incarnation), 'stale-incarnation')
    assert.deepEqual([scene.news(), scene.record('one')], [[], before])
    recordOf(await scene.setState('one', 'draining', before.incarnation))
  }],
  ...([
    ['starting', 'alive', 'alive', 'alive'], ['starting', 'suspect', 'suspect', 'state'], ['starting', 'draining', 'draining', 'state'], ['starting', 'maintenance', 'maintenance', 'state'],
    ['alive', 'alive', 'alive', null], ['alive', 'suspect', 'suspect', 'state'], ['alive', 'draining', 'draining', 'state'], ['alive', 'maintenance', 'maintenance', 'state'],
    ['suspect', 'alive', 'alive', 'alive'], ['suspect', 'suspect', 'suspect', null], ['suspect', 'draining', 'draining', 'state'], ['suspect', 'maintenance', 'maintenance', 'state'],
    ['dead', 'alive', 'alive', 'alive'], ['dead', 'suspect', 'dead', null], ['dead', 'draining', 'draining', 'state'], ['dead', 'maintenance', 'maintenance', 'state'],
    ['draining', 'alive', 'alive', 'alive'], ['draining', 'suspect', 'draining', null], ['draining', 'draining', 'draining', null], ['draining', 'maintenance', 'maintenance', 'state'],
    ['maintenance', 'alive', 'alive', 'alive'], ['maintenance', 'suspect', 'maintenance', null], ['maintenance', 'draining', 'draining', 'state'], ['maintenance', 'maintenance', 'maintenance', null]
  ] as const).map(([from, wanted, to, event]): Case => [`an agent that is ${from} and asked to be ${wanted} is ${to}`, async scene => {
    const before = await scene.agent('one', from)
    assert.equal(recordOf(await scene.setState('one', wanted)).state, to)
    assert.deepEqual(scene.news(), event ? [`${event} one asked`] : [])
    if (event) assert.deepEqual(scene.changes.at(-1)!.before?.state, before.state)
  }]),
  ['nobody is asked to be anything', async scene => assertRefused(await scene.setState('none', 'alive'), 'not-found')],
  ...([
    ['starting', 'alive', 'first-sign'], ['alive', 'alive', null], ['suspect', 'alive', 'resumed'], ['dead', 'alive', 'revived'], ['draining', 'draining', null], ['maintenance', 'maintenance', null]
  ] as const).map(([from, to, reason]): Case => [`a sign of life of an agent that is ${from} leaves it ${to}`, async scene => {
    const before = await scene.agent('one', from)
    await scene.pass(10)
    const record = recordOf(await scene.renew('one', before.incarnation))
    assert.deepEqual([record.state, scene.news()], [to, reason ? [`alive one ${reason}`] : []])
    assert.ok(record.lastSeen > before.lastSeen)
    assert.equal(record.revision, before.revision + (reason ? 1 : 0))
  }]),
  ['the outcomes of signs are in their order', async scene => {
    const { incarnation } = await scene.agent('one')
    await scene.agent('two')
    const outcomes = await scene.store.renew([{ id: 'none' }, { id: 'two' }, { id: 'one', incarnation: incarnation - 1 }, { id: 'one' }, { id: 'two' }])
    assert.deepEqual(outcomes.map(outcome => outcome.ok ? outcome.record.id : outcome.reason), ['not-found', 'two', 'stale-incarnation', 'one', 'two'])
    assert.deepEqual(await scene.store.renew([]), [])
  }],
  ['every transition is one change, and the numbers of changes have no gap', async scene => {
    const ids = await scene.fleet(3)
    await scene.setState(ids[0]!, 'suspect')
    await scene.end()
    await Promise.all(ids.map(id => scene.renew(id)))
    await scene.store.remove({ id: ids[1]!, reason: 'left' })
    assert.deepEqual(scene.changes.map(({ n }) => n), range(14).map(index => index + 1))
    for (const { n, after } of scene.changes) assert.equal(after?.revision ?? n, n)
  }],
  ['a new store is empty, and its epoch can stand in a revision', async scene => {
    const { epoch, revision, agents } = scene.snapshot!
    assert.deepEqual([revision, agents], [0, []])
    assert.match(epoch, /^[^:]+$/)
  }],
  ['agents outlive the store, and the numbers of changes go on or the epoch is another', async scene => {
    const { epoch } = await scene.reopen()
    const before = await scene.agent('one')
    const snapshot = await scene.reopen()
    assert.deepEqual(snapshot.agents, [before])
    assert.ok(snapshot.epoch !== epoch || snapshot.revision === before.revision)
    assert.ok(recordOf(await scene.register('one', { claim: owner })).incarnation > before.incarnation)
  }, { persistent: true }]
]
