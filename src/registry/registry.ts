import { problem, tooMany, validationFailed } from '../errors.js'
import { Emitter } from '../lib/emitter.js'
import { callHook, HookTimeoutError } from '../lib/hook-timeout.js'
import { mergePatch } from '../lib/json.js'
import { EventEmitter } from 'node:events'
import type { OnRegisterHook, PublicViewHook } from '../hooks.js'
import type { AgentInfo, AgentRegistration } from '../protocol/schemas/agent.js'
import type { AgentState } from '../protocol/schemas/common.js'
import type { Principal } from '../protocol/principal.js'
import type {
  AgentRecord, AgentStore, Change, ChangeEvent, Claim, Difference, Heartbeat, Outcome, RecordContent, ReportCommand, StateCommand,
  StoreSnapshot
} from '../storage/agent-store.js'
import { ChangeLog } from './feed/change-log.js'
import { LeaseMonitor } from './lease-monitor.js'
import { assertTree, parseRegistration, poisonousMembers, type ParsedRegistration, type RegistrationRules } from './registration.js'
import { revisionText } from './render.js'
import { Replica } from './replica.js'

/** A change of one agent, as the host receives it. */
export interface RegistryEvent {
  type: ChangeEvent
  revision: string
  agent_id: string
  /** The agent after the change; after it was removed, its last state. */
  agent: AgentInfo
  /** Null if the agent is new. */
  previous: AgentState | null
  reason: string
}

export type RegistryEvents = { [Event in ChangeEvent]: [event: RegistryEvent] } & { change: [event: RegistryEvent] }

/** `registered updated alive dead unregistered state`, and `change` for all of them in order. */
export class RegistryEmitter extends EventEmitter<RegistryEvents> {}

export interface RegistryOptions extends RegistrationRules {
  store: AgentStore
  leaseMs: number
  cleanupIntervalMs: number
  maxAgents: number
  ringSize: number
  hookTimeoutMs: number
  hiddenFields: readonly string[]
  onRegister?: OnRegisterHook
  publicView?: PublicViewHook
  onError: (error: unknown) => void
}

/** Events inside the package. */
interface RegistrySignals {
  /** Every change, in order, after the replica has applied it. */
  change: [change: Change]
  /** The replica was read again from the store, without single changes. */
  reload: [differences: readonly Difference[]]
  /** Every agent that differs, after a change or a reload. */
  difference: [difference: Difference]
  /** The reason why the store is unavailable; null when it is available again. */
  availability: [fault: string | null]
}

/** An outage of the store. `since` is in epoch milliseconds. */
interface Outage { readonly fault: string, readonly since: number }

/** A sentence about an outage for log lines and health reports. */
export const outageText = ({ since }: Outage) => `The store has been unavailable since ${new Date(since).toISOString()}`

interface PatchOptions {
  /** `n` of the revision that the client knows; any other current revision refuses the patch. */
  ifRevision?: number
  /** Throws if the owner of the record may not store the patched registration. */
  authorize?: (record: AgentRecord, registration: AgentRegistration) => void
}

/** Members that a patch may not contain: identity, ownership and everything that the registry itself maintains. */
const immutableMembers = [
  'agent_id', 'public_key', 'owner', 'status', 'state', 'last_seen', 'registered_at', 'revision', 'incarnation', 'metrics', 'similarity'
]

/** How often a patch without `ifRevision` is retried after a concurrent change of the record. */
const maxPatchTries = 5

/** @throws validation-failed for members that a patch may not contain */
function assertPatchable (patch: Record<string, unknown>) {
  const errors = [...poisonousMembers(patch)].map(path => ({ path, message: 'This name is reserved' }))
  for (const member of immutableMembers) if (Object.hasOwn(patch, member)) errors.push({ path: `/${member}`, message: 'Cannot be changed' })
  if (errors.length > 0) throw validationFailed(errors)
}

/** The registry. A store decides every write; a local replica that follows the store's changes answers every read. */
export class Registry extends Emitter<RegistrySignals> {
  /** Events for the host. */
  readonly events = new RegistryEmitter()
  readonly replica: Replica
  readonly changeLog: ChangeLog
  readonly leaseMs: number
  /** Heartbeats since the start. */
  readonly counters = { renewed: 0, refused: 0 }
  readonly #options: RegistryOptions
  readonly #store: AgentStore
  readonly #leases: LeaseMonitor
  #outage: Outage | null = null

  constructor (options: RegistryOptions) {
    super()
    this.#options = options
    this.#store = options.store
    this.leaseMs = options.leaseMs
    this.replica = new Replica({ hiddenFields: options.hiddenFields })
    this.changeLog = new ChangeLog(options.ringSize)
    this.#leases = new LeaseMonitor(options)
  }

