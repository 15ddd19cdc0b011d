import assert from 'node:assert/strict'
import { assertRefused, contentOf, keyed, owner, recordOf, type Case } from './scene.js'

/** Who may register what, and what comes of it. */
export const registering: Case[] = [
  ['a new agent has its content, its owner and its times', async scene => {
    const outcome = await scene.register('one', { content: { ...contentOf('a'), publicBody: null } })
    const { registeredAt, lastSeen, created, revision, incarnation, ...rest } = recordOf(outcome)
    assert.deepEqual(rest, { id: 'one', ...contentOf('a'), publicBody: null, ownerKey: 'key-a', state: 'starting', held: false, metrics: null })
    assert.equal((outcome as { created: boolean }).created, true)
    assert.equal(created, revision)
    assert.equal(lastSeen, registeredAt)
    assert.ok(Math.abs(scene.store.now() - registeredAt) < 5000)
    assert.ok(incarnation > 0)
  }],
  ['a change is told before the call that made it resolves', async scene => {
    const record = recordOf(await scene.register('one'))
    const { n, before, after } = scene.changes[0]!
    assert.deepEqual({ n, before, after }, { n: record.revision, before: null, after: record })
    assert.deepEqual(scene.news(), ['registered one created'])
  }],
  ['an agent that registers again keeps when it first did, and is a newer instance', async scene => {
    const old = await scene.agent('one', 'suspect')
    const outcome = await scene.register('one', { content: contentOf('second') })
    const record = recordOf(outcome)
    assert.equal((outcome as { created: boolean }).created, false)
    assert.deepEqual([record.registeredAt, record.created, record.body], [old.registeredAt, old.created, contentOf('second').body])
    assert.ok(record.incarnation > old.incarnation && record.revision > old.revision)
    assert.deepEqual([record.state, record.held], ['starting', false])
    assert.deepEqual(scene.changes.at(-1)!.before, old)
    assert.deepEqual(scene.news(), ['registered one replaced'])
  }],
  ...(['starting', 'alive', 'suspect', 'dead', 'draining', 'maintenance'] as const).flatMap(state => ([
    ['its owner', owner, true],
    ['an exclusive key', keyed('key-b', { exclusive: true }), true],
    ['its own key', keyed('key-a'), state === 'suspect' || state === 'dead'],
    ['another key', keyed('key-b'), state === 'dead']
  ] as const).map(([who, claim, may]): Case => [`an id that is ${state} ${may ? 'may' : 'may not'} be registered again by ${who}`, async scene => {
    const before = await scene.agent('one', state)
    const outcome = await scene.register('one', { claim })
    if (may) return assert.equal(recordOf(outcome).ownerKey, claim.kind === 'key' ? claim.digest : 'key-a')
    assertRefused(outcome, 'taken')
    assert.deepEqual([scene.news(), scene.record('one')], [[], before])
  }])),
  ['an owner brings its key to an agent that has none', async scene => {
    assert.equal(recordOf(await scene.register('one', { claim: owner })).ownerKey, null)
    assert.equal(recordOf(await scene.register('one', { claim: { ...owner, digest: 'key-c' } })).ownerKey, 'key-c')
    assert.equal(recordOf(await scene.register('one', { claim: { ...owner, digest: 'key-d' } })).ownerKey, 'key-c')
  }],
  ['a full store takes no new agent, and known ones again', async scene => {
    await scene.fleet(2)
    assertRefused(await scene.register('more', { maxAgents: 2 }), 'full')
    recordOf(await scene.register('agent-0', { maxAgents: 2, claim: owner }))
    await scene.store.remove({ id: 'agent-1', reason: 'test' })
    recordOf(await scene.register('more', { maxAgents: 2 }))
  }],
  ['a key has no more agents than it may, whichever way it came to them', async scene => {
    const claim = keyed('key-b', { maxAgents: 2 })
    await scene.agent('dead', 'dead')
    recordOf(await scene.register('one', { claim }))
    recordOf(await scene.register('dead', { claim }))
    assertRefused(await scene.register('three', { claim }), 'key-full')
    recordOf(await scene.register('one', { claim: keyed('key-b', { maxAgents: 2, exclusive: true }) }))
    await scene.store.remove({ id: 'one', reason: 'test' })
    recordOf(await scene.register('three', { claim }))
    recordOf(await scene.register('three', { claim: keyed('key-a', { exclusive: true }) }))
    recordOf(await scene.register('four', { claim }))
    assertRefused(await scene.register('five', { claim }), 'key-full')
  }],
  ['incarnations grow over all ids, and over removals', async scene => {
    const first = recordOf(await scene.register('one')).incarnation
    const second = recordOf(await scene.register('two')).incarnation
    await scene.store.remove({ id: 'one', reason: 'test' })
    const third = recordOf(await scene.register('one')).incarnation
    assert.ok(first < second && second < third)
  }],
  ['of two registrations of an id at once exactly one wins', async scene => {
    const outcomes = await Promise.all([scene.register('one'), scene.register('one', { claim: keyed('key-b') })])
    assert.deepEqual(outcomes.map(({ ok }) => ok).sort(), [false, true])
    assertRefused(outcomes.find(({ ok }) => !ok), 'taken')
    assert.equal(scene.changes.length, 1)
  }]
]
