import fc from 'fast-check'
import t from 'tap'
import { AgentMetrics } from '../../../src/protocol/schemas/agent.js'
import { parseMetrics } from '../../../routes/agent-metrics.js'
import { showMetrics } from '../../../src/registry/render.js'
import { applyMetrics, type MetricsUpdate, noMetrics, type StoredMetrics } from '../../../src/storage/agent-metrics.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import { seed } from '../../support/lengths.js'
const at = 1_700_000_000_000
const show = (metrics: StoredMetrics | null) => showMetrics({ id: 'agent-one', metrics, registeredAt: at })

/** Paths of the refused fields of a report; none if it is accepted. */
function refusals (body: unknown): string[] {
  try {
    parseMetrics(body)
    return []
  } catch (error) {
    const { statusCode, members } = error as { statusCode: number, members: { errors: Array<{ path: string }> } }
    t.equal(statusCode, 422)
    return members.errors.map(({ path }) => path)
  }
}

const ranges: Array<[field: string, right: unknown[], wrong: unknown[]]> = [
  ['success_rate', [0, 1, 0.5, '0.5', '1e-3'], [-0.001, 1.001, 7, 'x', '', null, true, [], {}, Infinity, NaN]],
  ['error_rate', [0, 1], [-1e-9, 1 + 1e-9, null, -Infinity]],
  ['avg_response_time', [0, 3600, '1e-05'], [-1, 3600.1, 4000, '1,5']],
  ['average_response_time', [0, 3600], [-1, 3600.1]],
  ['reputation_score', [0, 10], [-0.1, 10.1]],
  ['total_requests', [0, 1, 1e9, '7'], [-1, 1.5, '1.5', null, '0x10']],
  ['requests_processed', [0, 1e9], [-1, 0.5]]
]

t.test('value reports', async t => {
  for (const [field, right, wrong] of ranges) {
    await t.test(`value reports: ${field} is accepted within its range only`, async t => {
      for (const value of right) t.same(parseMetrics({ [field]: value }), { values: { [field]: Number(value) } }, String(value))
      for (const value of wrong) t.same(refusals({ [field]: value }), [`/${field}`], String(value))
    })
  }

  await t.test('value reports: unknown members and those of the registry are dropped', async t => {
    const body = JSON.parse(
      '{"agent_id":"other","last_active":"yesterday","__proto__":{"error_rate":1},"model_config":1,"operation":"x","success_rate":0.5}'
    )
    t.same(parseMetrics(body), { values: { success_rate: 0.5 } })
    t.same(parseMetrics({}), { values: {} })
    t.same(parseMetrics({ metrics: { success_rate: 9 } }), { values: {} })
  })

  await t.test('value reports: each invalid field is named', async t => {
    t.same(refusals({ success_rate: 7, error_rate: 2, total_requests: 1, avg_response_time: -1 }), [
      '/success_rate', '/avg_response_time', '/error_rate'
    ])
    for (const body of [null, undefined, [], 'text', 7]) t.same(refusals(body), [''], String(body))
  })
})

t.test('request reports', async t => {
  const taken: Array<[body: object, request: object]> = [
    [{ response_time: 0 }, { responseTime: 0, success: true }],
    [{ response_time: 3600, success: false, operation: 'translate' }, { responseTime: 3600, success: false }],
    [{ response_time: 0.25, success: true, success_rate: 9 }, { responseTime: 0.25, success: true }]
  ]
  for (const [body, request] of taken) t.same(parseMetrics(body), { request })
  const refused: Array<[body: object, paths: string[]]> = [
    [{ response_time: -1 }, ['/response_time']],
    [{ response_time: 3600.5, success: 'perhaps' }, ['/response_time', '/success']],
    [{ response_time: null }, ['/response_time']],
    [{ response_time: NaN }, ['/response_time']],
    [{ success: true }, ['/response_time']],
    [{ response_time: 1, success: null }, ['/success']]
  ]
  for (const [body, paths] of refused) t.same(refusals(body), paths, JSON.stringify(body))
  t.same(parseMetrics({ success: true, success_rate: 1 }), { values: { success_rate: 1 } },
    'success alone beside values is an unknown member')
})

t.test('metrics: without reports they are zero since the registration', async t => {
  t.same(show(null), { agent_id: 'agent-one', ...noMetrics, last_active: new Date(at).toISOString() })
  t.same(fieldErrors(AgentMetrics, show(null)), [])
})

const update: fc.Arbitrary<MetricsUpdate> = fc.oneof(
  fc.record({ request: fc.record({ responseTime: fc.double({ min: 0, max: 3600, noNaN: true }), success: fc.boolean() }) }),
  fc.record({
    values: fc.record({
      success_rate: fc.double({ min: 0, max: 1, noNaN: true }),
      avg_response_time: fc.double({ min: 0, max: 3600, noNaN: true }),
      total_requests: fc.nat(),
      reputation_score: fc.double({ min: 0, max: 10, noNaN: true }),
      error_rate: fc.double({ min: 0, max: 1, noNaN: true })
    }, { requiredKeys: [] })
  })
)

t.test(`metrics: any report yields metrics that clients accept and leaves the previous metrics unchanged (TEST_SEED=${seed})`, async t => {
  fc.assert(fc.property(fc.array(update, { maxLength: 30 }), updates => {
    let metrics: StoredMetrics | null = null
    for (const [index, each] of updates.entries()) {
      const before: string = JSON.stringify(metrics)
      const after: StoredMetrics = applyMetrics(metrics, each, at + index)
      if (JSON.stringify(metrics) !== before || after.lastActive !== at + index) return false
      metrics = after
    }
    return fieldErrors(AgentMetrics, show(metrics)).length === 0
  }), { numRuns: 300 })
  t.pass()
})

t.test('metrics: the success rate of many requests does not drift', async t => {
  let metrics: StoredMetrics | null = null
  for (let index = 0; index < 10_000; index++) {
    metrics = applyMetrics(metrics, { request: { responseTime: 0.1, success: index % 10 !== 0 } }, at)
  }
  t.ok(Math.abs(metrics!.success_rate - 0.9) < 1e-9)
  t.ok(Math.abs(metrics!.error_rate - 0.1) < 1e-9)
  t.equal(metrics!.total_requests, 10_000)
  t.ok(Math.abs(metrics!.avg_response_time - 0.1) < 1e-9)
})
