import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { createHeader, readHeader } from '../../src/storage/level/header.js'
import type { LevelStorage } from '../../src/storage/level/storage.js'
import { forever, type KeyValueListener } from '../../src/storage/kv-store.js'
import { manualClock } from '../unit/auth/helper.js'
import { until } from '../support/harness.js'
import { byId, crashed, leases, open, register, registerMany } from '../unit/storage/level-helper.js'

const root = t.testdir()
let folders = 0
const newFolder = () => join(root, `folder-${folders++}`)
const deaf: KeyValueListener = { changed () {}, reloaded () {} }
const renew = async ({ agents }: LevelStorage, id: string) => (await agents.renew([{ id }]))[0]!

/** Agents in every state, with every kind of change in the feed. */
async function live (storage: LevelStorage): Promise<void> {
  const { agents } = storage
  await registerMany(storage, 6)
  for (const n of [1, 2, 3]) await renew(storage, `agent-${n}`)
  await agents.setState({ id: 'agent-2', state: 'draining', reason: 'asked' })
  await agents.setState({ id: 'agent-3', state: 'suspect', reason: 'lost' })
  await agents.report({ id: 'agent-1', update: { request: { responseTime: 2, success: true } } })
  await register(storage, 'agent-4', 'another body')
  await register(storage, 'agent-5')
  await agents.remove({ id: 'agent-0', reason: 'left' })
  await register(storage, 'agent-0', 'back')
  await agents.remove({ id: 'agent-5', reason: 'left' })
}

/** Runs with and without a clean end. */
for (const clean of [true, false]) {
  t.test(`level storage: a restart after a ${clean ? 'clean end' : 'crash'} keeps all data`, async t => {
    const clock = manualClock()
    const folder = newFolder()
    const { storage, listener, snapshot: { epoch } } = await open(folder, { clock })
    await storage.kv.open(deaf)
    await live(storage)
    await storage.kv.put({ kind: 'session', key: 'one', value: 'of an admin', until: forever })
    await storage.kv.put({ kind: 'session', key: 'two', value: 'of another', until: clock() + 1000 })
    await storage.kv.put({ kind: 'ticket', key: 'one', value: 'taken', until: forever })
    await storage.kv.take('ticket', 'one')
    const { agents: before } = await snapshotOf(storage)
    const copy = newFolder()
    await settle(storage)
    crashed(folder, copy)
    await storage.kv.close()
    await storage.agents.close()

    clock.advance(5000)
    const again = await open(clean ? folder : copy, { clock })
    t.same(byId(again.snapshot.agents), byId(before))
    t.equal(again.snapshot.epoch, epoch)
    t.equal(again.snapshot.revision, listener.changes.at(-1)!.n)
    const last = again.snapshot.changes!
    t.same(last.map(
      change => [change.n, change.event, change.id, change.reason]
    ), listener.changes.map(change => [change.n, change.event, change.id, change.reason]))
    t.same(last.map(({ after }) =>
      after && { ...after, metrics: null }), listener.changes.map(({ after }) => after && { ...after, metrics: null }))
    t.same(last.map(change => change.before?.body), listener.changes.map(change => change.before?.body))
    t.same(await again.storage.kv.open(deaf), [{ kind: 'session', key: 'one', value: 'of an admin', until: forever }])
    t.equal(await again.storage.kv.get('ticket', 'one'), undefined)

    const outcome = await register(again.storage, 'agent-9')
    t.match(outcome, { ok: true, record: { revision: again.snapshot.revision + 1 } })
    t.ok(outcome.ok && byId(before).every(({ incarnation }) => incarnation < outcome.record.incarnation), 'incarnations continue')
    await again.storage.kv.close()
    await again.storage.agents.close()
  })
}

/** After a tick of one second each batch carries up to a thousand heartbeats. */
async function settle ({ agents, kv }: LevelStorage): Promise<void> {
  agents.tick()
  for (let slice = 0; slice < 4; slice++) await kv.put({ kind: 'known', key: 'settled', value: 'x', until: forever })
}

/** The state of a store, from its snapshot at open. */
async function snapshotOf ({ agents }: LevelStorage) {
  const ids = ['agent-0', 'agent-1', 'agent-2', 'agent-3', 'agent-4']
  const outcomes = await agents.renew(ids.map(id => ({ id })))
  return { agents: outcomes.flatMap(outcome => outcome.ok ? [outcome.record] : []) }
}

t.test('level storage: after a restart each key owns the same number of agents', async t => {
  const folder = newFolder()
  const claim = { kind: 'key', digest: 'key-b', exclusive: false, maxAgents: 2 } as const
  const command = (id: string) => ({ id, content: { body: '{}', type: 'testing', capabilities: [] }, claim, maxAgents: 100 })
  const { storage: { agents } } = await open(folder)
  for (const id of ['one', 'two']) t.match(await agents.register(command(id)), { ok: true })
  await agents.close()
  const { storage: { agents: again } } = await open(folder)
  t.same(await again.register(command('three')), { ok: false, reason: 'key-full' })
  t.same(await again.register({ ...command('one'), claim: { ...claim, digest: 'key-c' } }), { ok: false, reason: 'taken' })
  await again.close()
})

