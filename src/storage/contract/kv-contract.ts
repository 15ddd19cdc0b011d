import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../../lib/clock.js'
import { forever, replicatedKinds, type KeyValueEntry, type KeyValueKind, type KeyValueStore } from '../kv-store.js'
import { testTime } from './agent-scene.js'

/** The settings of a store: a clock that the suite advances, for stores that can use a given clock. */
export interface StateContractSettings { clock: Clock }

export interface StateContractStore {
  /** A new, empty store that is not open. */
  store: KeyValueStore
  /** The clock of the store in epoch milliseconds (default: the given clock). */
  now?: Clock
  /** For a shared store: creates another one with the same entries, which is not open. */
  another?: () => Promise<KeyValueStore>
  /** For a persistent store: creates another one with the same entries, after the first was closed. */
  reopen?: () => Promise<KeyValueStore>
  /** Cleans up after all stores were closed. */
  close?: () => Promise<void>
}

/** A test of the contract, and the properties of a store that it needs. */
type KeyValueCase = readonly [name: string, run: (scene: KeyValueScene) => Promise<unknown>, needs?: KeyValueNeeds]
interface KeyValueNeeds { exact?: boolean, persistent?: boolean, shared?: boolean }

/** One process: its open store and the events that it has received. */
class KeyValueProcess {
  readonly store: KeyValueStore
  readonly received: KeyValueEntry[] = []
  opened: readonly KeyValueEntry[] = []

  constructor (store: KeyValueStore) {
    this.store = store
  }

  async open (): Promise<this> {
    this.opened = await this.store.open({
      changed: entry => { this.received.push(entry) },
      reloaded: assert.fail.bind(null, 'nothing was lost')
    })
    return this
  }

  /** Kind, key and value of the events since the last call. */
  newEvents (): string[] {
    return this.received.splice(0).map(({ kind, key, value }) => `${kind} ${key} ${value}`)
  }
}

interface PutOptions { ms?: number, onlyIf?: string | null, store?: KeyValueStore }

/** An open store and its time. */
class KeyValueScene {
  readonly #built: StateContractStore
  readonly #now: Clock
  readonly #processes: KeyValueProcess[] = []
  /** Lets time pass, by the clock of the store. */
  readonly pass: (ms: number) => Promise<unknown>
  process: KeyValueProcess

  constructor (built: StateContractStore, clock: Clock, pass: (ms: number) => Promise<unknown>) {
    this.#built = built
    this.#now = built.now ?? clock
    this.pass = pass
    this.process = new KeyValueProcess(built.store)
  }

  get store (): KeyValueStore { return this.process.store }

  async open (): Promise<void> {
    this.#processes.push(await this.process.open())
  }

