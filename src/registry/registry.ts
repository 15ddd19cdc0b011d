import { HookTimeoutError, problem, tooMany, validationFailed } from '../errors.js'
import { callHook } from '../protocol/hooks.js'
import type { Principal } from '../auth/principal.js'
import type { OnRegisterHook, PublicViewHook } from '../options.js'
import type { AgentInfo, AgentRegistration } from '../protocol/schemas/agent.js'
import type { AgentRecord, AgentStore, Change, Claim, Difference, Outcome, RecordContent, ReportCommand, Heartbeat, StateCommand, StoreSnapshot } from '../storage/agent-store.js'
import { ChangeRing } from './changes.js'
import { RegistryEmitter, type RegistryEvent } from './events.js'
import { mergePatch } from '../lib/json.js'
import { assertTree, parseRegistration, poisonousMembers, type ParsedRegistration, type RegistrationRules } from './registration.js'
import { Replica } from './replica.js'
import { revisionText } from './render.js'
import { Sweeper } from './lease-monitor.js'

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
  /** Why a key may not register this, or undefined; also asked when its agent changes its own record. */
  keyObjection?: (keyDigest: string, registration: AgentRegistration) => string | undefined
  onError: (error: unknown) => void
}

export interface Outage { readonly fault: string, readonly since: number }
/** For people. */
export const awaySince = ({ since }: Outage) => `The store cannot be reached since ${new Date(since).toISOString()}`

export interface Registered { created: boolean, record: AgentRecord }

/** Members that a patch may not name: identity, ownership and what the registry itself keeps. */
const immutableMembers = ['agent_id', 'public_key', 'owner', 'status', 'state', 'last_seen', 'registered_at', 'revision', 'incarnation', 'metrics', 'similarity']

/** How often a patch without a revision is made anew when the record was changed meanwhile, here or elsewhere. */
const maxPatchTries = 5

/** @throws validation-failed for members that a patch may not name */
function assertPatchable (patch: Record<string, unknown>) {
  const errors = [...poisonousMembers(patch)].map(path => ({ path, message: 'This name is reserved' }))
  for (const member of immutableMembers) if (Object.hasOwn(patch, member)) errors.push({ path: `/${member}`, message: 'Cannot be changed' })
  if (errors.length > 0) throw validationFailed(errors)
}

/**
 * The registry: every write goes through a store that decides it, every read is answered from a replica that the
 * store's changes keep up to date.
 */
export class Registry {
  readonly events = new RegistryEmitter()
  readonly replica: Replica
  readonly leaseMs: number
  ring: ChangeRing
  /** Signs of life since the start. */
  readonly tally = { renewed: 0, refused: 0 }
  readonly #options: RegistryOptions
  readonly #store: AgentStore
  readonly #sweeper: Sweeper
  readonly #listeners = new Set<(change: Change) => void>()
  readonly #reloadListeners = new Set<(differences: readonly Difference[]) => void>()
  readonly #availabilityListeners = new Set<(fault: string | null) => void>()
  #outage: Outage | null = null

  constructor (options: RegistryOptions) {
    this.#options = options
    this.#store = options.store
    this.leaseMs = options.leaseMs
    this.replica = new Replica({ hiddenFields: options.hiddenFields })
    this.ring = new ChangeRing({ size: options.ringSize })
    this.#sweeper = new Sweeper(options)
  }