const hour = 3_600_000

/** Downtimes by the clock (ms); the clock may go back. */
for (const away of [0, 5000, 10 * leases.leaseMs, -hour, -48 * hour, 48 * hour]) {
  t.test(`level storage: leases, holds and tombstones keep their remaining time after ${away / 1000} s of downtime`, async t => {
    const clock = manualClock()
    const folder = newFolder()
    const first = await open(folder, { clock, preservation: false })
    await registerMany(first.storage, 2)
    await renew(first.storage, 'agent-1')
    clock.advance(leases.leaseMs - 1000)
    await renew(first.storage, 'agent-0')
    await first.storage.agents.extend(500)
    clock.advance(1500)
    await first.storage.agents.expire({ cleanup: true })
    clock.advance(100)
    await first.storage.agents.close()

    clock.advance(away)
    const { storage: { agents }, snapshot, listener } = await open(folder, { clock, preservation: false })
    t.same(byId(snapshot.agents).map(({ state }) => state), ['alive', 'dead'])
    clock.advance(leases.leaseMs + 500 - 1600 - 1)
    t.equal(await agents.expire({ cleanup: true }), 0)
    clock.advance(1)
    t.equal(await agents.expire({ cleanup: true }), 1)
    t.match(listener.changes, [{ id: 'agent-0', event: 'dead' }])
    clock.advance(leases.retentionMs - leases.leaseMs - 500 + 1600 - 100 - 1)
    t.equal(await agents.expire({ cleanup: true }), 0)
    clock.advance(1)
    t.equal(await agents.expire({ cleanup: true }), 1)
    t.match(listener.changes, [{ event: 'dead' }, { id: 'agent-1', event: 'unregistered', reason: 'retention' }])
    await agents.close()
  })
}

t.test('level storage: held agents stay held after a restart', async t => {
  const clock = manualClock()
  const folder = newFolder()
  const { storage, listener } = await open(folder, { clock })
  await registerMany(storage, 20)
  clock.advance(leases.leaseMs)
  t.equal(await storage.agents.expire({ cleanup: false }), 20)
  t.equal(listener.changes.filter(({ reason }) => reason === 'protected').length, 20)
  await storage.agents.close()
  const again = await open(folder, { clock })
  t.ok(again.snapshot.agents.every(({ held, state }) => held && state === 'suspect'))
  clock.advance(3 * leases.leaseMs - 1)
  t.equal(await again.storage.agents.expire({ cleanup: false }), 0)
  await again.storage.agents.release()
  clock.advance(1)
  t.equal(await again.storage.agents.expire({ cleanup: false }), 1)
  await again.storage.agents.close()
})

t.test('level storage: only the newest changes are kept, without a gap', async t => {
  const folder = newFolder()
  const first = await open(folder, { changes: 10 })
  for (let n = 0; n < 30; n++) await register(first.storage, `agent-${n}`)
  await first.storage.agents.close()
  const second = await open(folder, { changes: 10 })
  t.same(second.snapshot.changes!.map(({ n }) => n), [21, 22, 23, 24, 25, 26, 27, 28, 29, 30])
  await second.storage.agents.close()
  const third = await open(folder, { changes: 3 })
  t.same(third.snapshot.changes!.map(({ n }) => n), [28, 29, 30])
  await third.storage.agents.close()
})

t.test('level storage: writes not known to be on disk when the machine stopped begin a new epoch', async t => {
  for (const [durability, missing, continues] of [['commit', 0, false], ['sync', 0, true], ['sync', 5, false]] as const) {
    const folder = newFolder()
    const { storage, snapshot } = await open(folder, { durability })
    await registerMany(storage, 3)
    const copy = crashed(folder, newFolder())
    const header = readHeader(copy)
    createHeader(copy, { ...header, sequence: header.sequence + missing, boot: 'another' })
    await storage.agents.close()
    const again = await open(copy, { durability })
    t.equal(again.snapshot.epoch === snapshot.epoch, continues, `${durability}, ${missing} writes missing`)
    t.equal(again.snapshot.agents.length, 3)
    t.equal(again.snapshot.changes!.length, continues ? 3 : 0)
    await again.storage.agents.close()
    const third = await open(copy, { durability })
    t.equal(third.snapshot.epoch, again.snapshot.epoch)
    await third.storage.agents.close()
  }
})

