import type {
  AgentRecord, AgentStore, Heartbeat, Outcome, RegisterCommand, RegisterOutcome, Rejection, RemoveCommand, ReportCommand, StateCommand,
  StoreListener, StoreSnapshot, UpdateCommand
} from '../agent-store.js'
import { metricsText, packContent, readPublished, resultOf, type ChangeEntry } from './agent-codec.js'
import type { AgentCommands, Reply } from './agent-commands.js'
import { ChangeSequencer, ChangeTail, loadSnapshot, readPages, type LoadedSnapshot } from './change-stream.js'
import { unavailable, type Connections, type Touch } from './connections.js'
import { HeartbeatBatcher, ReportQueue, TouchPublisher, type Renewal } from './heartbeats.js'
import type { AgentScript } from './scripts.js'
import { Watchdog, type Outage } from './watchdog.js'

interface RedisAgentStoreOptions {
  leaseMs: number
  /** The number of newest changes that the stream keeps and that are loaded at the start. */
  changes: number
  probeIntervalMs: number
  onError: (error: unknown) => void
}

type Arguments = ReadonlyArray<string | number>

const notFound: Rejection = { ok: false, reason: 'not-found' }
const stale: Rejection = { ok: false, reason: 'stale-incarnation' }
/** `expire.lua` affects at most this many agents per call. */
const expiredPerCall = 500
const idsPerExtension = 2000
/** After a longer outage agents get a full lease, not only the duration of the outage. */
const shortOutageMs = 1000

/** Keeps agents in Redis, shared by all processes of a namespace. */
export class RedisAgentStore implements AgentStore {
  readonly #connections: Connections
  readonly #options: RedisAgentStoreOptions
  readonly #commands: AgentCommands
  readonly #sequencer: ChangeSequencer
  readonly #tail: ChangeTail
  readonly #touches: TouchPublisher
  readonly #watchdog: Watchdog
  readonly #heartbeats = new HeartbeatBatcher(heartbeats => this.#sendHeartbeats(heartbeats))
  readonly #reports: ReportQueue
  #listener: StoreListener | undefined
  #reloading: Promise<void> | undefined

