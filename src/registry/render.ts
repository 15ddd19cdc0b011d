import { statusOf, type AgentInfo, type AgentMetrics } from '../protocol/schemas/agent.js'
import { noMetrics } from '../storage/agent-metrics.js'
import type { AgentRecord } from '../storage/agent-store.js'

/** `full` shows every field to authenticated clients; `public` is the view of the public tier. */
export type View = 'full' | 'public'

const iso = (ms: number) => new Date(ms).toISOString()

/** A revision as clients see it, `<epoch>:<n>`. */
export const revisionText = (epoch: string, n: number) => `${epoch}:${n}`

/** The metrics of an agent as the REST API and frames show them. An agent that never reported has zeros. */
export function showMetrics ({ id, metrics, registeredAt }: Pick<AgentRecord, 'id' | 'metrics' | 'registeredAt'>): AgentMetrics {
  const { lastActive, ...values } = metrics ?? { ...noMetrics, lastActive: registeredAt }
  return { agent_id: id, ...values, last_active: new Date(lastActive).toISOString() }
}

/**
 * The JSON of one record: a head made of the stored body, and a tail that is built when it is first read. Records are
 * immutable, so the rendered text stays valid as long as the record is current.
 */
export class Rendering {
  readonly record: AgentRecord
  readonly #epoch: string
  readonly #hidden: readonly string[]
  #head: string | undefined
  #tail: string | undefined
  #metrics: string | undefined
  #publicHead: string | null | undefined

  /** @param hidden fields that the public view shows empty */
  constructor (record: AgentRecord, epoch: string, hidden: readonly string[]) {
    this.record = record
    this.#epoch = epoch
    this.#hidden = hidden
  }

  /** The JSON of a view that shows this record. */
  of (view: View): string {
    const json = view === 'full' ? this.full() : this.public()
    if (json === null) throw new Error(`Agent ${this.record.id} has no public view`)
    return json
  }

  /** An `AgentInfo` with every field. */
  full (withMetrics = true): string {
    this.#head ??= this.record.body.slice(0, -1)
    return `${this.#head}${this.#tailText()}${withMetrics ? this.#metricsText() : 'null'}}`
  }

  /** An `AgentInfo` as the public tier shows it; null if the public tier does not show the agent. */
  public (withMetrics = true): string | null {
    const head = this.#publicHeadText()
    if (head === null) return null
    const metrics = withMetrics && !this.#hidden.includes('metrics')
    return `${head}${this.#tailText()}${metrics ? this.#metricsText() : 'null'}}`
  }

  info (): AgentInfo {
    return JSON.parse(this.full())
  }

  #tailText (): string {
    const { registeredAt, revision, incarnation, state, lastSeen } = this.record
    this.#tail ??= `,"registered_at":"${iso(registeredAt)}","revision":"${revisionText(this.#epoch, revision)}"` +
      `,"incarnation":${incarnation},"status":"${statusOf(state)}","state":"${state}","last_seen":"${iso(lastSeen)}"` +
      ',"similarity":null,"metrics":'
    return this.#tail
  }

  #metricsText (): string {
    this.#metrics ??= JSON.stringify(showMetrics(this.record))
    return this.#metrics
  }

  #publicHeadText (): string | null {
    if (this.#publicHead === undefined) this.#publicHead = this.#makePublicHead()
    return this.#publicHead
  }

  #makePublicHead (): string | null {
    const { body, publicBody } = this.record
    if (publicBody === null) return null
    const shown = publicBody ?? body
    return (this.#hidden.length === 0 ? shown : withoutFields(shown, this.#hidden)).slice(0, -1)
  }
}

const emptyValues: Record<string, unknown> = { features: [], policy_tags: [] }

/** Hidden fields stay in place with an empty value, so that a record has the same members in every view. */
function withoutFields (json: string, hidden: readonly string[]): string {
  const record: Record<string, unknown> = JSON.parse(json)
  for (const field of hidden) if (field in record) record[field] = emptyValues[field] ?? null
  return JSON.stringify(record)
}
