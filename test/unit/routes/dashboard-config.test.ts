import t from 'tap'
import { answerChecker, build, problemOf, type Json } from '../../support/harness.js'

const answers = answerChecker()
const pin = '2468'
const refused = { status: 'error', message: 'Invalid payload' }

t.test('settings of the dashboard', async t => {
  const registry = await build(t, { dashboardWs: { pingIntervalMs: 12_000 }, dashboard: { logCapacity: 500, logMessageLength: 100 } }, answers)
  const admin = await registry.admin()
  const config = (query = '') => registry.get(`/dashboard/config${query}`, admin)
  const update = (body: unknown) => registry.post('/dashboard/config', { ...admin, body })

  await t.test('are those of the options', async t => {
    const { status, body } = await config()
    t.equal(status, 200)
    t.same(body, { timezone: 'UTC', ws_ping_interval_ms: 12_000, log_buffer_maxlen: 500, log_message_maxlen: 100, ui: {} })
  })

  await t.test('give back a time zone that may be one', async t => {
    const zones: Array<[query: string, zone: string]> = [
      ['?tz=Europe/Paris', 'Europe/Paris'], ['?tz=Etc/GMT%2B5', 'Etc/GMT+5'], ['?tz=', 'UTC'], ['?tz=%3Cscript%3E', 'UTC'], ['?tz=1', 'UTC'], [`?tz=${'Z'.repeat(64)}`, 'Z'.repeat(64)]
    ]
    for (const [query, zone] of zones) t.equal((await config(query)).body.timezone, zone, query)
    t.equal(problemOf(t, await config(`?tz=${'Z'.repeat(65)}`)), 'validation-failed')
  })

  await t.test('keep what the page gives, beside what it gave before', async t => {
    t.same((await update({ ui: { theme: 'dark', nested: { a: [1, null] } } })).body, { status: 'ok', ui: { theme: 'dark', nested: { a: [1, null] } } })
    t.same((await update({ ui: { theme: 'light' } })).body.ui, { theme: 'light', nested: { a: [1, null] } })
    const other = await registry.admin()
    t.same((await registry.get('/dashboard/config', other)).body.ui, { theme: 'light', nested: { a: [1, null] } }, 'for all admins')
  })

  const clamped: Array<[given: unknown, kept: unknown]> = [[10, 10], [9, 10], [-5, 10], [500, 500], [501, 500], [1e9, 500], [99.9, 99], ['200', 200], ['x', undefined], [null, undefined], [true, undefined]]
  for (const [given, kept] of clamped) {
    await t.test(`hold maxLogEntries between 10 and what is kept: ${String(given)} is ${String(kept)}`, async t => {
      t.equal((await update({ ui: { maxLogEntries: given } })).body.ui.maxLogEntries, kept)
      t.equal((await config()).body.ui.maxLogEntries, kept)
    })
  }

  await t.test('refuse what is not an object, is too large or too deep, and change nothing', async t => {
    const before = (await config()).body.ui
    const deep = JSON.parse(`${'{"a":'.repeat(10)}1${'}'.repeat(10)}`) as Json
    for (const body of [undefined, null, [], 7, 'text', {}, { ui: null }, { ui: [] }, { ui: 'dark' }, { ui: { a: 'x'.repeat(16_384) } }, { ui: deep }]) {
      const answer = await update(body)
      t.equal(answer.status, 200)
      t.same(answer.body, refused, JSON.stringify(body)?.slice(0, 40))
    }
    t.equal((await registry.post('/dashboard/config', { ...admin, raw: '{"ui":{"__proto__":{"a":1}}}' })).status, 422)
    t.same((await update({ ui: { constructor: 1, prototype: 2 } })).body.ui, before)
    t.same((await config()).body.ui, before)
  })
})

t.test('who may see and change them', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  const agent = await registry.agent()
  const temp = await registry.tempToken('agent-two')
  for (const method of ['GET', 'POST']) {
    const ask = (call: object) => registry.call(method, '/dashboard/config', call)
    t.equal((await ask(admin)).status, 200)
    t.equal(problemOf(t, await ask({})), 'authentication-failed', method)
    for (const token of [agent, temp]) t.equal(problemOf(t, await ask({ token })), 'insufficient-permissions', method)
    t.equal((await ask({ token: admin.token, headers: { 'x-client-fingerprint': 'another' } })).status, 401, method)
  }
  t.equal(problemOf(t, await registry.call('PUT', '/dashboard/config', admin)), 'method-not-allowed')
  await registry.post('/auth/logout', admin)
  for (const method of ['GET', 'POST']) t.equal((await registry.call(method, '/dashboard/config', admin)).status, 401, method)
})

t.test('a session with a PIN changes them with the PIN only', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  await registry.post('/auth/set_pin', { ...admin, body: { pin } })
  const update = (more: object) => registry.post('/dashboard/config', { ...admin, headers: { ...admin.headers, ...more }, body: { ui: { theme: 'dark' } } })
  const missing = await update({})
  t.equal(missing.status, 400)
  t.equal(problemOf(t, missing), 'pin-required')
  const wrong = await update({ 'x-session-pin': '1111' })
  t.equal(wrong.status, 401)
  t.equal(problemOf(t, wrong), 'pin-incorrect')
  t.same((await registry.get('/dashboard/config', admin)).body.ui, {}, 'reading needs none')
  t.same((await update({ 'x-session-pin': pin })).body, { status: 'ok', ui: { theme: 'dark' } })
  t.equal((await registry.post('/dashboard/config', { ...await registry.admin(), body: { ui: {} } })).status, 200, 'another session has none')
})

t.test('are left out with the routes of the dashboard', async t => {
  const registry = await build(t, { routes: { dashboard: false } })
  const admin = await registry.admin()
  t.equal((await registry.get('/dashboard/config', admin)).status, 404)
})

t.test('every answer was what its schema promises', async t => { t.same(answers.findings, []) })
