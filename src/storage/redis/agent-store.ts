import type { AgentRecord, AgentStore, Outcome, Rejection, RegisterCommand, RegisterOutcome, RemoveCommand, ReportCommand, Heartbeat, StateCommand, StoreListener, StoreSnapshot, UpdateCommand } from '../agent-store.js'
import type { Commands, Reply } from './commands.js'
import { unavailable, type Connections, type LinkName } from './connections.js'
import { Feed, type Touch } from './feed.js'
import { metricsText, packContent, readTold, resultOf, type ChangeEntry } from './records.js'
import { Reports, type Reported } from './reports.js'
import type { AgentScript } from './scripts/index.js'
import { Signs, type Renewed } from './heartbeats.js'
import { loadSnapshot, readPages, type Loaded } from './snapshot.js'
import { Tail } from './tail.js'
import { Touches } from './touches.js'
import { Watchdog } from './watchdog.js'

export interface RedisAgentStoreOptions {
  leaseMs: number
  /** How many changes are kept, and remembered at the start. */
  changes: number
  probeIntervalMs: number
  onError: (error: unknown) => void
}

const refusals: Record<number, Rejection> = { [-1]: { ok: false, reason: 'not-found' }, [-2]: { ok: false, reason: 'stale-incarnation' } }
const takenPerSweep = 500
const idsPerExtension = 2000
/** After a longer outage agents get a whole lease, not just that time. */
const shortOutageMs = 1000

/** Keeps agents in Redis, where every process of a namespace finds them. */
export class RedisAgentStore implements AgentStore {
  readonly #connections: Connections
  readonly #options: RedisAgentStoreOptions
  readonly #commands: Commands
  readonly #feed: Feed
  readonly #tail: Tail
  readonly #touches: Touches
  readonly #watchdog: Watchdog
  readonly #signs = new Signs(signs => this.#renew(signs))
  readonly #reports: Reports
  #listener: StoreListener | undefined
  #reloading: Promise<void> | undefined