  /** Opens the store of another process with the same entries. */
  async another (): Promise<KeyValueProcess> {
    assert.ok(this.#built.another, 'a shared store has another')
    const process = await new KeyValueProcess(await this.#built.another()).open()
    this.#processes.push(process)
    return process
  }

  async reopen (): Promise<readonly KeyValueEntry[]> {
    await this.store.close()
    assert.ok(this.#built.reopen, 'a persistent store has reopen')
    this.process = new KeyValueProcess(await this.#built.reopen())
    await this.open()
    return this.process.opened
  }

  async close (): Promise<void> {
    for (const { store } of this.#processes.reverse()) await store.close()
    await this.#built.close?.()
  }

  /** The time in `ms`, in whole milliseconds. */
  at (ms: number): number {
    return Math.floor(this.#now()) + ms
  }

  /** Puts an entry that expires in `ms`. */
  put (kind: KeyValueKind, key: string, value: string, options: PutOptions = {}): Promise<boolean> {
    const { ms = 60_000, onlyIf, store = this.store } = options
    return store.put({ kind, key, value, until: this.at(ms) }, onlyIf)
  }
}

const kinds: readonly KeyValueKind[] = ['session', 'revoked-token', 'revoked-agent', 'ticket', 'spent', 'known', 'sockets', 'secret']
const odd = ['', ' ', 'a:b', '{x}', '*', '__proto__', 'é ☃ 𝄞', 'line\nline', 'nul\0nul', 'x'.repeat(2000)]
const range = (length: number) => Array.from({ length }, (_, index) => index)

/** Waits until a process has received a number of events. */
async function receiveEvents (process: KeyValueProcess, count: number): Promise<string[]> {
  for (let tries = 0; process.received.length < count && tries < 500; tries++) await sleep(10)
  return process.newEvents()
}

const entries: KeyValueCase[] = [
  ['an entry is found by its kind and its key', async scene => {
    for (const kind of kinds) assert.equal(await scene.put(kind, 'one', `of ${kind}`), true)
    for (const kind of kinds) assert.equal(await scene.store.get(kind, 'one'), `of ${kind}`)
    assert.equal(await scene.store.get('session', 'two'), undefined)
    assert.equal(await scene.put('session', 'one', 'newer'), true)
    assert.equal(await scene.store.get('session', 'one'), 'newer')
  }],
  ['keys and values can be any text', async scene => {
    for (const text of odd) assert.equal(await scene.put('spent', text, text), true)
    for (const text of odd) assert.equal(await scene.store.get('spent', text), text)
    assert.deepEqual((await scene.store.list('spent')).map(({ key }) => key).sort(), odd.toSorted())
    for (const text of odd) assert.equal(await scene.store.take('spent', text), text)
  }],
  ['the condition of a put is checked against the stored value', async scene => {
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
  ['of many concurrent puts that expect no value one succeeds', async scene => {
    const won = await Promise.all(range(20).map(n => scene.put('secret', 'one', `${n}`, { onlyIf: null })))
    assert.equal(won.filter(Boolean).length, 1)
    assert.equal(await scene.store.get('secret', 'one'), `${won.indexOf(true)}`)
  }],
  ['of many concurrent takes one receives the entry', async scene => {
    await scene.put('ticket', 'one', 'value')
    const taken = await Promise.all(range(20).map(() => scene.store.take('ticket', 'one')))
    assert.deepEqual(taken.filter(value => value !== undefined), ['value'])
    assert.equal(await scene.store.get('ticket', 'one'), undefined)
    assert.equal(await scene.store.take('ticket', 'two'), undefined)
  }],
  ['entries are listed in the order of their expiry', async scene => {
    const lives = { c: 30_000, a: 10_000, d: 40_000, b: 20_000 }
    for (const [key, ms] of Object.entries(lives)) await scene.put('session', key, `${ms}`, { ms })
    await scene.put('ticket', 'other', 'x')
    await scene.put('session', 'a', 'later', { ms: 50_000 })
    await scene.store.take('session', 'd')
    const listed = await scene.store.list('session')
    assert.deepEqual(listed.map(({ kind, key, value }) => [kind, key, value]), [
      ['session', 'b', '20000'],
      ['session', 'c', '30000'],
      ['session', 'a', 'later']
    ])
    assert.ok(listed.every(({ until }, index) => index === 0 || until > listed[index - 1]!.until))
  }],
  ['an entry expires', async scene => {
    for (const kind of kinds) await scene.put(kind, 'one', 'x', { ms: 300 })
    await scene.put('session', 'two', 'x')
    await scene.pass(301)
    for (const kind of kinds) assert.equal(await scene.store.get(kind, 'one'), undefined)
    for (const kind of kinds) assert.equal(await scene.store.take(kind, 'one'), undefined)
    assert.deepEqual((await scene.store.list('session')).map(({ key }) => key), ['two'])
    for (const kind of kinds) assert.equal(await scene.put(kind, 'one', 'y', { onlyIf: null }), true)
  }],
  ['an entry expires at its time, and not before', async scene => {
    await scene.put('ticket', 'one', 'x', { ms: 1000 })
    await scene.pass(999)
    assert.equal(await scene.store.get('ticket', 'one'), 'x')
    await scene.pass(1)
    assert.equal(await scene.store.get('ticket', 'one'), undefined)
  }, { exact: true }],
  ['putting an expired entry removes it', async scene => {
    await scene.put('session', 'one', 'old')
    assert.equal(await scene.put('session', 'one', 'new', { ms: -1000 }), true)
    assert.equal(await scene.store.get('session', 'one'), undefined)
    assert.deepEqual(scene.process.newEvents(), ['session one old', 'session one null'])
  }],
  ['an entry can have no expiry', async scene => {
    await scene.store.put({ kind: 'secret', key: 'one', value: 'x', until: forever })
    assert.equal(await scene.store.get('secret', 'one'), 'x')
    assert.deepEqual(await scene.store.list('secret'), [{ kind: 'secret', key: 'one', value: 'x', until: forever }])
  }],
  ['the listener receives changes of replicated kinds, and no others, before the call resolves', async scene => {
    for (const kind of kinds) {
      await scene.put(kind, 'one', 'x')
      assert.deepEqual(scene.process.newEvents(), replicatedKinds.has(kind) ? [`${kind} one x`] : [])
      await scene.store.take(kind, 'one')
      assert.deepEqual(scene.process.newEvents(), replicatedKinds.has(kind) ? [`${kind} one null`] : [])
      await scene.store.take(kind, 'one')
      await scene.put(kind, 'one', 'x', { onlyIf: 'y' })
      assert.deepEqual(scene.process.newEvents(), [])
    }
  }],
  ['a new store is empty', async scene => {
    assert.deepEqual(scene.process.opened, [])
    for (const kind of kinds) assert.deepEqual(await scene.store.list(kind), [])
  }],
  ['entries survive a restart, and open returns those of the replicated kinds', async scene => {
    for (const kind of kinds) await scene.put(kind, 'one', `of ${kind}`)
    await scene.put('session', 'two', 'x', { ms: 50 })
    await scene.pass(51)
    const opened = await scene.reopen()
    assert.deepEqual(
      opened.map(({ kind, key, value }) => `${kind} ${key} ${value}`).sort(),
      [...replicatedKinds].map(kind => `${kind} one of ${kind}`).sort()
    )
    for (const kind of kinds) assert.equal(await scene.store.get(kind, 'one'), `of ${kind}`)
  }, { persistent: true }],
  ['other processes have the entries of one process and are notified', async scene => {
    const other = await scene.another()
    for (const kind of kinds) await scene.put(kind, 'one', 'x')
    for (const kind of kinds) assert.equal(await other.store.get(kind, 'one'), 'x')
    assert.deepEqual((await receiveEvents(other, replicatedKinds.size)).sort(), [...replicatedKinds].map(kind => `${kind} one x`).sort())
    await other.store.take('session', 'one')
    assert.deepEqual((await receiveEvents(scene.process, replicatedKinds.size + 1)).at(-1), 'session one null')
    const { opened } = await scene.another()
    assert.deepEqual(opened.map(({ kind }) => kind).sort(), [...replicatedKinds].filter(kind => kind !== 'session').sort())
  }, { shared: true }],
  ['of two concurrent processes one puts and one takes', async scene => {
    const other = await scene.another()
    const stores = range(20).map(n => n % 2 === 0 ? scene.store : other.store)
    const put = await Promise.all(stores.map((store, n) => scene.put('spent', 'one', `${n}`, { onlyIf: null, store })))
    assert.equal(put.filter(Boolean).length, 1)
    const taken = await Promise.all(stores.map(store => store.take('spent', 'one')))
    assert.deepEqual(taken.filter(value => value !== undefined), [`${put.indexOf(true)}`])
  }, { shared: true }]
]

const settings = { burst: 4, windowMs: 40_000 }

/** The results of concurrent calls of `takeTokens`. */
function takeMany (store: KeyValueStore, keys: readonly string[], times: number, of = settings): Promise<Array<number | null>> {
  return Promise.all(range(times).map(() => store.takeTokens(keys, of)))
}

function assertBurst (waits: ReadonlyArray<number | null>) {
  assert.equal(waits.filter(wait => wait === null).length, 4)
}

function assertWait (wait: number | null, most: number) {
  assert.ok(wait !== null && wait > 0 && wait <= most, `a wait of ${wait}`)
}

const buckets: KeyValueCase[] = [
  ['a bucket has a burst of tokens for concurrent calls', async scene => {
    const waits = await takeMany(scene.store, ['a'], 10)
    assertBurst(waits)
    for (const wait of waits.filter(wait => wait !== null)) assertWait(wait, 10_000)
    assert.equal(await scene.store.takeTokens(['b'], settings), null)
  }],
  ['when one of several buckets is empty no token is taken', async scene => {
    await takeMany(scene.store, ['a'], 4)
    for (const wait of await takeMany(scene.store, ['a', 'b'], 3)) assertWait(wait, 10_000)
    assert.deepEqual(await takeMany(scene.store, ['b'], 4), [null, null, null, null])
    assertWait(await scene.store.takeTokens(['b'], settings), 10_000)
  }],
  ['returned tokens can be taken again, and a bucket never has more than a burst', async scene => {
    await takeMany(scene.store, ['a', 'b'], 4)
    await scene.store.returnTokens(['a', 'b'], settings)
    assert.equal(await scene.store.takeTokens(['a', 'b'], settings), null)
    assertWait(await scene.store.takeTokens(['a'], settings), 10_000)
    await Promise.all(range(10).map(() => scene.store.returnTokens(['a', 'b', 'c'], settings)))
    assertBurst(await takeMany(scene.store, ['a', 'b', 'c'], 10))
  }],
  ['a bucket refills evenly within the window', async scene => {
    await takeMany(scene.store, ['a'], 4)
    await scene.pass(9_999)
    assertWait(await scene.store.takeTokens(['a'], settings), 1)
    await scene.pass(1)
    assert.equal(await scene.store.takeTokens(['a'], settings), null)
    assertWait(await scene.store.takeTokens(['a'], settings), 10_000)
    await scene.pass(1_000_000)
    assertBurst(await takeMany(scene.store, ['a'], 10))
  }, { exact: true }],
  ['after the returned wait there is a token', async scene => {
    const quick = { burst: 2, windowMs: 400 }
    await takeMany(scene.store, ['a'], 2, quick)
    const wait = await scene.store.takeTokens(['a'], quick) ?? 0
    await scene.pass(Math.ceil(wait))
    assert.equal(await scene.store.takeTokens(['a'], quick), null)
  }],
  ['processes share a bucket', async scene => {
    const other = await scene.another()
    const waits = await Promise.all([scene.store, other.store].map(store => takeMany(store, ['a'], 5)))
    assertBurst(waits.flat())
    await other.store.returnTokens(['a'], settings)
    assert.equal(await scene.store.takeTokens(['a'], settings), null)
  }, { shared: true }]
]

export interface StateContractFlags {
  /** The store uses `clock` (default). Otherwise the suite waits, and skips the tests that need exact times. */
  injectedClock?: boolean
  /** Entries survive a restart, and `build` returns a `reopen`. */
  persistent?: boolean
  /** Several processes share the entries, and `build` returns `another`. */
  shared?: boolean
}

export interface StateContractOptions {
  /** Declares a test, like `test` of `node:test`. The test fails when `run` rejects. */
  test: (name: string, run: () => Promise<void>) => unknown
  build: (settings: StateContractSettings) => Promise<StateContractStore>
  flags?: StateContractFlags
}

async function runCase ([, run]: KeyValueCase, { build, flags: { injectedClock = true } = {} }: StateContractOptions): Promise<void> {
  const { clock, pass } = testTime(injectedClock)
  const scene = new KeyValueScene(await build({ clock }), clock, pass)
  await scene.open()
  try {
    await run(scene)
  } finally {
    await scene.close()
  }
}

/**
 * Declares a test for each guarantee of a `KeyValueStore`. Each test builds a new store.
 *
 *     import test from 'node:test'
 *     stateContract({ test, build: async ({ clock }) => ({ store: new MyStore(…) }) })
 */
export function stateContract (options: StateContractOptions): void {
  const { injectedClock = true, persistent = false, shared = false } = options.flags ?? {}
  for (const entry of [...entries, ...buckets]) {
    const [name, , needs = {}] = entry
    if ((needs.exact && !injectedClock) || (needs.persistent && !persistent) || (needs.shared && !shared)) continue
    options.test(name, () => runCase(entry, options))
  }
}
