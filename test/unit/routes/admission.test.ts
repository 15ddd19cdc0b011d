import t from 'tap'
import { Admission } from '../../../src/limits/admission.js'
import { build, problemOf, registration } from '../../support/harness.js'
import { answerOf, textOf } from './feed-helper.js'

t.test('so many may register at once, the others are told when there is room, one after the other', async t => {
  const registry = await build(t, { admission: { registrationsPerSecond: 1, burst: 3 } })
  const admin = await registry.admin()
  const answers = await Promise.all(Array.from({ length: 10 }, (_, i) => registry.post('/agents/register', { ...admin, body: registration(`agent-${i}`) })))
  const [passed, refused] = [answers.filter(({ status }) => status === 200), answers.filter(({ status }) => status === 429)]
  t.ok(passed.length >= 3 && passed.length < 10, `${passed.length} registered`)
  t.equal(passed.length + refused.length, 10)
  for (const answer of refused) t.equal(problemOf(t, answer), 'rate-limit-exceeded')
  t.ok(new Set(refused.map(({ headers }) => headers.get('retry-after'))).size >= 3, 'each another second')
  t.equal((await registry.post('/agents/agent-x/heartbeat', admin)).status, 404, 'what is no registration goes on')
  await t.resolves(registry.join('by-the-host'))
})

t.test('so many sockets and streams may be opened at once', async t => {
  const registry = await build(t, { admission: { upgradesPerSecond: 1, burst: 2 } })
  const token = await registry.join()
  const sockets = Array.from({ length: 6 }, () => registry.socket('/public/ws'))
  const outcomes = await Promise.all(sockets.map(socket => Promise.race([socket.opened.then(() => 'open' as const), socket.refused])))
  const refused = outcomes.filter(outcome => outcome !== 'open')
  t.ok(refused.length >= 2 && refused.length <= 4, `${refused.length} refused`)
  for (const outcome of refused) {
    t.match(outcome, { status: 503, headers: { 'retry-after': /^[1-9]/, connection: 'close' } })
    t.match(JSON.parse((outcome as { text: string }).text).type, /too-many-connections$/)
  }
  const stream = await answerOf(registry, '/agents/events', { authorization: `Bearer ${token}` })
  t.equal(stream.statusCode, 503)
  t.match(JSON.parse(await textOf(stream)).type, /too-many-connections$/)
})

t.test('turns are given away evenly, and none is farther away than half a minute and the spread of a second', async t => {
  let now = 1_000_000
  const admission = new Admission({ perSecond: 100, burst: 10, now: () => now })
  const waits = Array.from({ length: 1000 }, () => admission.take())
  t.equal(waits.filter(wait => wait === 0).length, 10)
  const perSecond = new Map<number, number>()
  for (const wait of waits.slice(10)) perSecond.set(Math.floor(wait / 1000), (perSecond.get(Math.floor(wait / 1000)) ?? 0) + 1)
  t.ok(perSecond.size >= 10 && [...perSecond.values()].every(count => count <= 150), JSON.stringify([...perSecond]))
  for (let i = 0; i < 10_000; i++) admission.take()
  t.ok(admission.take() <= 31_000)
  now += 60_000
  t.equal(admission.take(), 0)
})

t.test('whoever obeys comes in, all within about the time that the rate needs', async t => {
  let now = 0
  const admission = new Admission({ perSecond: 1000, burst: 500, now: () => now })
  const stepMs = 10
  const due = new Map<number, number>([[0, 20_000]])
  let [waiting, tries] = [20_000, 0]
  for (let step = 0; waiting > 0 && step < 10_000; step++) {
    now = step * stepMs
    for (let left = due.get(step) ?? 0; left > 0; left--) {
      const wait = admission.take()
      tries++
      if (wait === 0) waiting--
      // Clients wait whole seconds, and a little more.
      const at = step + Math.ceil((Math.ceil(wait / 1000) * 1000 + 500 * Math.random()) / stepMs)
      if (wait > 0) due.set(at, (due.get(at) ?? 0) + 1)
    }
    due.delete(step)
  }
  t.equal(waiting, 0)
  t.ok(now < 60_000, `all in after ${now} ms`)
  t.ok(tries < 4 * 20_000, `with ${tries} tries`)
})