  constructor (connections: Connections, commands: AgentCommands, options: RedisAgentStoreOptions) {
    this.#connections = connections
    this.#options = options
    this.#commands = commands
    const { process } = commands
    const broken = () => { this.#reload() }
    this.#sequencer = new ChangeSequencer(process, {
      changed: changes => { this.#listener?.changed(changes) },
      touched: records => { this.#listener?.touched(records) },
      broken
    })
    const probe = (nonce: string) => { this.#watchdog.receive('changes', nonce) }
    this.#tail = new ChangeTail(connections, this.#sequencer, { probe, broken })
    this.#touches = new TouchPublisher(connections, process)
    this.#reports = new ReportQueue(id => this.#sequencer.get(id)?.metrics ?? null, args => this.#sendReports(args))
    this.#watchdog = new Watchdog({
      connections,
      process,
      probeIntervalMs: options.probeIntervalMs,
      pulse: nonce => this.#pulse(nonce),
      failed: fault => { this.#failed(fault) },
      recover: outage => this.#recover(outage),
      recovered: () => { this.#listener?.availability(null) }
    })
    connections.events.on('message', message => {
      if (message.type === 'probe') this.#watchdog.receive('messages', message.nonce)
      else if (message.type === 'touched' && message.from !== process) this.#sequencer.touch(message.touches)
    })
  }

  now (): number {
    return this.#commands.now()
  }

  async open (listener: StoreListener): Promise<StoreSnapshot> {
    await this.#connections.open()
    try {
      await this.#commands.pulse('')
      const loaded = await this.#load()
      this.#sequencer.load(loaded)
      this.#commands.follow(this.#sequencer)
      this.#listener = listener
      this.#tail.start()
      this.#watchdog.start()
      return toStoreSnapshot(loaded)
    } catch (error) {
      this.#connections.close()
      throw explainStartError(error)
    }
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    this.#listener = undefined
    await this.#watchdog.stop()
    await Promise.allSettled([this.#touches.flush()])
    this.#sequencer.fail(unavailable('this registry closes'))
    this.#connections.close()
    // Ends the blocking read if another store keeps the connections open.
    this.#connections.links.changes.reconnect()
    await this.#tail.stop()
  }

  async register ({ id, content, claim, maxAgents }: RegisterCommand): Promise<RegisterOutcome> {
    const packed = packContent(content)
    const { exclusive = false, maxAgents: keyMax = '' } = claim.kind === 'key' ? claim : {}
    const reply = await this.#run('register', [id, packed, claim.kind, claim.digest ?? '', exclusive ? 1 : 0, keyMax, maxAgents])
    const { status } = reply
    if (status === 'taken' || status === 'full' || status === 'key-full') return { ok: false, reason: status }
    return { ok: true, created: status === 'created', record: await this.#resultOf(reply, id, packed) }
  }

  async update ({ id, content, revision }: UpdateCommand): Promise<Outcome> {
    const packed = packContent(content)
    return this.#outcomeOf(await this.#run('update', [id, packed, revision]), id, packed)
  }

  async remove ({ id, incarnation, reason, ownerKey }: RemoveCommand): Promise<Outcome> {
    return this.#outcomeOf(await this.#run('remove', [id, incarnation ?? '', reason, ownerKey ?? '']), id)
  }

  async setState ({ id, incarnation, state, reason }: StateCommand): Promise<Outcome> {
    const reply = await this.#run('set-state', [id, incarnation ?? '', state, reason])
    if (reply.status !== 'ok') return rejectionOf(reply)
    await this.#reached(reply, reply.result)
    if (state === 'suspect') return found(this.#sequencer.get(id))
    return found(this.#touch({ id, seen: reply.now, n: reply.result }))
  }

  async renew (heartbeats: readonly Heartbeat[]): Promise<Outcome[]> {
    const renewals = await Promise.all(heartbeats.map(heartbeat => this.#heartbeats.add(heartbeat)))
    return renewals.map(renewal => this.#renewed(renewal))
  }

  async report (command: ReportCommand): Promise<Outcome> {
    const reported = await this.#reports.add(command)
    if (!reported.ok) return rejectionAt(reported.n)
    const { n, seen, text, metrics } = reported
    const record = this.#touch({ id: command.id, seen, n, metrics: text })
    return record ? { ok: true, record: { ...record, metrics } } : notFound
  }

  async expire ({ cleanup }: { cleanup: boolean }): Promise<number> {
    let count = 0
    for (;;) {
      const reply = await this.#run('expire', [cleanup ? 1 : 0])
      await this.#reached(reply, reply.revision)
      count += reply.result
      if (reply.result < expiredPerCall) return count
    }
  }

  async release (): Promise<void> {
    await this.#run('release', [])
  }

  /** Extends the leases that were last renewed through this process: it did not delay those of other processes. */
  async extend (ms: number): Promise<void> {
    const ids = [...this.#sequencer.ownLeases]
    for (let first = 0; first === 0 || first < ids.length; first += idsPerExtension) {
      await this.#run('extend', [Math.ceil(ms), first === 0 ? 1 : 0, ...ids.slice(first, first + idsPerExtension)])
    }
  }

  #renewed (renewal: Renewal): Outcome {
    return renewal.n < 0 ? rejectionAt(renewal.n) : found(this.#touch(renewal))
  }

  async #sendHeartbeats (heartbeats: readonly Heartbeat[]): Promise<Renewal[]> {
    const reply = await this.#run('renew', heartbeats.flatMap(({ id, incarnation }) => [id, incarnation ?? '']))
    await this.#reached(reply, Math.max(...reply.result))
    return heartbeats.map(({ id }, index) => ({ id, n: reply.result[index] ?? -1, seen: reply.now }))
  }

  async #sendReports (args: string[]): Promise<{ now: number, results: Array<number | string> }> {
    const reply = await this.#run('report', args)
    await this.#reached(reply, Math.max(...reply.result.map(result => typeof result === 'number' ? result : 0)))
    return { now: reply.now, results: reply.result }
  }

  /** Applies a heartbeat that this process received. @returns the record, unless it was removed in the meantime */
  #touch (touch: Touch): AgentRecord | undefined {
    const record = this.#sequencer.note(touch)
    if (record) this.#touches.add(touch, record)
    return record
  }

  async #run<S extends AgentScript> (script: S, args: Arguments) {
    try {
      return await this.#commands.run(script, args)
    } catch (error) {
      throw unavailable(error)
    }
  }

  async #outcomeOf (reply: Reply, id: string, content?: string): Promise<Outcome> {
    if (reply.status === 'ok') return { ok: true, record: await this.#resultOf(reply, id, content) }
    // A caller that tries again must know the conflicting change.
    if (reply.status === 'conflict') await this.#reached(reply, reply.revision)
    return rejectionOf(reply)
  }

  /** The record that the only change of a reply created or removed, after the change was delivered. */
  async #resultOf (reply: Reply, id: string, content?: string): Promise<AgentRecord> {
    const current = this.#sequencer.get(id)
    // The stream was faster than the reply.
    if (reply.epoch === this.#sequencer.epoch && current?.revision === reply.revision) return current
    const [entry] = reply.published.map(change => readPublished(change, content))
    if (!entry) throw unavailable('the reply has no change')
    await this.#reached(reply, entry.n, [entry])
    const newest = this.#sequencer.get(id)
    return newest?.revision === entry.n ? newest : resultOf(entry)
  }

  /** Resolves when the changes of a reply and all changes up to number `n` were delivered. */
  async #reached (
    { epoch, published }: Reply,
    n: number,
    entries: readonly ChangeEntry[] = published.map(change => readPublished(change))
  ) {
    if (epoch === this.#sequencer.epoch) this.#sequencer.offer(entries)
    const reached = this.#sequencer.reached(epoch, n)
    if (this.#watchdog.isStalled) this.#sequencer.fail(unavailable(this.#watchdog.fault))
    try {
      await reached
    } catch (error) {
      throw unavailable(error)
    }
  }

  async #pulse (nonce: string): Promise<void> {
    const { epoch } = await this.#commands.pulse(nonce)
    if (epoch !== this.#sequencer.epoch || !this.#sequencer.isFollowing) this.#reload()
    this.#touches.flush().catch(this.#options.onError)
  }

  #failed (fault: string) {
    if (this.#watchdog.isStalled) this.#sequencer.fail(unavailable(fault))
    this.#listener?.availability(`Redis: ${fault}`)
  }

  async #recover ({ ms, links }: Outage): Promise<void> {
    await this.extend(ms < shortOutageMs ? ms : this.#options.leaseMs)
    if (links.has('messages')) await this.#readTouches()
    const { epoch, revision } = await this.#commands.pulse('')
    await this.#sequencer.reached(epoch, revision)
  }

  /** Touches are messages and therefore sent once: after an outage all of them are read. */
  async #readTouches (): Promise<void> {
    for await (const { records } of readPages(this.#commands)) this.#sequencer.touch(records.map(touchOf))
  }

  #load (): Promise<LoadedSnapshot> {
    return loadSnapshot(this.#commands, this.#connections, this.#options.changes)
  }

  #reload () {
    this.#sequencer.pause()
    this.#reloading ??= this.#loadAgain()
      .catch(this.#options.onError)
      .finally(() => { this.#reloading = undefined })
  }

  async #loadAgain (): Promise<void> {
    // If Redis has lost writes, this begins a new epoch.
    await this.#commands.pulse('')
    const loaded = await this.#load()
    // In one turn of the event loop: a change must not be delivered before the snapshot that it follows.
    this.#sequencer.load(loaded)
    this.#listener?.reloaded(toStoreSnapshot(loaded))
    this.#sequencer.resume()
    this.#watchdog.probe()
  }
}

function touchOf ({ id, lastSeen, revision, metrics }: AgentRecord): Touch {
  return { id, seen: lastSeen, n: revision, ...(metrics && { metrics: metricsText(metrics) }) }
}

function toStoreSnapshot ({ epoch, revision, records, changes }: LoadedSnapshot): StoreSnapshot {
  return { epoch, revision, agents: [...records.values()], changes }
}

/** An agent may be removed after Redis decided a call and before its outcome is read. */
function found (record: AgentRecord | undefined): Outcome {
  return record ? { ok: true, record } : notFound
}

function rejectionAt (n: number): Rejection {
  return n === -2 ? stale : notFound
}

const rejections = new Map<string, Rejection>((['not-found', 'stale-incarnation', 'not-owner', 'conflict'] as const)
  .map(reason => [reason, { ok: false, reason }]))

function rejectionOf ({ status }: Reply): Rejection {
  return rejections.get(status) ?? notFound
}

function explainStartError (error: unknown): unknown {
  const [, schema] = /^SCHEMA (\d+)/.exec(error instanceof Error ? error.message : '') ?? []
  if (schema === undefined) return error
  return new Error(
    `The registry in Redis was written by a newer version (schema ${schema}): use it, or another namespace`,
    { cause: error }
  )
}