  /** @throws what the store throws that cannot open */
  async open (): Promise<void> {
    const snapshot = await this.#store.open({
      changed: changes => { for (const change of changes) this.#apply(change) },
      touched: records => { for (const record of records) this.replica.touch(record) },
      reloaded: snapshot => { this.#reload(snapshot) },
      availability: fault => { this.#available(fault) }
    })
    this.#load(snapshot)
    this.#sweeper.start()
  }

  async close (): Promise<void> {
    await this.#sweeper.stop()
    await this.#store.close()
  }

  /** How late the last sweep was, in milliseconds. */
  get sweepLagMs (): number {
    return this.#sweeper.lagMs
  }

  /** The newest revision. */
  get revision (): string {
    return revisionText(this.replica.epoch, this.replica.revision)
  }

  /** Number of a revision of this epoch that the ring can continue from; undefined asks for a resync. */
  positionOf (revision: string): number | undefined {
    const [epoch, n, ...rest] = revision.split(':')
    if (epoch !== this.replica.epoch || rest.length > 0 || !/^\d{1,15}$/.test(n ?? '')) return undefined
    return this.ring.has(Number(n)) ? Number(n) : undefined
  }

  /** Hears of every change, in order, after the replica has it. Returns how to stop. */
  onChange (listener: (change: Change) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  /** Hears what differs when the store had to be read anew: no single changes are told then. Returns how to stop. */
  onReload (listener: (differences: readonly Difference[]) => void): () => void {
    this.#reloadListeners.add(listener)
    return () => { this.#reloadListeners.delete(listener) }
  }

  /** Hears of every difference, whether it is told as a change or found by a reload. Returns how to stop. */
  onDifference (listener: (difference: Difference) => void): () => void {
    const stops = [this.onChange(listener), this.onReload(differences => { differences.forEach(listener) })]
    return () => { for (const stop of stops) stop() }
  }

  /** Hears why the store cannot be reached, and null when it can again. Returns how to stop. */
  onAvailability (listener: (fault: string | null) => void): () => void {
    this.#availabilityListeners.add(listener)
    return () => { this.#availabilityListeners.delete(listener) }
  }

  /** Why the store cannot be reached and since when (epoch milliseconds): reads are as of then. Null while it can. */
  get outage (): Outage | null {
    return this.#outage
  }

  /** @throws validation-failed with one entry per wrong field */
  parse (input: unknown): ParsedRegistration {
    return parseRegistration(input, this.#options)
  }

  /**
   * @param claim with what right it is registered
   * @throws insufficient-permissions, duplicate-agent, quota-exceeded, hook-failed
   */
  async register ({ registration, body }: ParsedRegistration, claim: Claim, principal: Principal | null): Promise<Registered> {
    const id = registration.agent_id
    if (claim.kind === 'key') this.#checkKey(claim.digest, registration)
    else if (principal?.role === 'agent') this.#checkKey(this.replica.get(id)?.record.ownerKey ?? principal.keyDigest, registration)
    await this.#askHost(registration, principal)
    const content = await this.#content(registration, body)
    const outcome = await this.#store.register({ id, content, claim, maxAgents: this.#options.maxAgents })
    if (outcome.ok) return outcome
    if (outcome.reason === 'taken') throw problem('duplicate-agent', `Agent '${id}' is already registered and alive`)
    throw tooMany('quota-exceeded', outcome.reason === 'full' ? 'This registry is full' : 'This key has no agents left', 60_000)
  }

  /**
   * JSON Merge Patch of a registration.
   * @param ifRevision `n` of the revision that the client knows
   * @throws agent-not-found, precondition-failed, validation-failed
   */
  async patch (id: string, patch: unknown, ifRevision?: number): Promise<AgentRecord> {
    for (let tries = ifRevision === undefined ? maxPatchTries : 1; tries > 0; tries--) {
      const outcome = await this.#patch(id, patch, ifRevision)
      if (outcome.ok || outcome.reason !== 'conflict') return this.#settle(id, outcome)
    }
    throw this.#changed(id)
  }

  async #patch (id: string, patch: unknown, ifRevision: number | undefined): Promise<Outcome> {
    const { record } = this.replica.get(id) ?? this.#notFound(id)
    if (ifRevision !== undefined && ifRevision !== record.revision) throw this.#changed(id)
    assertTree(patch)
    assertPatchable(patch)
    const { registration, body } = parseRegistration(mergePatch(JSON.parse(record.body), patch), this.#options)
    this.#checkKey(record.ownerKey, registration)
    const content = await this.#content(registration, body)
    return this.#store.update({ id, content, revision: record.revision })
  }

  /**
   * @param sign with `ownerKey`, only if the agent was registered with that key
   * @throws agent-not-found, stale-incarnation, insufficient-permissions
   */
  async unregister (sign: Heartbeat & { ownerKey?: string }, reason: string): Promise<AgentRecord> {
    return this.#settle(sign.id, await this.#store.remove({ ...sign, reason }))
  }

  /** A sign of life. @throws agent-not-found, stale-incarnation */
  async heartbeat (sign: Heartbeat): Promise<AgentRecord> {
    const [outcome] = await this.renew([sign])
    return this.#settle(sign.id, outcome!)
  }

  /** Signs of life of many agents; never throws for one of them. */
  async renew (signs: readonly Heartbeat[]): Promise<Outcome[]> {
    const outcomes = await this.#store.renew(signs)
    for (const outcome of outcomes) {
      if (outcome.ok) this.replica.touch(outcome.record)
      this.tally[outcome.ok ? 'renewed' : 'refused']++
    }
    return outcomes
  }

  /**
   * Takes in what an agent reports of itself, which is a sign of life.
   * @throws agent-not-found, stale-incarnation
   */
  async report (command: ReportCommand): Promise<AgentRecord> {
    const record = this.#settle(command.id, await this.#store.report(command))
    this.replica.touch(record)
    return record
  }

  /** @throws agent-not-found, stale-incarnation */
  async setState (command: StateCommand): Promise<AgentRecord> {
    const record = this.#settle(command.id, await this.#store.setState(command))
    this.replica.touch(record)
    return record
  }

  /** Ends self-preservation on an admin's word. */
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
    const { revision: newest, changes } = snapshot
    this.ring = new ChangeRing({ size: this.#options.ringSize, newest, changes })
    return this.replica.load(snapshot)
  }

  #reload (snapshot: StoreSnapshot) {
    const differences = this.#load(snapshot)
    for (const listener of this.#reloadListeners) listener(differences)
  }

  #available (fault: string | null) {
    const before = this.#outage
    this.#outage = fault === null ? null : { fault, since: before?.since ?? Date.now() }
    this.#sweeper.available(fault === null, fault === null && before ? Date.now() - before.since : 0)
    for (const listener of this.#availabilityListeners) listener(fault)
  }

  #apply (change: Change) {
    this.replica.apply(change)
    this.ring.push(change)
    for (const listener of this.#listeners) listener(change)
    this.#emit(change)
  }

  #emit (change: Change) {
    if (this.events.listenerCount(change.event) + this.events.listenerCount('change') === 0) return
    const { event: type, id, before, after, reason } = change
    const agent = this.replica.render((after ?? before)!).info()
    const event = { type, revision: revisionText(this.replica.epoch, change.n), agent_id: id, agent, previous: before?.state ?? null, reason }
    for (const listener of [...this.events.rawListeners(type), ...this.events.rawListeners('change')]) this.#tell(listener, event)
  }

  /** Each by itself: a listener of the host that throws neither undoes a stored change nor keeps it from others. */
  async #tell (listener: (event: RegistryEvent) => unknown, event: RegistryEvent): Promise<void> {
    try {
      await listener.call(this.events, event)
    } catch (error) {
      this.#options.onError(error)
    }
  }

  #checkKey (digest: string | null | undefined, registration: AgentRegistration) {
    const objection = digest ? this.#options.keyObjection?.(digest, registration) : undefined
    if (objection) throw problem('insufficient-permissions', objection)
  }

  async #askHost (registration: AgentRegistration, principal: Principal | null): Promise<void> {
    const { onRegister, hookTimeoutMs } = this.#options
    if (!onRegister) return
    try {
      await callHook('onRegister', hookTimeoutMs, () => onRegister({ registration: structuredClone(registration), principal }))
    } catch (error) {
      if (error instanceof HookTimeoutError) throw problem('hook-failed', 'The host did not answer in time')
      throw problem('insufficient-permissions', error instanceof Error ? error.message : 'Refused by the host')
    }
  }

  async #content (registration: AgentRegistration, body: string): Promise<RecordContent> {
    const content = { body, type: registration.agent_type, capabilities: registration.capabilities }
    return this.#options.publicView ? { ...content, ...await this.#publicContent(registration, this.#options.publicView) } : content
  }

  /** What the public tier shows is a whole registration too, or one odd record would break every list for clients. */
  async #publicContent (registration: AgentRegistration, publicView: PublicViewHook): Promise<Pick<RecordContent, 'publicBody' | 'publicFacets'>> {
    try {
      const view = await callHook('publicView', this.#options.hookTimeoutMs, () => publicView(structuredClone(registration)))
      if (view === null) return { publicBody: null }
      const { body, registration: shown } = parseRegistration({ ...view, agent_id: registration.agent_id }, this.#options)
      return { publicBody: body, publicFacets: { type: shown.agent_type, capabilities: shown.capabilities } }
    } catch (error) {
      this.#options.onError(error)
      throw problem('hook-failed', 'The host could not decide what the public may see of this agent')
    }
  }

  #settle (id: string, outcome: Outcome): AgentRecord {
    if (outcome.ok) return outcome.record
    if (outcome.reason === 'not-found') this.#notFound(id)
    if (outcome.reason === 'not-owner') throw problem('insufficient-permissions', 'The agent was registered with another key')
    throw problem('stale-incarnation', `A newer instance of agent '${id}' is registered`)
  }

  #notFound (id: string): never {
    throw problem('agent-not-found', `Agent ${id} not found`)
  }

  #changed (id: string) {
    return problem('precondition-failed', `Agent '${id}' was changed since the revision you know`)
  }
}
