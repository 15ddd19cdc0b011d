import { showMetrics } from './agent-metrics.js'
import { statusOf, type AgentInfo } from '../protocol/schemas/agent.js'
import type { AgentRecord } from '../storage/agent-store.js'

const iso = (ms: number) => new Date(ms).toISOString()

/** Opaque `<epoch>:<n>`. */
export const revisionText = (epoch: string, n: number) => `${epoch}:${n}`

/**
 * The JSON of one record: made of its body, which never changes, and of a tail that is made when it is first read.
 * Records are immutable, so that what was rendered stays right for as long as the record is the current one.
 */
export class Rendering {
  readonly record: AgentRecord
  readonly #epoch: string
  readonly #hidden: readonly string[]
  #head: string | undefined
  #tail: string | undefined
  #metrics: string | undefined
  #publicHead: string | null | undefined

  constructor (record: AgentRecord, epoch: string, hidden: readonly string[]) {
    this.record = record
    this.#epoch = epoch
    this.#hidden = hidden
  }

  /** An `AgentInfo`. */
  full (withMetrics = true): string {
    this.#head ??= this.record.body.slice(0, -1)
    return `${this.#head}${this.#tailText()}${withMetrics ? this.#metricsText() : 'null'}}`
  }

  /** An `AgentInfo` as anybody may see it; null when the agent is not shown at all. */
  public (withMetrics = true): string | null {
    const head = this.#publicHeadText()
    if (head === null) return null
    const metrics = withMetrics && !this.#hidden.includes('metrics')
    return `${head}${this.#tailText()}${metrics ? this.#metricsText() : 'null'}}`
  }

  info (): AgentInfo {
    return JSON.parse(this.full()) as AgentInfo
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

/** Hidden fields keep their place with an empty value, so that a record has the same members everywhere. */
function withoutFields (json: string, hidden: readonly string[]): string {
  const record = JSON.parse(json) as Record<string, unknown>
  for (const field of hidden) if (field in record) record[field] = emptyValues[field] ?? null
  return JSON.stringify(record)
}
