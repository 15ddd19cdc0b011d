import t from 'tap'
import { Sessions } from '../../../src/auth/sessions.js'
import { manualClock, shared } from './helper.js'

const root = { username: 'root', fingerprint: 'browser-1', address: '192.0.2.1' }

function build () {
  const now = manualClock()
  const sessions = new Sessions({ state: shared(now), timeoutMs: 60_000, maxSessions: 2, now })
  const ended: string[] = []
  const stop = sessions.on('ended', ({ id }, reason) => ended.push(`${id} ${reason}`))
  return { now, sessions, ended, stop }
}

t.test('a session is found until it expires', async t => {
  const { sessions, now, ended } = build()
  const session = await sessions.open(root)
  t.match(session, { ...root, pinHash: null, expiresAt: now() + 60_000 })
  now.advance(59_999)
  t.same(await sessions.find(session.id), session)
  now.advance(1)
  t.equal(await sessions.find(session.id), undefined)
  t.same(ended, [`${session.id} expired`])
  t.equal(await sessions.end(session.id), false)
  t.equal(ended.length, 1)
})

t.test('a fingerprint has to be the one it was opened with', async t => {
  const { sessions } = build()
  const { id } = await sessions.open(root)
  t.match(await sessions.check(id, 'browser-1'), { id })
  for (const wrong of ['browser-2', '', 'browser-11']) t.equal(await sessions.check(id, wrong), undefined)
  t.equal(await sessions.check('nobody', 'browser-1'), undefined)
})

t.test('the newest sessions of a user are kept', async t => {
  const { sessions, ended } = build()
  const [first, second] = [await sessions.open(root), await sessions.open(root)]
  const other = await sessions.open({ ...root, username: 'other' })
  const third = await sessions.open(root)
  t.same(ended, [`${first.id} replaced`])
  for (const { id } of [second, third, other]) t.ok(await sessions.find(id))
})

t.test('ending one tells the listeners, until they stop', async t => {
  const { sessions, ended, stop } = build()
  const [first, second] = [await sessions.open(root), await sessions.open(root)]
  t.equal(await sessions.end(first.id), true)
  t.equal(await sessions.find(first.id), undefined)
  stop()
  t.equal(await sessions.end(second.id), true)
  t.same(ended, [`${first.id} logout`])
})

t.test('a PIN is set once', async t => {
  const { sessions } = build()
  const { id } = await sessions.open(root)
  t.same(await Promise.all([sessions.setPin(id, 'h1'), sessions.setPin(id, 'h2')]), ['set', 'already-set'])
  t.match(await sessions.find(id), { pinHash: 'h1' })
  t.equal(await sessions.setPin('nobody', 'h1'), 'not-found')
})

t.test('sweeping ends what has expired, and so does opening another', async t => {
  const { sessions, now, ended } = build()
  await sessions.open(root)
  now.advance(30_000)
  const young = await sessions.open(root)
  now.advance(30_000)
  await sessions.sweep()
  t.equal(sessions.size, 1)
  t.equal(ended.length, 1)
  now.advance(30_000)
  await sessions.open({ ...root, username: 'other' })
  t.same(ended[1], `${young.id} expired`)
})