t.test('level storage: expired records are deleted from disk', async t => {
  const clock = manualClock()
  const folder = newFolder()
  const { storage: { agents, kv } } = await open(folder, { clock })
  await kv.open(deaf)
  for (const key of ['a', 'b']) await kv.put({ kind: 'ticket', key, value: 'x', until: clock() + (key === 'a' ? 1000 : hour) })
  clock.advance(1000)
  for (let ticks = 0; ticks < 60; ticks++) kv.tick()
  t.equal(kv.collect().length, 1)
  kv.written()
  await kv.close()
  await agents.close()
})

/** Limits the size of files that this process writes, as a full disk does; null removes the limit. */
function limitFiles (bytes: number | null): void {
  process.removeAllListeners('SIGXFSZ')
  // Without a handler the signal of the first write beyond the limit would end the process.
  if (bytes !== null) process.on('SIGXFSZ', () => {})
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes ?? 'unlimited'}:`])
}

t.test('level storage: a full disk acknowledges and notifies nothing, and all changes are notified once there is space', async t => {
  const clock = manualClock()
  const folder = newFolder()
  const { storage, listener } = await open(folder, { clock })
  const { agents, kv } = storage
  await kv.open(deaf)
  await registerMany(storage, 3)
  t.teardown(() => limitFiles(null))
  limitFiles(1)
  const unavailable = { code: 'AGENT_REGISTRY_STORAGE_UNAVAILABLE', headers: { 'retry-after': '2' } }
  const lost: Array<Promise<unknown>> = [
    register(storage, 'late-0'), register(storage, 'late-1'), kv.put({ kind: 'session', key: 'late', value: 'x', until: forever })
  ]
  for (const call of lost) await t.rejects(call, unavailable)
  t.equal(listener.changes.length, 3, 'unwritten changes are not notified')
  t.match(listener.faults, [/./])
  await t.rejects(register(storage, 'refused'), unavailable)
  await t.rejects(renew(storage, 'agent-0'), unavailable)
  await t.rejects(agents.expire({ cleanup: true }), unavailable)
  await t.rejects(kv.take('session', 'late'), unavailable)
  await agents.extend(1000)
  await new Promise(resolve => { setTimeout(resolve, 1500) })
  t.equal(listener.changes.length, 3, 'the retry fails')

  limitFiles(null)
  await until(() => listener.faults.length === 2, 20_000)
  t.equal(listener.faults[1], null)
  t.same(listener.changes.map(({ n, id }) => [n, id]).slice(3), [[4, 'late-0'], [5, 'late-1']])
  t.equal(await kv.get('session', 'late'), 'x')
  t.match(await register(storage, 'late-2'), { ok: true, record: { revision: 6 } })
  await kv.close()
  await agents.close()
  const again = await open(folder, { clock })
  t.same(byId(again.snapshot.agents).map(({ id }) => id), ['agent-0', 'agent-1', 'agent-2', 'late-0', 'late-1', 'late-2'])
  t.same(again.snapshot.changes!.map(({ n }) => n), [1, 2, 3, 4, 5, 6])
  await again.storage.agents.close()
})

t.test('level storage: a store closed while its disk is full opens again without unacknowledged writes', async t => {
  const folder = newFolder()
  const { storage } = await open(folder)
  await registerMany(storage, 3)
  t.teardown(() => limitFiles(null))
  limitFiles(1)
  await t.rejects(register(storage, 'late'), { code: 'AGENT_REGISTRY_STORAGE_UNAVAILABLE' })
  await storage.agents.close()
  await t.rejects(register(storage, 'later'), { message: /it is closed/ })
  limitFiles(null)
  const again = await open(folder)
  t.same(byId(again.snapshot.agents).map(({ id }) => id), ['agent-0', 'agent-1', 'agent-2'])
  await again.storage.agents.close()
})

t.test('level storage: closing a store that is not open has no effect', async t => {
  const { storage } = await open(newFolder())
  await storage.kv.close()
  await storage.agents.close()
  await storage.agents.close()
  t.pass()
})

t.test('level storage: heartbeats of thousands of agents are written in slices', async t => {
  const clock = manualClock()
  const folder = newFolder()
  const { storage } = await open(folder, { clock })
  await storage.kv.open(deaf)
  await registerMany(storage, 2500)
  clock.advance(1000)
  for (const outcome of await storage.agents.renew(Array.from({ length: 2500 }, (_, n) => ({ id: `agent-${n}` })))) {
    if (!outcome.ok) t.fail(outcome.reason)
  }
  clock.advance(1000)
  const seen = clock() - 1000
  await storage.agents.renew(Array.from({ length: 2500 }, (_, n) => ({ id: `agent-${n}` })))
  await settle(storage)
  const again = await open(crashed(folder, newFolder()), { clock })
  t.ok(again.snapshot.agents.every(({ lastSeen }) => lastSeen > seen))
  await again.storage.agents.close()
  await storage.kv.close()
  await storage.agents.close()
})
