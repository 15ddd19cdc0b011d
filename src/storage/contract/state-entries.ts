import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { forever, replicatedKinds, type KeyValueKind } from '../kv-store.js'
import type { StateCase, StateSide } from './state-scene.js'

const kinds: readonly KeyValueKind[] = ['session', 'revoked-token', 'revoked-agent', 'ticket', 'spent', 'known', 'sockets', 'secret']
const odd = ['', ' ', 'a:b', '{x}', '*', '__proto__', 'é ☃ 𝄞', 'line\nline', 'nul\0nul', 'x'.repeat(2000)]
const range = (length: number) => Array.from({ length }, (_, index) => index)

/** Waits until a process was told that many changes. */
async function heard (side: StateSide, count: number): Promise<string[]> {
  for (let tries = 0; side.told.length < count && tries < 500; tries++) await sleep(10)
  return side.news()
}

/** Entries: put, taken, listed, told of, and ended by time. */
export const entries: StateCase[] = [
  ['what was put is there, by its kind and its key', async scene => {
    for (const kind of kinds) assert.equal(await scene.put(kind, 'one', `of ${kind}`), true)
    for (const kind of kinds) assert.equal(await scene.store.get(kind, 'one'), `of ${kind}`)
    assert.equal(await scene.store.get('session', 'two'), undefined)
    assert.equal(await scene.put('session', 'one', 'newer'), true)
    assert.equal(await scene.store.get('session', 'one'), 'newer')
  }],
  ['any text is a key and a value', async scene => {
    for (const text of odd) assert.equal(await scene.put('spent', text, text), true)
    for (const text of odd) assert.equal(await scene.store.get('spent', text), text)
    assert.deepEqual((await scene.store.list('spent')).map(({ key }) => key).sort(), odd.toSorted())
    for (const text of odd) assert.equal(await scene.store.take('spent', text), text)
  }],
  ['a condition is decided by what is there', async scene => {
    const { store } = scene
    assert.equal(await scene.put('session', 'one', 'first', { onlyIf: 'other' }), false)
    assert.equal(await store.get('session', 'one'), undefined)
    assert.equal(await scene.put('session', 'one', 'first', { onlyIf: null }), true)
    assert.equal(await scene.put('session', 'one', 'again', { onlyIf: null }), false)
    assert.equal(await scene.put('session', 'one', 'second', { onlyIf: 'other' }), false)
    assert.equal(await store.get('session', 'one'), 'first')
    assert.equal(await scene.put('session', 'one', 'second', { onlyIf: 'first' }), true)
    assert.equal(await store.get('session', 'one'), 'second')
  }],
  ['of many puts at once where nothing may be, one is', async scene => {
    const won = await Promise.all(range(20).map(n => scene.put('secret', 'one', `${n}`, { onlyIf: null })))
    assert.equal(won.filter(Boolean).length, 1)
    assert.equal(await scene.store.get('secret', 'one'), `${won.indexOf(true)}`)
  }],
  ['of many that take an entry at once one gets it', async scene => {
    await scene.put('ticket', 'one', 'value')
    const taken = await Promise.all(range(20).map(() => scene.store.take('ticket', 'one')))
    assert.deepEqual(taken.filter(value => value !== undefined), ['value'])
    assert.equal(await scene.store.get('ticket', 'one'), undefined)
    assert.equal(await scene.store.take('ticket', 'two'), undefined)
  }],
  ['entries are listed in the order of their ends', async scene => {
    for (const [key, ms] of [['c', 30_000], ['a', 10_000], ['d', 40_000], ['b', 20_000]] as const) await scene.put('session', key, `${ms}`, { ms })
    await scene.put('ticket', 'other', 'x')
    await scene.put('session', 'a', 'later', { ms: 50_000 })
    await scene.store.take('session', 'd')
    const listed = await scene.store.list('session')
    assert.deepEqual(listed.map(({ kind, key, value }) => [kind, key, value]), [['session', 'b', '20000'], ['session', 'c', '30000'], ['session', 'a', 'later']])
    assert.ok(listed.every(({ until }, index) => index === 0 || until > listed[index - 1]!.until))
  }],
  ['an entry ends at its time', async scene => {
    for (const kind of kinds) await scene.put(kind, 'one', 'x', { ms: 300 })
    await scene.put('session', 'two', 'x')
    await scene.pass(301)
    for (const kind of kinds) assert.equal(await scene.store.get(kind, 'one'), undefined)
    for (const kind of kinds) assert.equal(await scene.store.take(kind, 'one'), undefined)
    assert.deepEqual((await scene.store.list('session')).map(({ key }) => key), ['two'])
    for (const kind of kinds) assert.equal(await scene.put(kind, 'one', 'y', { onlyIf: null }), true)
  }],
  ['an entry ends at its time, and not before', async scene => {
    await scene.put('ticket', 'one', 'x', { ms: 1000 })
    await scene.pass(999)
    assert.equal(await scene.store.get('ticket', 'one'), 'x')
    await scene.pass(1)
    assert.equal(await scene.store.get('ticket', 'one'), undefined)
  }, { exact: true }],
  ['what has ended when it is put is not there', async scene => {
    await scene.put('session', 'one', 'old')
    assert.equal(await scene.put('session', 'one', 'new', { ms: -1000 }), true)
    assert.equal(await scene.store.get('session', 'one'), undefined)
    assert.deepEqual(scene.side.news(), ['session one old', 'session one null'])
  }],
  ['some entries do not end', async scene => {
    await scene.store.put({ kind: 'secret', key: 'one', value: 'x', until: forever })
    assert.equal(await scene.store.get('secret', 'one'), 'x')
    assert.deepEqual(await scene.store.list('secret'), [{ kind: 'secret', key: 'one', value: 'x', until: forever }])
  }],
  ['changes of the replicated kinds are told before the call resolves, and of no others', async scene => {
    for (const kind of kinds) {
      await scene.put(kind, 'one', 'x')
      assert.deepEqual(scene.side.news(), replicatedKinds.has(kind) ? [`${kind} one x`] : [])
      await scene.store.take(kind, 'one')
      assert.deepEqual(scene.side.news(), replicatedKinds.has(kind) ? [`${kind} one null`] : [])
      await scene.store.take(kind, 'one')
      await scene.put(kind, 'one', 'x', { onlyIf: 'y' })
      assert.deepEqual(scene.side.news(), [])
    }
  }],
  ['a new store is empty', async scene => {
    assert.deepEqual(scene.side.opened, [])
    for (const kind of kinds) assert.deepEqual(await scene.store.list(kind), [])
  }],
  ['entries outlive the store, those of the replicated kinds are what it opens with', async scene => {
    for (const kind of kinds) await scene.put(kind, 'one', `of ${kind}`)
    await scene.put('session', 'two', 'x', { ms: 50 })
    await scene.pass(51)
    const opened = await scene.reopen()
    assert.deepEqual(opened.map(({ kind, key, value }) => `${kind} ${key} ${value}`).sort(), [...replicatedKinds].map(kind => `${kind} one of ${kind}`).sort())
    for (const kind of kinds) assert.equal(await scene.store.get(kind, 'one'), `of ${kind}`)
  }, { persistent: true }],
  ['what one process puts another has, and is told of', async scene => {
    const other = await scene.another()
    for (const kind of kinds) await scene.put(kind, 'one', 'x')
    for (const kind of kinds) assert.equal(await other.store.get(kind, 'one'), 'x')
    assert.deepEqual((await heard(other, replicatedKinds.size)).sort(), [...replicatedKinds].map(kind => `${kind} one x`).sort())
    await other.store.take('session', 'one')
    assert.deepEqual((await heard(scene.side, replicatedKinds.size + 1)).at(-1), 'session one null')
    const { opened } = await scene.another()
    assert.deepEqual(opened.map(({ kind }) => kind).sort(), [...replicatedKinds].filter(kind => kind !== 'session').sort())
  }, { shared: true }],
  ['of two processes at once one puts and one takes', async scene => {
    const other = await scene.another()
    const stores = range(20).map(n => n % 2 === 0 ? scene.store : other.store)
    const put = await Promise.all(stores.map((store, n) => scene.put('spent', 'one', `${n}`, { onlyIf: null, store })))
    assert.equal(put.filter(Boolean).length, 1)
    const taken = await Promise.all(stores.map(store => store.take('spent', 'one')))
    assert.deepEqual(taken.filter(value => value !== undefined), [`${put.indexOf(true)}`])
  }, { shared: true }]
]
