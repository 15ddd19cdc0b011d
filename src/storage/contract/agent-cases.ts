import assert from 'node:assert/strict'
import type { MetricsUpdate, StoredMetrics } from '../agent-metrics.js'
import { assertRefused, contentOf, keyed, owner, range, recordOf, type AgentCase, type AgentScene } from './agent-scene.js'

/** Registrations, and who may register an id again. */
export const registering: AgentCase[] = [
  ['a new agent has its content, its owner and its times', async scene => {
    const outcome = await scene.register('one', { content: { ...contentOf('a'), publicBody: null } })
    const { registeredAt, lastSeen, created, revision, incarnation, ...rest } = recordOf(outcome)
    assert.deepEqual(rest, {
      id: 'one',
      ...contentOf('a'),
      publicBody: null,
      ownerKey: 'key-a',
      state: 'starting',
      held: false,
      metrics: null
    })
    assert.equal((outcome as { created: boolean }).created, true)
    assert.equal(created, revision)
    assert.equal(lastSeen, registeredAt)
    assert.ok(Math.abs(scene.store.now() - registeredAt) < 5000)
    assert.ok(incarnation > 0)
  }],
  ['the listener receives a change before its call resolves', async scene => {
    const record = recordOf(await scene.register('one'))
    const { n, before, after } = scene.changes[0]!
    assert.deepEqual({ n, before, after }, { n: record.revision, before: null, after: record })
    assert.deepEqual(scene.newChanges(), ['registered one created'])
  }],
  ['an agent that registers again keeps its first registration time and has a newer incarnation', async scene => {
    const old = await scene.agent('one', 'suspect')
    const outcome = await scene.register('one', { content: contentOf('second') })
    const record = recordOf(outcome)
    assert.equal((outcome as { created: boolean }).created, false)
    assert.deepEqual([record.registeredAt, record.created, record.body], [old.registeredAt, old.created, contentOf('second').body])
    assert.ok(record.incarnation > old.incarnation && record.revision > old.revision)
    assert.deepEqual([record.state, record.held], ['starting', false])
    assert.deepEqual(scene.changes.at(-1)!.before, old)
    assert.deepEqual(scene.newChanges(), ['registered one replaced'])
  }],
  ...(['starting', 'alive', 'suspect', 'dead', 'draining', 'maintenance'] as const).flatMap(state => ([
    ['its owner', owner, true],
    ['an exclusive key', keyed('key-b', { exclusive: true }), true],
    ['its own key', keyed('key-a'), state === 'suspect' || state === 'dead'],
    ['another key', keyed('key-b'), state === 'dead']
  ] as const).map(([who, claim, may]): AgentCase =>
    [`an id that is ${state} ${may ? 'may' : 'may not'} be registered again by ${who}`, async scene => {
      const before = await scene.agent('one', state)
      const outcome = await scene.register('one', { claim })
      if (may) return assert.equal(recordOf(outcome).ownerKey, claim.kind === 'key' ? claim.digest : 'key-a')
      assertRefused(outcome, 'taken')
      assert.deepEqual([scene.newChanges(), scene.record('one')], [[], before])
    }])),
  ['an owner adds its key to an agent that has none', async scene => {
    assert.equal(recordOf(await scene.register('one', { claim: owner })).ownerKey, null)
    assert.equal(recordOf(await scene.register('one', { claim: { ...owner, digest: 'key-c' } })).ownerKey, 'key-c')
    assert.equal(recordOf(await scene.register('one', { claim: { ...owner, digest: 'key-d' } })).ownerKey, 'key-c')
  }],
  ['a full store rejects new agents and accepts known ones', async scene => {
    await scene.fleet(2)
    assertRefused(await scene.register('more', { maxAgents: 2 }), 'full')
    recordOf(await scene.register('agent-0', { maxAgents: 2, claim: owner }))
    await scene.store.remove({ id: 'agent-1', reason: 'test' })
    recordOf(await scene.register('more', { maxAgents: 2 }))
  }],
  ['a key has at most its number of agents, however it acquired them', async scene => {
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
  ['incarnations grow across all ids and after removals', async scene => {
    const first = recordOf(await scene.register('one')).incarnation
    const second = recordOf(await scene.register('two')).incarnation
    await scene.store.remove({ id: 'one', reason: 'test' })
    const third = recordOf(await scene.register('one')).incarnation
    assert.ok(first < second && second < third)
  }],
  ['of two concurrent registrations of an id one succeeds', async scene => {
    const outcomes = await Promise.all([scene.register('one'), scene.register('one', { claim: keyed('key-b') })])
    assert.deepEqual(outcomes.map(({ ok }) => ok).sort(), [false, true])
    assertRefused(outcomes.find(({ ok }) => !ok), 'taken')
    assert.equal(scene.changes.length, 1)
  }]
]

/** Updates, removals, states and heartbeats, and their changes. */
export const changing: AgentCase[] = [
  ['an update changes the content and nothing else', async scene => {
    const before = await scene.agent('one', 'draining')
    const record = recordOf(await scene.store.update({ id: 'one', content: contentOf('second'), revision: before.revision }))
    assert.deepEqual(record, { ...before, ...contentOf('second'), revision: before.revision + 1 })
    assert.deepEqual(scene.newChanges(), ['updated one patched'])
  }],
  ['an update of another revision or of an unknown agent is rejected', async scene => {
    const { revision } = await scene.agent('one')
    assertRefused(await scene.store.update({ id: 'one', content: contentOf('x'), revision: revision - 1 }), 'conflict')
    assertRefused(await scene.store.update({ id: 'none', content: contentOf('x'), revision }), 'not-found')
    assert.deepEqual(scene.newChanges(), [])
  }],
  ['of two concurrent updates of a revision one succeeds', async scene => {
    const { revision } = await scene.agent('one')
    const outcomes = await Promise.all(['a', 'b'].map(text => scene.store.update({ id: 'one', content: contentOf(text), revision })))
    assertRefused(outcomes.find(({ ok }) => !ok), 'conflict')
    assert.equal(scene.newChanges().length, 1)
  }],
  ['the change of a removal has the last record', async scene => {
    const before = await scene.agent('one')
    assert.deepEqual(recordOf(await scene.store.remove({ id: 'one', incarnation: before.incarnation, reason: 'left' })), before)
    const { n, before: was, after } = scene.changes.at(-1)!
    assert.deepEqual({ n, was, after }, { n: before.revision + 1, was: before, after: null })
    assert.deepEqual(scene.newChanges(), ['unregistered one left'])
    assertRefused(await scene.store.remove({ id: 'one', reason: 'left' }), 'not-found')
    assert.equal(await scene.endLeases(), 0)
  }],
  ['an agent registered with one key cannot be removed with another key', async scene => {
    await scene.agent('one')
    assertRefused(await scene.store.remove({ id: 'one', ownerKey: 'key-b', reason: 'removed' }), 'not-owner')
    assert.deepEqual(scene.newChanges(), [])
    recordOf(await scene.store.remove({ id: 'one', ownerKey: 'key-a', reason: 'removed' }))
    recordOf(await scene.register('two', { claim: owner }))
    assertRefused(await scene.store.remove({ id: 'two', ownerKey: 'key-a', reason: 'removed' }), 'not-owner')
  }],
  ['an older incarnation cannot remove, renew or change a newer one', async scene => {
    const { incarnation } = await scene.agent('one', 'suspect')
    const before = recordOf(await scene.register('one'))
    scene.newChanges()
    assertRefused(await scene.store.remove({ id: 'one', incarnation, reason: 'left' }), 'stale-incarnation')
    assertRefused(await scene.renew('one', incarnation), 'stale-incarnation')
    assertRefused(await scene.setState('one', 'draining', incarnation), 'stale-incarnation')
    assert.deepEqual([scene.newChanges(), scene.record('one')], [[], before])
    recordOf(await scene.setState('one', 'draining', before.incarnation))
  }],
  ...([
    ['starting', 'alive', 'alive', 'alive'], ['starting', 'suspect', 'suspect', 'state'], ['starting', 'draining', 'draining', 'state'],
    ['starting', 'maintenance', 'maintenance', 'state'],
    ['alive', 'alive', 'alive', null], ['alive', 'suspect', 'suspect', 'state'], ['alive', 'draining', 'draining', 'state'],
    ['alive', 'maintenance', 'maintenance', 'state'],
    ['suspect', 'alive', 'alive', 'alive'], ['suspect', 'suspect', 'suspect', null], ['suspect', 'draining', 'draining', 'state'],
    ['suspect', 'maintenance', 'maintenance', 'state'],
    ['dead', 'alive', 'alive', 'alive'], ['dead', 'suspect', 'dead', null], ['dead', 'draining', 'draining', 'state'],
    ['dead', 'maintenance', 'maintenance', 'state'],
    ['draining', 'alive', 'alive', 'alive'], ['draining', 'suspect', 'draining', null], ['draining', 'draining', 'draining', null],
    ['draining', 'maintenance', 'maintenance', 'state'],
    ['maintenance', 'alive', 'alive', 'alive'], ['maintenance', 'suspect', 'maintenance', null],
    ['maintenance', 'draining', 'draining', 'state'],
    ['maintenance', 'maintenance', 'maintenance', null]
  ] as const).map(([from, wanted, to, event]): AgentCase =>
    [`setting an agent that is ${from} to ${wanted} makes it ${to}`, async scene => {
      const before = await scene.agent('one', from)
      assert.equal(recordOf(await scene.setState('one', wanted)).state, to)
      assert.deepEqual(scene.newChanges(), event ? [`${event} one asked`] : [])
      if (event) assert.deepEqual(scene.changes.at(-1)!.before?.state, before.state)
    }]),
  ['the state of an unknown agent cannot be set', async scene => assertRefused(await scene.setState('none', 'alive'), 'not-found')],
  ...([
    ['starting', 'alive', 'first-sign'], ['alive', 'alive', null], ['suspect', 'alive', 'resumed'], ['dead', 'alive', 'revived'],
    ['draining', 'draining', null], ['maintenance', 'maintenance', null]
  ] as const).map(([from, to, reason]): AgentCase => [`after a heartbeat an agent that is ${from} is ${to}`, async scene => {
    const before = await scene.agent('one', from)
    await scene.pass(10)
    const record = recordOf(await scene.renew('one', before.incarnation))
    assert.deepEqual([record.state, scene.newChanges()], [to, reason ? [`alive one ${reason}`] : []])
    assert.ok(record.lastSeen > before.lastSeen)
    assert.equal(record.revision, before.revision + (reason ? 1 : 0))
  }]),
  ['the outcomes of heartbeats are in the order of the heartbeats', async scene => {
    const { incarnation } = await scene.agent('one')
    await scene.agent('two')
    const outcomes = await scene.store.renew([
      { id: 'none' },
      { id: 'two' },
      { id: 'one', incarnation: incarnation - 1 },
      { id: 'one' },
      { id: 'two' }
    ])
    assert.deepEqual(outcomes.map(outcome => outcome.ok ? outcome.record.id : outcome.reason), [
      'not-found', 'two', 'stale-incarnation', 'one', 'two'
    ])
    assert.deepEqual(await scene.store.renew([]), [])
  }],
  ['every transition is one change, and change numbers have no gap', async scene => {
    const ids = await scene.fleet(3)
    await scene.setState(ids[0]!, 'suspect')
    await scene.endLeases()
    await Promise.all(ids.map(id => scene.renew(id)))
    await scene.store.remove({ id: ids[1]!, reason: 'left' })
    assert.deepEqual(scene.changes.map(({ n }) => n), range(14).map(index => index + 1))
    for (const { n, after } of scene.changes) assert.equal(after?.revision ?? n, n)
  }],
  ['a new store is empty, and its epoch is valid in a revision', async scene => {
    const { epoch, revision, agents } = scene.snapshot!
    assert.deepEqual([revision, agents], [0, []])
    assert.match(epoch, /^[^:]+$/)
  }],
  ['agents survive a restart, and change numbers continue or the epoch is another one', async scene => {
    const { epoch } = await scene.reopen()
    const before = await scene.agent('one')
    const snapshot = await scene.reopen()
    assert.deepEqual(snapshot.agents, [before])
    assert.ok(snapshot.epoch !== epoch || snapshot.revision === before.revision)
    assert.ok(recordOf(await scene.register('one', { claim: owner })).incarnation > before.incarnation)
  }, { persistent: true }]
]

const request = (responseTime: number, success = true): MetricsUpdate => ({ request: { responseTime, success } })

function report (scene: AgentScene, update: MetricsUpdate, incarnation?: number) {
  return scene.store.report({ id: 'one', update, ...(incarnation !== undefined && { incarnation }) })
}

async function reported (scene: AgentScene, ...updates: MetricsUpdate[]): Promise<StoredMetrics> {
  let metrics: StoredMetrics | null = null
  for (const update of updates) metrics = recordOf(await report(scene, update)).metrics
  return metrics!
}

function assertClose (actual: StoredMetrics, expected: Partial<StoredMetrics>) {
  for (const [name, value] of Object.entries(expected)) {
    const found = actual[name as keyof StoredMetrics]
    assert.ok(Math.abs(found - value) < 1e-9, `${name} is ${found}, not ${value}`)
  }
}

/** Reports of metrics, which the store computes so that none is lost. */
export const reporting: AgentCase[] = [
  ['an agent without a report has no metrics', async scene => {
    assert.equal((await scene.agent('one')).metrics, null)
  }],
  ['reported values replace the stored ones, and others stay', async scene => {
    const { lastSeen } = await scene.agent('one')
    assertClose(await reported(scene, { values: { success_rate: 0.5, error_rate: 0.25 } }), {
      success_rate: 0.5,
      error_rate: 0.25,
      total_requests: 0,
      reputation_score: 0
    })
    const metrics = await reported(scene, { values: { success_rate: 0.75, total_requests: 8 } })
    assertClose(metrics, { success_rate: 0.75, error_rate: 0.25, total_requests: 8 })
    assert.ok(metrics.lastActive >= lastSeen)
  }],
  ['the first request sets the means', async scene => {
    await scene.agent('one')
    assertClose(await reported(scene, request(2)), {
      success_rate: 1,
      error_rate: 0,
      avg_response_time: 2,
      average_response_time: 2,
      total_requests: 1,
      requests_processed: 1,
      reputation_score: 0.7 + 0.3 / 2
    })
  }],
  ['the success rate is the mean of all requests, and the response time a moving average', async scene => {
    await scene.agent('one')
    const times = [1, 2, 0.5, 4]
    const metrics = await reported(scene, ...times.map((time, index) => request(time, index % 2 === 0)))
    const average = times.slice(1).reduce((mean, time) => 0.9 * mean + 0.1 * time, times[0]!)
    assertClose(metrics, {
      success_rate: 0.5,
      error_rate: 0.5,
      avg_response_time: average,
      average_response_time: average,
      total_requests: 4,
      requests_processed: 4,
      reputation_score: 0.35 + 0.3 / average
    })
  }],
  ['a response time of zero does not start the average, and the score rewards at most a tenth of a second', async scene => {
    await scene.agent('one')
    assertClose(await reported(scene, request(0)), { avg_response_time: 0, reputation_score: 1 })
    assertClose(await reported(scene, request(4)), { avg_response_time: 4, reputation_score: 0.7 + 0.3 / 4 })
  }],
  ['requests continue from reported values', async scene => {
    await scene.agent('one')
    const metrics = await reported(scene, { values: { total_requests: 9, success_rate: 1, requests_processed: 3 } }, request(1, false))
    assertClose(metrics, { total_requests: 10, requests_processed: 4, success_rate: 0.9, error_rate: 0.1, avg_response_time: 1 })
  }],
  ['of two hundred concurrent reports none is lost', async scene => {
    await scene.agent('one')
    const outcomes = await Promise.all(range(200).map(index => report(scene, request(1, index % 4 !== 0))))
    assert.deepEqual(
      outcomes.map(outcome => recordOf(outcome).metrics!.total_requests).sort((a, b) => a - b),
      range(200).map(index => index + 1)
    )
    assertClose(recordOf(await report(scene, { values: {} })).metrics!, {
      total_requests: 200,
      requests_processed: 200,
      success_rate: 0.75,
      avg_response_time: 1
    })
  }],
  ['a report is a heartbeat and not a change', async scene => {
    const before = await scene.agent('one', 'suspect')
    await scene.pass(scene.settings.leaseMs / 2)
    const record = recordOf(await report(scene, request(1)))
    assert.ok(record.lastSeen > before.lastSeen)
    assert.deepEqual([record.state, scene.newChanges()], ['alive', ['alive one resumed']])
    await scene.pass(scene.settings.leaseMs / 2)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
    const again = recordOf(await report(scene, request(1)))
    assert.deepEqual([again.revision, scene.newChanges()], [record.revision, []])
  }],
  ['a report revives a dead agent', async scene => {
    await scene.agent('one', 'dead')
    assert.equal(recordOf(await report(scene, request(1))).state, 'alive')
    assert.deepEqual(scene.newChanges(), ['alive one revived'])
  }],
  ['reports of an older incarnation and of unknown agents are rejected', async scene => {
    const { incarnation } = await scene.agent('one', 'suspect')
    const { incarnation: newer } = recordOf(await scene.register('one'))
    assertRefused(await report(scene, request(1), incarnation), 'stale-incarnation')
    assertRefused(await scene.store.report({ id: 'none', update: request(1) }), 'not-found')
    assertClose(recordOf(await report(scene, request(3), newer)).metrics!, { total_requests: 1, avg_response_time: 3 })
  }],
  ['metrics survive an update, a state and a newer incarnation, and end with the agent', async scene => {
    const { incarnation } = await scene.agent('one')
    const record = recordOf(await report(scene, request(2), incarnation))
    const { revision } = recordOf(await scene.store.update({ id: 'one', content: contentOf('second'), revision: record.revision }))
    assert.ok(revision > record.revision)
    recordOf(await scene.setState('one', 'suspect'))
    assert.deepEqual(recordOf(await scene.register('one')).metrics, record.metrics)
    assert.deepEqual(recordOf(await scene.renew('one')).metrics, record.metrics)
    recordOf(await scene.store.remove({ id: 'one', reason: 'left' }))
    assert.equal(recordOf(await scene.register('one')).metrics, null)
  }]
]