  /** @throws the error of a store that cannot open */
  async open (): Promise<void> {
    const snapshot = await this.#store.open({
      changed: changes => { for (const change of changes) this.#apply(change) },
      touched: records => { for (const record of records) this.replica.touch(record) },
      reloaded: snapshot => { this.#reload(snapshot) },
      availability: fault => { this.#setAvailability(fault) }
    })
    this.#load(snapshot)
    this.#leases.start()
  }

  async close (): Promise<void> {
    await this.#leases.stop()
    await this.#store.close()
  }

  /** How late the last sweep of leases was, in milliseconds. */
  get sweepLagMs (): number {
    return this.#leases.lagMs
  }

  /** The newest revision. */
  get revision (): string {
    return revisionText(this.replica.epoch, this.replica.revision)
  }

  /** The current outage of the store, during which reads are as of its start; null if there is none. */
  get outage (): Outage | null {
    return this.#outage
  }

  /** The number of a revision from which the change log continues; undefined if the client has to resync. */
  positionOf (revision: string): number | undefined {
    const [epoch, n, ...rest] = revision.split(':')
    if (epoch !== this.replica.epoch || rest.length > 0 || !/^\d{1,15}$/.test(n ?? '')) return undefined
    return this.changeLog.has(Number(n)) ? Number(n) : undefined
  }

  /** @throws validation-failed with one entry per wrong field */
  parse (input: unknown): ParsedRegistration {
    return parseRegistration(input, this.#options)
  }

  /**
   * @param claim the right with which the agent is registered
   * @throws insufficient-permissions, duplicate-agent, quota-exceeded, hook-failed
   */
  async register (
    { registration, body }: ParsedRegistration, claim: Claim, principal: Principal | null
  ): Promise<{ created: boolean, record: AgentRecord }> {
    const id = registration.agent_id
    await this.#callOnRegister(registration, principal)
    const content = await this.#contentOf(registration, body)
    const outcome = await this.#store.register({ id, content, claim, maxAgents: this.#options.maxAgents })
    if (outcome.ok) return outcome
    if (outcome.reason === 'taken') throw problem('duplicate-agent', `Agent '${id}' is already registered and alive`)
    throw tooMany('quota-exceeded', outcome.reason === 'full' ? 'This registry is full' : 'This key has no agents left', 60_000)
  }

  /**
   * Applies a JSON Merge Patch to a registration.
   * @throws agent-not-found, precondition-failed, validation-failed, and what `authorize` throws
   */
  async patch (id: string, patch: unknown, options: PatchOptions = {}): Promise<AgentRecord> {
    for (let tries = options.ifRevision === undefined ? maxPatchTries : 1; tries > 0; tries--) {
      const outcome = await this.#patch(id, patch, options)
      if (outcome.ok || outcome.reason !== 'conflict') return recordOf(id, outcome)
    }
    throw revisionConflict(id)
  }

  async #patch (id: string, patch: unknown, { ifRevision, authorize }: PatchOptions): Promise<Outcome> {
    const record = this.replica.get(id)?.record
    if (!record) throw notFound(id)
    if (ifRevision !== undefined && ifRevision !== record.revision) throw revisionConflict(id)
    assertTree(patch)
    assertPatchable(patch)
    const { registration, body } = parseRegistration(mergePatch(JSON.parse(record.body), patch), this.#options)
    authorize?.(record, registration)
    const content = await this.#contentOf(registration, body)
    return this.#store.update({ id, content, revision: record.revision })
  }

  /**
   * @param heartbeat `ownerKey`, if given, must own the agent
   * @throws agent-not-found, stale-incarnation, insufficient-permissions
   */
  async unregister (heartbeat: Heartbeat & { ownerKey?: string }, reason: string): Promise<AgentRecord> {
    return recordOf(heartbeat.id, await this.#store.remove({ ...heartbeat, reason }))
  }

  /** Renews the lease of an agent. @throws agent-not-found, stale-incarnation */
  async heartbeat (heartbeat: Heartbeat): Promise<AgentRecord> {
    const [outcome] = await this.renew([heartbeat])
    return recordOf(heartbeat.id, outcome)
  }

  /** Renews the leases of many agents. Never throws because one of them is refused. */
  async renew (heartbeats: readonly Heartbeat[]): Promise<Outcome[]> {
    const outcomes = await this.#store.renew(heartbeats)
    for (const outcome of outcomes) {
      if (outcome.ok) this.replica.touch(outcome.record)
      this.counters[outcome.ok ? 'renewed' : 'refused']++
    }
    return outcomes
  }

  /**
   * Stores the metrics that an agent reports, and renews its lease.
   * @throws agent-not-found, stale-incarnation
   */
  async report (command: ReportCommand): Promise<AgentRecord> {
    const record = recordOf(command.id, await this.#store.report(command))
    this.replica.touch(record)
    return record
  }

  /** @throws agent-not-found, stale-incarnation */
  async setState (command: StateCommand): Promise<AgentRecord> {
    const record = recordOf(command.id, await this.#store.setState(command))
    this.replica.touch(record)
    return record
  }

  /** Ends self-preservation: held leases expire at the bounded rate. */
  releaseHeld (): Promise<void> {
    return this.#store.release()
  }

  get (id: string): AgentInfo | undefined {
    return this.replica.get(id)?.rendering.info()
  }

  stats () {
    const { size: total, deadCount: dead } = this.replica
    return { total_agents: total, alive_agents: total - dead, dead_agents: dead, agent_types: this.replica.countTypes() }
  }

  #load (snapshot: StoreSnapshot): Difference[] {
    this.changeLog.reset(snapshot.revision, snapshot.changes)
    return this.replica.load(snapshot)
  }

  #reload (snapshot: StoreSnapshot) {
    const differences = this.#load(snapshot)
    this.emit('reload', differences)
    for (const difference of differences) this.emit('difference', difference)
  }

  #setAvailability (fault: string | null) {
    const before = this.#outage
    this.#outage = fault === null ? null : { fault, since: before?.since ?? Date.now() }
    this.#leases.setAvailable(fault === null, fault === null && before ? Date.now() - before.since : 0)
    this.emit('availability', fault)
  }

  #apply (change: Change) {
    this.replica.apply(change)
    this.changeLog.push(change)
    this.emit('change', change)
    this.emit('difference', change)
    this.#emitEvent(change)
  }

  #emitEvent ({ n, event: type, id, before, after, reason }: Change) {
    const record = after ?? before
    if (record === null || this.events.listenerCount(type) + this.events.listenerCount('change') === 0) return
    const agent = this.replica.render(record).info()
    const event = { type, revision: revisionText(this.replica.epoch, n), agent_id: id, agent, previous: before?.state ?? null, reason }
    for (const listener of [...this.events.rawListeners(type), ...this.events.rawListeners('change')]) this.#notify(listener, event)
  }

