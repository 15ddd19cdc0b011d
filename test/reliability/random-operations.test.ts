import fc from 'fast-check'
import t from 'tap'
import { until, type Json } from '../support/harness.js'
import { builtServer } from '../support/server-process.js'
import { startFleet, startRedis } from '../support/fleet.js'
import { kindsOfOperation, ModelAgent, type Operation } from '../support/agent-model.js'
import { lengthOf, seedOf } from '../support/lengths.js'
import { Watcher } from '../support/watchers.js'

const program = builtServer(t)
t.setTimeout(300_000)
const seed = seedOf('RELIABILITY_SEED', 20_261_120)
const agents = 50
const operationsEach = lengthOf('RELIABILITY_OPERATIONS', { short: 100, long: 400 })

const place = fc.nat({ max: 2 })
const operation: fc.Arbitrary<Operation> = fc.record({ does: fc.constantFrom(...kindsOfOperation), at: place, lookAt: place })
const script = fc.array(operation, { minLength: operationsEach, maxLength: operationsEach, size: 'max' })

t.test(`${agents * operationsEach} random operations on three processes end in the state of a single model (seed ${seed})`, async t => {
  const { redisUrl } = await startRedis(t)
  const fleet = await startFleet(t, { program, size: 3, redisUrl, env: { AGENT_HEARTBEAT_TIMEOUT: '600' } })
  const admin = await fleet[0]!.admin()
  const watchers = fleet.map(member => new Watcher({ carrier: 'agents', token: () => admin.token, place: () => member }))
  t.teardown(() => { for (const watcher of watchers) watcher.end() })
  const models = await Promise.all(Array.from({ length: agents }, async (_, i) => {
    const { body } = await fleet[i % 3]!.register(`agent-${i}`)
    return new ModelAgent(fleet, admin, body)
  }))
  const scripts = fc.sample(script, { numRuns: agents, seed })
  await Promise.all(models.map(async (model, i) => {
    for (const step of scripts[i]!) await model.run(step)
  }))
  t.strictSame(models.flatMap(({ faults }) => faults).slice(0, 20), [], 'every response matches the model')

  const revisions = await Promise.all(fleet.map(async member => (await member.get('/agents', admin)).headers.get('x-registry-revision')!))
  const newest = revisions.sort((a, b) => Number(a.split(':')[1]) - Number(b.split(':')[1])).at(-1)!
  for (const [index, member] of fleet.entries()) {
    let differences: string[] = []
    // What was reported comes beside the changes, which the revision counts.
    await until(async () => {
      const { body } = await member.get('/agents?include_metrics=true', { ...admin, headers: { ...admin.headers, 'x-min-revision': newest } })
      const byId = new Map<string, Json>(body.map((record: Json) => [record.agent_id, record]))
      differences = models.flatMap(model => model.difference(byId.get(model.id) ?? null) ?? [])
      return differences.length === 0
    }).catch(() => {})
    t.strictSame(differences, [], `process ${index} matches the model`)
  }
  await Promise.all(watchers.map(watcher => watcher.reach(newest)))
  await Promise.all(watchers.map(watcher => watcher.bookmarked()))
  t.strictSame(watchers.map(({ view }) => view.faults), [[], [], []], 'every watcher received every change once, and the digests match')
  t.equal(new Set(watchers.map(({ view }) => `${view.revision} ${view.digest}`)).size, 1)
})
