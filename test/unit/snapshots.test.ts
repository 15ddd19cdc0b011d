import t from 'tap'
import { build } from '../support/harness.js'
import { seriesOf, stripDocument } from '../support/documents.js'
import { exportedNames } from '../support/exported-names.js'
import { environmentTable, optionTable } from '../support/settings.js'
import { recordAgents } from '../support/frame-scripts/agents.js'
import { recordDashboard } from '../support/frame-scripts/dashboard.js'
import { recordPublic } from '../support/frame-scripts/public.js'
import { recordV1 } from '../support/frame-scripts/v1.js'
import { nameRecords } from '../support/http-recorder.js'
import { recordAnswers } from '../support/http-scripts/answers.js'
import { recordRefusals } from '../support/http-scripts/refusals.js'
import { matchJson, matchText } from '../support/snapshot.js'

const scrapeToken = 'a-token-for-prometheus'
// Tests that wait run concurrently.
t.jobs = 4

const everything = { routes: { root: true, docs: true, v1: true }, metricsScrapeToken: scrapeToken }

// The compiler blocks the process: no registry starts meanwhile.
await t.test('snapshot: exported names and the members of app.agentRegistry', async t => {
  const { app } = await build(t)
  const { entries, members } = await exportedNames()
  matchJson(t, 'exports.json', { entries, agentRegistry: { type: members, value: Object.keys(app.agentRegistry).sort() } })
})

await t.test('snapshot: options and environment variables', async t => {
  matchJson(t, 'options.json', optionTable())
  matchJson(t, 'environment.json', environmentTable())
})

t.test('snapshot: metrics after one use of each kind of message', { buffered: true }, async t => {
  const registry = await build(t, everything)
  const [one, two] = [
    await registry.agentSocket(await registry.agent('agent-one')), await registry.agentSocket(await registry.agent('agent-two'))
  ]
  one.send({ type: 'subscribe', requestId: '1', channel: 'public/a' })
  await one.next('ack')
  two.send({ type: 'publish', requestId: '2', channel: 'public/a', data: 1 })
  await one.next('message')
  two.send({ type: 'send', requestId: '3', to: 'agent-one', data: 1 })
  await one.next('direct')
  two.send({ type: 'request', requestId: '4', to: 'agent-one', data: 1, timeoutMs: 5000 })
  const { rid } = await one.next('request')
  one.send({ type: 'reply', rid, data: 2 })
  await two.next('response')
  await registry.post('/agents/register', { token: 'wrong', body: {} })
  await registry.app.agentRegistry.unregister('agent-two')
  const { text } = await registry.get('/metrics/scrape', { token: scrapeToken })
  matchText(t, 'metrics.txt', seriesOf(text))
})

t.test('snapshot: OpenAPI and AsyncAPI documents', { buffered: true }, async t => {
  const registry = await build(t, everything)
  for (const name of ['openapi.json', 'asyncapi.json']) matchJson(t, name, stripDocument((await registry.get(`/${name}`)).body))
})

t.test('snapshot: frames of the public tier', { buffered: true }, async t => {
  matchJson(t, 'frames-public.json', await recordPublic(t))
})

t.test('snapshot: frames of the agents tier', { buffered: true }, async t => {
  matchJson(t, 'frames-agents.json', await recordAgents(t))
})

t.test('snapshot: frames of the dashboard tier', { buffered: true }, async t => {
  matchJson(t, 'frames-dashboard.json', await recordDashboard(t))
})

t.test('snapshot: frames of /v1', { buffered: true }, async t => {
  matchJson(t, 'frames-v1.json', await recordV1(t))
})

t.test('snapshot: HTTP', { buffered: true }, async t => {
  const [answers, { routes, refusals }] = await Promise.all([recordAnswers(t), recordRefusals(t)])
  t.same(routes.filter(route => !answers.requested.has(route)), [], 'every route of the OpenAPI document was requested')
  const records = new Map<string, unknown>()
  const entries = nameRecords({ answers: answers.entries, ...refusals }, records)
  matchJson(t, 'http.json', { ...Object(entries), records: Object.fromEntries(records) })
})