  /** Calls one listener of the host. If it throws, the stored change remains and the other listeners are still called. */
  async #notify (listener: (event: RegistryEvent) => unknown, event: RegistryEvent): Promise<void> {
    try {
      await listener.call(this.events, event)
    } catch (error) {
      this.#options.onError(error)
    }
  }

  async #callOnRegister (registration: AgentRegistration, principal: Principal | null): Promise<void> {
    const { onRegister, hookTimeoutMs } = this.#options
    if (!onRegister) return
    try {
      await callHook('onRegister', hookTimeoutMs, () => onRegister({ registration: structuredClone(registration), principal }))
    } catch (error) {
      if (error instanceof HookTimeoutError) throw problem('hook-failed', 'The host application did not answer in time')
      throw problem('insufficient-permissions', error instanceof Error ? error.message : 'The host application refused the registration')
    }
  }

  async #contentOf (registration: AgentRegistration, body: string): Promise<RecordContent> {
    const content = { body, type: registration.agent_type, capabilities: registration.capabilities }
    return this.#options.publicView ? { ...content, ...await this.#publicContent(registration, this.#options.publicView) } : content
  }

  /** The result of `publicView` is validated as a registration: one invalid record would break every list for clients. */
  async #publicContent (
    registration: AgentRegistration, publicView: PublicViewHook
  ): Promise<Pick<RecordContent, 'publicBody' | 'publicFacets'>> {
    try {
      const view = await callHook('publicView', this.#options.hookTimeoutMs, () => publicView(structuredClone(registration)))
      if (view === null) return { publicBody: null }
      const { body, registration: shown } = parseRegistration({ ...view, agent_id: registration.agent_id }, this.#options)
      return { publicBody: body, publicFacets: { type: shown.agent_type, capabilities: shown.capabilities } }
    } catch (error) {
      this.#options.onError(error)
      throw problem('hook-failed', 'The host application could not provide the public view of this agent')
    }
  }
}

const notFound = (id: string) => problem('agent-not-found', `Agent ${id} not found`)

const revisionConflict = (id: string) => problem('precondition-failed', `Agent '${id}' has changed since this revision`)

/** @returns the record of a successful outcome. @throws the matching problem otherwise */
function recordOf (id: string, outcome: Outcome | undefined): AgentRecord {
  if (outcome?.ok) return outcome.record
  if (outcome === undefined || outcome.reason === 'not-found') throw notFound(id)
  if (outcome.reason === 'not-owner') throw problem('insufficient-permissions', 'The agent was registered with another key')
  throw problem('stale-incarnation', `A newer instance of agent '${id}' is registered`)
}