  constructor (connections: Connections, commands: Commands, options: RedisAgentStoreOptions) {
    this.#connections = connections
    this.#options = options
    this.#commands = commands
    const { process } = commands
    const lost = () => { this.#reload() }
    this.#feed = new Feed(process, {
      changed: changes => { this.#listener?.changed(changes) },
      touched: records => { this.#listener?.touched(records) },
      lost
    })
    this.#tail = new Tail(connections, this.#feed, { probe: nonce => { this.#watchdog.hear('changes', nonce) }, lost })
    this.#touches = new Touches(connections, process)
    this.#reports = new Reports(id => this.#feed.get(id)?.metrics ?? null, args => this.#report(args))
    this.#watchdog = new Watchdog({
      connections,
      process,
      probeIntervalMs: options.probeIntervalMs,
      look: nonce => this.#look(nonce),
      failed: fault => { this.#failed(fault) },
      recover: outage => this.#recover(outage),
      recovered: () => { this.#listener?.availability(null) }
    })
    connections.read('probe', ({ nonce }) => { this.#watchdog.hear('messages', nonce as string) })
    connections.read('touched', message => { this.#feed.touch(this.#touches.read(message)) })
  }

  now (): number {
    return this.#commands.now()
  }

  async open (listener: StoreListener): Promise<StoreSnapshot> {
    await this.#connections.open()
    try {
      await this.#commands.look('')
      const loaded = await this.#read()
      this.#feed.load(loaded)
      this.#commands.follow(this.#feed)
      this.#listener = listener
      this.#tail.start()
      this.#watchdog.start()
      return snapshotOf(loaded)
    } catch (error) {
      this.#connections.close()
      throw asStartFault(error as Error)
    }
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    this.#listener = undefined
    await this.#watchdog.stop()
    await Promise.allSettled([this.#touches.flush()])
    this.#feed.fail(unavailable('this registry closes'))
    this.#connections.close()
    this.#connections.links.changes.cut()
    await this.#tail.stop()
  }

  async register ({ id, content, claim, maxAgents }: RegisterCommand): Promise<RegisterOutcome> {
    const packed = packContent(content)
    const { exclusive = false, maxAgents: keyMax = '' } = claim.kind === 'key' ? claim : {}
    const reply = await this.#ask('register', [id, packed, claim.kind, claim.digest ?? '', exclusive ? 1 : 0, keyMax, maxAgents])
    const { status } = reply
    if (status === 'taken' || status === 'full' || status === 'key-full') return { ok: false, reason: status }
    return { ok: true, created: status === 'created', record: await this.#told(reply, id, packed) }
  }

  async update ({ id, content, revision }: UpdateCommand): Promise<Outcome> {
    const packed = packContent(content)
    return this.#outcome(await this.#ask('update', [id, packed, revision]), id, packed)
  }

  async remove ({ id, incarnation, reason, ownerKey }: RemoveCommand): Promise<Outcome> {
    return this.#outcome(await this.#ask('remove', [id, incarnation ?? '', reason, ownerKey ?? '']), id)
  }

  async setState ({ id, incarnation, state, reason }: StateCommand): Promise<Outcome> {
    const reply = await this.#ask('setState', [id, incarnation ?? '', state, reason])
    if (reply.status !== 'ok') return refusalOf(reply)
    const n = reply.extra as number
    await this.#reached(reply, n)
    if (state === 'suspect') return this.#found(this.#feed.get(id))
    return this.#touched({ id, seen: reply.now, n })
  }

  async renew (signs: readonly Heartbeat[]): Promise<Outcome[]> {
    const renewed = await Promise.all(signs.map(sign => this.#signs.add(sign)))
    return renewed.map(({ n, seen }, index) => refusals[n] ?? this.#touched({ id: signs[index]!.id, seen, n }))
  }

  async report (command: ReportCommand): Promise<Outcome> {
    const reported = await this.#reports.add(command)
    return refusals[reported.n] ?? this.#reportTouched(command.id, reported as Reported & { text: string })
  }

  async expire ({ cleanup }: { cleanup: boolean }): Promise<number> {
    let count = 0
    for (;;) {
      const reply = await this.#ask('expire', [cleanup ? 1 : 0])
      await this.#reached(reply, reply.revision)
      count += reply.extra as number
      if ((reply.extra as number) < takenPerSweep) return count
    }
  }

  async release (): Promise<void> {
    await this.#ask('release', [])
  }

  /** Leases that were last renewed through this process: those of others were not held up by it. */
  async extend (ms: number): Promise<void> {
    const ids = [...this.#feed.mine]
    for (let first = 0; first === 0 || first < ids.length; first += idsPerExtension) {
      await this.#ask('extend', [Math.ceil(ms), first === 0 ? 1 : 0, ...ids.slice(first, first + idsPerExtension)])
    }
  }

  async #renew (signs: readonly Heartbeat[]): Promise<Renewed[]> {
    const reply = await this.#ask('renew', signs.flatMap(({ id, incarnation }) => [id, incarnation ?? '']))
    const results = reply.extra as number[]
    await this.#reached(reply, Math.max(...results))
    return results.map(n => ({ n, seen: reply.now }))
  }

  async #report (args: string[]): Promise<{ now: number, results: Array<number | string> }> {
    const reply = await this.#ask('report', args)
    const results = reply.extra as Array<number | string>
    await this.#reached(reply, Math.max(...results.map(result => typeof result === 'number' ? result : 0)))
    return { now: reply.now, results }
  }

  #reportTouched (id: string, { n, seen, text, metrics }: Reported & { text: string, seen?: number, metrics?: AgentRecord['metrics'] }): Outcome {
    const outcome = this.#touched({ id, seen: seen!, n, metrics: text })
    return outcome.ok ? { ok: true, record: { ...outcome.record, metrics: metrics! } } : outcome
  }

  /** An agent of which this process has just taken in a sign of life. */
  #touched (touch: Touch): Outcome {
    const record = this.#feed.note(touch)
    if (record) this.#touches.add(touch, record)
    return this.#found(record)
  }

  #found (record: AgentRecord | undefined): Outcome {
    // It was there when Redis decided, and has been removed since.
    return record ? { ok: true, record } : refusals[-1]!
  }

  async #ask (script: AgentScript, args: ReadonlyArray<string | number>): Promise<Reply> {
    try {
      return await this.#commands.run(script, args)
    } catch (error) {
      throw unavailable(error)
    }
  }

  async #outcome (reply: Reply, id: string, content?: string): Promise<Outcome> {
    if (reply.status === 'ok') return { ok: true, record: await this.#told(reply, id, content) }
    // Whoever tries again does so with what made it a conflict.
    if (reply.status === 'conflict') await this.#reached(reply, reply.revision)
    return refusalOf(reply)
  }

  /** The record that the one change of a reply made, or took away, once it has been told. */
  async #told (reply: Reply, id: string, content?: string): Promise<AgentRecord> {
    const followed = this.#feed.get(id)
    // The stream was faster.
    if (reply.epoch === this.#feed.epoch && followed?.revision === reply.revision) return followed
    const entry = readTold(reply.told[0]!, content)
    await this.#reached(reply, entry.n, [entry])
    const known = this.#feed.get(id)
    return known?.revision === entry.n ? known : resultOf(entry)
  }

  /** Resolves when the changes of a reply, and all up to a number, have been told. */
  async #reached ({ epoch, told }: Reply, n: number, entries: readonly ChangeEntry[] = told.map(entry => readTold(entry))): Promise<void> {
    if (epoch === this.#feed.epoch) this.#feed.offer(entries)
    const waiting = this.#feed.reached(epoch, n)
    if (this.#watchdog.isStalled) this.#feed.fail(unavailable(this.#watchdog.fault))
    try {
      await waiting
    } catch (error) {
      throw unavailable(error)
    }
  }

  async #look (nonce: string): Promise<void> {
    const { epoch } = await this.#commands.look(nonce)
    if (epoch !== this.#feed.epoch || !this.#feed.isFollowing) this.#reload()
    this.#touches.flush().catch(this.#options.onError)
  }

  #failed (fault: string) {
    if (this.#watchdog.isStalled) this.#feed.fail(unavailable(fault))
    this.#listener?.availability(`Redis: ${fault}`)
  }

  async #recover ({ ms, links }: { ms: number, links: ReadonlySet<LinkName> }): Promise<void> {
    await this.extend(ms < shortOutageMs ? ms : this.#options.leaseMs)
    if (links.has('messages')) await this.#refresh()
    const { epoch, revision } = await this.#commands.look('')
    await this.#feed.reached(epoch, revision)
  }

  /** Signs of life are told once: those that were missed are read. */
  async #refresh (): Promise<void> {
    for await (const { records } of readPages(this.#commands)) {
      this.#feed.touch(records.map(({ id, lastSeen, revision, metrics }) => ({ id, seen: lastSeen, n: revision, ...(metrics && { metrics: metricsText(metrics) }) })))
    }
  }

  #read (): Promise<Loaded> {
    return loadSnapshot(this.#commands, this.#connections, this.#options.changes)
  }

  #reload () {
    this.#feed.pause()
    this.#reloading ??= this.#loadAgain()
      .catch(this.#options.onError)
      .finally(() => { this.#reloading = undefined })
  }

  async #loadAgain (): Promise<void> {
    // What Redis knows otherwise than we do begins a new epoch first.
    await this.#commands.look('')
    const loaded = await this.#read()
    // All of it in one turn: a change that came in between would be told before the place that it follows.
    this.#feed.load(loaded)
    this.#listener?.reloaded(snapshotOf(loaded))
    this.#feed.resume()
    this.#watchdog.probe()
  }
}

function snapshotOf ({ epoch, revision, records, changes }: Loaded): StoreSnapshot {
  return { epoch, revision, agents: [...records.values()], changes }
}

function refusalOf ({ status }: Reply): Rejection {
  return { ok: false, reason: status as Rejection['reason'] }
}

function asStartFault (error: Error): Error {
  const [, schema] = /^SCHEMA (\d+)/.exec(error.message) ?? []
  if (schema === undefined) return error
  return new Error(`The registry in Redis was written by a newer version (schema ${schema}): use that version, or another namespace`, { cause: error })
}
