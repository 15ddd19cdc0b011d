import assert from 'node:assert/strict'
import type { MetricsUpdate, StoredMetrics } from '../agent-metrics.js'
import { assertRefused, contentOf, range, recordOf, type Case, type Scene } from './scene.js'

const request = (responseTime: number, success = true): MetricsUpdate => ({ request: { responseTime, success } })

function report (scene: Scene, update: MetricsUpdate, incarnation?: number) {
  return scene.store.report({ id: 'one', update, ...(incarnation !== undefined && { incarnation }) })
}

async function reported (scene: Scene, ...updates: MetricsUpdate[]): Promise<StoredMetrics> {
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

/** What an agent says of itself: computed by the store, so that none is lost. */
export const reporting: Case[] = [
  ['an agent that has reported nothing has no metrics', async scene => {
    assert.equal((await scene.agent('one')).metrics, null)
  }],
  ['values replace those that they name, the others stay', async scene => {
    const { lastSeen } = await scene.agent('one')
    assertClose(await reported(scene, { values: { success_rate: 0.5, error_rate: 0.25 } }), { success_rate: 0.5, error_rate: 0.25, total_requests: 0, reputation_score: 0 })
    const metrics = await reported(scene, { values: { success_rate: 0.75, total_requests: 8 } })
    assertClose(metrics, { success_rate: 0.75, error_rate: 0.25, total_requests: 8 })
    assert.ok(metrics.lastActive >= lastSeen)
  }],
  ['the first request is the mean of itself', async scene => {
    await scene.agent('one')
    assertClose(await reported(scene, request(2)), {
      success_rate: 1, error_rate: 0, avg_response_time: 2, average_response_time: 2, total_requests: 1, requests_processed: 1, reputation_score: 0.7 + 0.3 / 2
    })
  }],
  ['success is the mean of all requests, the time follows the last by a tenth', async scene => {
    await scene.agent('one')
    const times = [1, 2, 0.5, 4]
    const metrics = await reported(scene, ...times.map((time, index) => request(time, index % 2 === 0)))
    const average = times.slice(1).reduce((mean, time) => 0.9 * mean + 0.1 * time, times[0]!)
    assertClose(metrics, {
      success_rate: 0.5, error_rate: 0.5, avg_response_time: average, average_response_time: average, total_requests: 4, requests_processed: 4, reputation_score: 0.35 + 0.3 / average
    })
  }],
  ['a request that took no time does not begin the mean, and no time is worth more than a second', async scene => {
    await scene.agent('one')
    assertClose(await reported(scene, request(0)), { avg_response_time: 0, reputation_score: 1 })
    assertClose(await reported(scene, request(4)), { avg_response_time: 4, reputation_score: 0.7 + 0.3 / 4 })
  }],
  ['requests go on from values', async scene => {
    await scene.agent('one')
    const metrics = await reported(scene, { values: { total_requests: 9, success_rate: 1, requests_processed: 3 } }, request(1, false))
    assertClose(metrics, { total_requests: 10, requests_processed: 4, success_rate: 0.9, error_rate: 0.1, avg_response_time: 1 })
  }],
  ['of two hundred reports at once none is lost', async scene => {
    await scene.agent('one')
    const outcomes = await Promise.all(range(200).map(index => report(scene, request(1, index % 4 !== 0))))
    assert.deepEqual(outcomes.map(outcome => recordOf(outcome).metrics!.total_requests).sort((a, b) => a - b), range(200).map(index => index + 1))
    assertClose(recordOf(await report(scene, { values: {} })).metrics!, { total_requests: 200, requests_processed: 200, success_rate: 0.75, avg_response_time: 1 })
  }],
  ['a report is a sign of life, and nobody is told of the metrics', async scene => {
    const before = await scene.agent('one', 'suspect')
    await scene.pass(scene.settings.leaseMs / 2)
    const record = recordOf(await report(scene, request(1)))
    assert.ok(record.lastSeen > before.lastSeen)
    assert.deepEqual([record.state, scene.news()], ['alive', ['alive one resumed']])
    await scene.pass(scene.settings.leaseMs / 2)
    assert.equal(await scene.store.expire({ cleanup: false }), 0)
    const again = recordOf(await report(scene, request(1)))
    assert.deepEqual([again.revision, scene.news()], [record.revision, []])
  }],
  ['a report revives a dead agent', async scene => {
    await scene.agent('one', 'dead')
    assert.equal(recordOf(await report(scene, request(1))).state, 'alive')
    assert.deepEqual(scene.news(), ['alive one revived'])
  }],
  ['an older instance reports nothing, and nobody does for who is not there', async scene => {
    const { incarnation } = await scene.agent('one', 'suspect')
    const { incarnation: newer } = recordOf(await scene.register('one'))
    assertRefused(await report(scene, request(1), incarnation), 'stale-incarnation')
    assertRefused(await scene.store.report({ id: 'none', update: request(1) }), 'not-found')
    assertClose(recordOf(await report(scene, request(3), newer)).metrics!, { total_requests: 1, avg_response_time: 3 })
  }],
  ['metrics outlive a patch, a state and a newer instance, and end with the agent', async scene => {
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
